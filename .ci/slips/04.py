from slip import Slip


def but(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


CHARS = """
class CharTokenizer:
    def __init__(self, text):
        if not text:
            raise ValueError("text has no characters")
        self.chars = sorted(set(text))
        self.stoi = {c: i for i, c in enumerate(self.chars)}
        self.itos = {i: c for i, c in enumerate(self.chars)}

    @property
    def vocab_size(self):
        return len(self.chars)

    def encode(self, text):
        for c in text:
            if c not in self.stoi:
                raise ValueError(f"unknown character {c!r}")
        return [self.stoi[c] for c in text]

    def decode(self, tokens):
        return "".join(self.itos[int(i)] for i in tokens)
"""

EMBEDDING = """
class TransformerEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model, max_len, dropout=0.0, positions="learned"):
        super().__init__()
        if positions not in ("learned", "sinusoidal", "rope"):
            raise ValueError(f"positions is learned, sinusoidal or rope, not {positions!r}")
        self.token = TokenEmbedding(vocab_size, d_model)
        self.position = LearnedPositions(max_len, d_model) if positions == "learned" else None
        waves = sinusoidal_positions(max_len, d_model) if positions == "sinusoidal" else None
        self.register_buffer("waves", waves, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, start=0):
        T = tokens.size(1)
        x = self.token(tokens[:, start:])
        if self.position is not None:
            x = x + self.position(torch.arange(start, T, device=tokens.device))
        if self.waves is not None:
            x = x + self.waves[start:T]
        return self.dropout(x)
"""

ROTATE = """
def rotate(x, positions):
    d = x.size(-1)
    if d % 2:
        raise ValueError(f"d_head must be even, is {d}")
    freq = 10000.0 ** (-torch.arange(0, d, 2, device=positions.device) / d)
    theta = positions[:, None] * freq
    cos, sin = theta.cos().to(x.dtype), theta.sin().to(x.dtype)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
"""

WAVES = """
def sinusoidal_positions(T, d_model):
    t = torch.arange(T, dtype=torch.float32).unsqueeze(1)
    w = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    out = torch.empty(T, d_model)
    out[:, 0::2] = torch.sin(t * w)
    out[:, 1::2] = torch.cos(t * w)
    return out
"""

SLIPS = [
    # ---- CharTokenizer
    Slip(
        "CharTokenizer",
        "order of first appearance",
        but(CHARS, "sorted(set(text))", "list(dict.fromkeys(text))"),
        say=[r"sort|first appear|order"],
        never=[r"unknown|outside"],
    ),
    Slip(
        "CharTokenizer",
        "KeyError",
        but(
            CHARS,
            '        for c in text:\n            if c not in self.stoi:\n                raise ValueError(f"unknown character {c!r}")\n',
            "",
        ),
        say=[r"KeyError", r"ValueError"],
        never=[r"in silence|dropped|leaves? (it|them) out|no error", r"sort|first appear"],
    ),
    Slip(
        "CharTokenizer",
        "the error names nobody",
        but(
            CHARS,
            'raise ValueError(f"unknown character {c!r}")',
            'raise ValueError("unknown character")',
        ),
        say=[r"\bnam(e|es|ed|ing)\b|which|message|mention|says? (what|who)"],
        never=[r"first appear|sort", r"no ValueError|not raise|raises? nothing|dropped|in silence"],
    ),
    Slip(
        "CharTokenizer",
        "empty text accepted",
        but(
            CHARS,
            '        if not text:\n            raise ValueError("text has no characters")\n',
            "",
        ),
        say=[r"ValueError|raise|refuse", r"empty|without characters|no characters|\"\"|''"],
        never=[r"first appear|sort", r"outside the vocabulary"],
    ),
    Slip(
        "CharTokenizer",
        "vocab_size without property",
        but(CHARS, "    @property\n", ""),
        say=[r"property|method|parenthes|callable"],
        never=[r"first appear|sort", r"too (large|small)"],
    ),
    Slip(
        "CharTokenizer",
        "endless at a stranger",
        but(
            CHARS,
            """        for c in text:
            if c not in self.stoi:
                raise ValueError(f"unknown character {c!r}")
        return [self.stoi[c] for c in text]
""",
            """        ids, i = [], 0
        while i < len(text):
            if text[i] in self.stoi:
                ids.append(self.stoi[text[i]])
                i += 1
        return ids
""",
        ),
        say=[r"outside|unknown|time|second|endless|loop|stop|finish|never (ends|returns)"],
        never=[r"first appear|sort", r"dropped|leaves? (it|them) out", r"KeyError"],
    ),
    Slip(
        "CharTokenizer",
        "str.find, right",
        """
class CharTokenizer:
    def __init__(self, text):
        self.characters = "".join(sorted({*text}))
        if self.characters == "":
            raise ValueError("no characters, no vocabulary")

    @property
    def vocab_size(self):
        return len(self.characters)

    def encode(self, text):
        ids = list(map(self.characters.find, text))
        if -1 in ids:
            raise ValueError(f"{text[ids.index(-1)]!r} is not in the vocabulary")
        return ids

    def decode(self, tokens):
        return "".join(map(self.characters.__getitem__, tokens))
""",
        right=True,
    ),
    # ---- TokenEmbedding
    Slip(
        "TokenEmbedding",
        "weight is a module",
        """
class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Embedding(vocab_size, d_model)

    def forward(self, tokens):
        return self.weight(tokens)
""",
        say=[r"Parameter|tensor|nn\.Embedding|module", r"weight"],
        never=[
            r"(no|wrong|without|missing|times|divid\w+) .{0,12}(scale|root|sqrt)",
            r"numbers are wrong",
        ],
    ),
    Slip(
        "TokenEmbedding",
        "data cuts the graph",
        """
class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model))

    def forward(self, tokens):
        table = self.weight.data
        return table[tokens]
""",
        say=[r"gradient|\bgrad\b|detach|\.data|graph|learn"],
        never=[r"no `?nn\.Parameter|not a parameter|is not registered", r"numbers are wrong"],
    ),
    Slip(
        "TokenEmbedding",
        "one-hot product, right",
        """
class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        nn.init.normal_(self.weight)

    def forward(self, tokens):
        one_hot = nn.functional.one_hot(tokens, self.weight.size(0))
        return one_hot.to(self.weight.dtype) @ self.weight
""",
        right=True,
    ),
    # ---- sinusoidal_positions
    Slip(
        "sinusoidal_positions",
        "sine and cosine exchanged",
        """
def sinusoidal_positions(T, d_model):
    angles = torch.arange(T)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
    table = torch.zeros(T, d_model)
    table[:, 0::2] = angles.cos()
    table[:, 1::2] = angles.sin()
    return table
""",
        say=[r"sin.{0,40}cos|cos.{0,40}sin|exchang|swap"],
        never=[r"interleav|then all", r"exponent|frequenc", r"from 1"],
    ),
    Slip(
        "sinusoidal_positions",
        "half the exponent",
        """
import math


def sinusoidal_positions(T, d_model):
    i = torch.arange(d_model // 2)
    omega = torch.exp(-math.log(10000.0) * i / d_model)
    angles = torch.outer(torch.arange(T).float(), omega)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).reshape(T, d_model)
""",
        say=[r"exponent|frequenc|2i|half|too fast|speed"],
        never=[r"exchanged|swapped", r"interleav|then all", r"from 1"],
    ),
    Slip(
        "sinusoidal_positions",
        "whole division in the exponent",
        """
def sinusoidal_positions(T, d_model):
    angles = torch.arange(T)[:, None] / 10000.0 ** (torch.arange(0, d_model, 2) // d_model)
    return torch.stack((torch.sin(angles), torch.cos(angles)), dim=-1).flatten(-2)
""",
        say=[
            r"exponent|frequenc|//|division|all (the )?(pairs|waves)|same (speed|frequency)|speed"
        ],
        never=[r"exchanged|swapped", r"interleav|then all", r"half the exponent"],
    ),
    Slip(
        "sinusoidal_positions",
        "loops, right",
        """
import math


def sinusoidal_positions(T, d_model):
    rows = []
    for t in range(T):
        row = []
        for j in range(d_model):
            angle = t / 10000 ** (2 * (j // 2) / d_model)
            row.append(math.cos(angle) if j % 2 else math.sin(angle))
        rows.append(row)
    return torch.tensor(rows).reshape(T, d_model)
""",
        right=True,
    ),
    # ---- LearnedPositions
    Slip(
        "LearnedPositions",
        "rows from 0",
        """
class LearnedPositions(nn.Module):
    def __init__(self, max_len, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_len, d_model))

    def forward(self, positions):
        return self.weight[: len(positions)]
""",
        say=[r"positions", r"\b0\b|first|asked|start|whatever|ignore"],
        never=[r"axis|axes", r"(forget|forgot|ignor|without|wrong|other|another)\w* .{0,15}device"],
    ),
    Slip(
        "LearnedPositions",
        "another name",
        """
class LearnedPositions(nn.Module):
    def __init__(self, max_len, d_model):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(max_len, d_model))

    def forward(self, positions):
        return self.table[positions]
""",
        say=[r"\bweight\b", r"nam(e|ed)|called|attribute|key|no `?weight|missing"],
        never=[r"numbers are wrong", r"whatever positions", r"start(s)? at 0"],
    ),
    Slip(
        "LearnedPositions",
        "a buffer",
        """
class LearnedPositions(nn.Module):
    def __init__(self, max_len, d_model):
        super().__init__()
        self.register_buffer("weight", torch.randn(max_len, d_model))

    def forward(self, positions):
        return torch.index_select(self.weight, 0, positions)
""",
        say=[r"Parameter|parameters\(\)|learn|gradient"],
        never=[r"numbers are wrong", r"whatever positions", r"another name|is called"],
    ),
    # ---- TransformerEmbedding
    Slip(
        "TransformerEmbedding",
        "unknown positions accepted",
        but(
            EMBEDDING,
            '        if positions not in ("learned", "sinusoidal", "rope"):\n            raise ValueError(f"positions is learned, sinusoidal or rope, not {positions!r}")\n',
            "",
        ),
        say=[r"ValueError|refuse|raise", r"positions"],
        never=[
            r"buffer",
            r"rope.{0,30}adds? (learned|positions)",
            r"(forget|forgot|ignor|without|wrong|other|another)\w* .{0,15}device",
        ],
    ),
    Slip(
        "TransformerEmbedding",
        "waves as a plain attribute",
        but(
            EMBEDDING,
            'self.register_buffer("waves", waves, persistent=False)',
            "self.waves = waves",
        ),
        say=[r"device|buffer|move"],
        never=[
            r"training bends|as a parameter|\blearns? (the|them)",
            r"from 0 again",
            r"(wrong|other|another|keeps?|lose\w*|chang\w+) .{0,12}dtype",
        ],
    ),
    Slip(
        "TransformerEmbedding",
        "dropout on the tokens only",
        but(
            but(
                EMBEDDING,
                "x = self.token(tokens[:, start:])",
                "x = self.dropout(self.token(tokens[:, start:]))",
            ),
            "return self.dropout(x)",
            "return x",
        ),
        say=[r"dropout", r"position|sum|after|last|then"],
        never=[r"never used|not used", r"in evaluation", r"twice"],
    ),
    Slip(
        "TransformerEmbedding",
        "start, and positions from 0",
        """
class TransformerEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model, max_len, dropout=0.0, positions="learned"):
        super().__init__()
        self.token = TokenEmbedding(vocab_size, d_model)
        match positions:
            case "learned":
                self.position = LearnedPositions(max_len, d_model)
            case "sinusoidal":
                waves = sinusoidal_positions(max_len, d_model)
                self.register_buffer("position", waves, persistent=False)
            case "rope":
                self.position = None
            case _:
                raise ValueError(positions)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens, start=0):
        x = self.token(tokens[:, start:])
        where = torch.arange(x.shape[1], device=tokens.device)
        if isinstance(self.position, nn.Module):
            x = x + self.position(where)
        elif self.position is not None:
            x = x + self.position[where]
        return self.drop(x)
""",
        say=[r"start", r"position|place"],
        never=[r"all of (the )?tokens|taken for new", r"buffer", r"rope.{0,30}adds?\b"],
    ),
    # ---- rotate
    Slip(
        "rotate",
        "neighbors paired",
        but(
            but(ROTATE, "x[..., : d // 2], x[..., d // 2 :]", "x[..., 0::2], x[..., 1::2]"),
            "return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)",
            "return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)",
        ),
        say=[r"half|neighbo|pair|convention|interleav"],
        never=[r"clockwise|direction|other way", r"lengths? change"],
    ),
    Slip(
        "rotate",
        "counts from 0 itself",
        but(
            ROTATE,
            "theta = positions[:, None] * freq",
            "T = x.size(-2)\n    theta = torch.arange(T, device=x.device)[:, None] * freq",
        ),
        say=[r"positions", r"\b0\b|ignore|argument|whatever|asked|given"],
        never=[
            r"direction|clockwise",
            r"neighbo|other pairing",
            r"(forget|forgot|ignor|without|wrong|other|another)\w* .{0,15}device",
        ],
    ),
    Slip(
        "rotate",
        "odd width is a RuntimeError",
        but(
            ROTATE, '    if d % 2:\n        raise ValueError(f"d_head must be even, is {d}")\n', ""
        ),
        say=[r"ValueError", r"odd|even|width"],
        never=[r"direction|clockwise", r"neighbo|pairing", r"numbers are wrong"],
    ),
    Slip(
        "rotate",
        "bfloat16 becomes float32",
        but(ROTATE, "theta.cos().to(x.dtype), theta.sin().to(x.dtype)", "theta.cos(), theta.sin()"),
        say=[r"dtype|bfloat16|float16|half|float64|float32"],
        never=[
            r"half-split|neighbo|pairing",
            r"direction|clockwise",
            r"(forget|forgot|ignor|without|wrong|other|another)\w* .{0,15}device",
        ],
    ),
    Slip(
        "rotate",
        "complex numbers, right",
        """
def rotate(x, positions):
    if x.size(-1) % 2 != 0:
        raise ValueError(f"rotate needs an even width, not {x.size(-1)}")
    half = x.size(-1) // 2
    omega = 10000.0 ** (torch.arange(half, device=positions.device) * (-1 / half))
    theta = positions.to(omega.dtype).unsqueeze(-1) * omega
    work = torch.promote_types(x.dtype, torch.float32)
    z = torch.complex(x[..., :half].to(work), x[..., half:].to(work))
    z = z * torch.polar(torch.ones_like(theta), theta)
    return torch.cat((z.real, z.imag), dim=-1).to(x.dtype)
""",
        right=True,
    ),
    # ---- by another reader
    Slip(
        "CharTokenizer",
        "the error shows the text",
        but(CHARS, 'f"unknown character {c!r}"', 'f"unknown character in {text!r}"'),
        say=[r"which character"],
        never=[r"first appear|sort", r"no ValueError|dropped|in silence"],
    ),
    Slip(
        "CharTokenizer",
        "encode gives a tensor",
        but(
            CHARS,
            "return [self.stoi[c] for c in text]",
            "return torch.tensor([self.stoi[c] for c in text])",
        ),
        say=[r"list of ints", r"Tensor"],
        never=[r"first appear|sort"],
    ),
    Slip(
        "CharTokenizer",
        "blanks refused",
        but(CHARS, "if not text:", "if not text.strip():"),
        say=[r"white space", r"refused"],
        never=[r"vocab_size is", r"first appear"],
    ),
    Slip(
        "TransformerEmbedding",
        "waves made at each call",
        but(
            but(
                EMBEDDING,
                """        waves = sinusoidal_positions(max_len, d_model) if positions == "sinusoidal" else None
        self.register_buffer("waves", waves, persistent=False)
""",
                """        self.waves = d_model if positions == "sinusoidal" else None
""",
            ),
            "self.waves[start:T]",
            "sinusoidal_positions(T, self.waves)[start:].to(tokens.device)",
        ),
        say=[r"bfloat16", r"float32"],
        never=[r"\bGPU\b"],
    ),
    Slip(
        "rotate",
        "angles in x's dtype",
        but(
            ROTATE,
            """    freq = 10000.0 ** (-torch.arange(0, d, 2, device=positions.device) / d)
    theta = positions[:, None] * freq
""",
            """    freq = 10000.0 ** (-torch.arange(0, d, 2, device=positions.device, dtype=x.dtype) / d)
    theta = positions[:, None].to(x.dtype) * freq
""",
        ),
        say=[r"bfloat16", r"257"],
        never=[r"convention|neighbo", r"came out; x's dtype"],
    ),
]

EXTRA = [
    Slip(
        "CharTokenizer",
        "strips its text",
        but(CHARS, "set(text)", "set(text.strip())"),
        say=[r"white space", r"vocab_size"],
        never=[r"refused", r"first appear"],
    ),
    Slip(
        "TokenEmbedding",
        "padding_idx",
        """
class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model))

    def forward(self, tokens):
        return nn.functional.embedding(tokens, self.weight, padding_idx=0)
""",
        say=[r"token 0", r"gradient"],
        never=[r"graph|detach"],
    ),
    Slip(
        "sinusoidal_positions",
        "twice the exponent",
        but(WAVES, "-torch.arange(0, d_model, 2)", "-2 * torch.arange(0, d_model, 2)"),
        say=[r"exponent"],
        never=[r"half of it", r"exchanged|swapped"],
    ),
    Slip(
        "sinusoidal_positions",
        "linspace up to 1",
        but(WAVES, "-torch.arange(0, d_model, 2) / d_model", "-torch.linspace(0, 1, d_model // 2)"),
        say=[r"exponent", r"0\.333"],
        never=[r"half of it", r"exchanged|swapped"],
    ),
    Slip(
        "TransformerEmbedding",
        "a table for rope too",
        but(
            EMBEDDING,
            """        self.position = LearnedPositions(max_len, d_model) if positions == "learned" else None
""",
            """        self.position = None
        if positions != "sinusoidal":
            self.position = LearnedPositions(max_len, d_model)
        self.learned = positions == "learned"
""",
        ).replace("self.position is not None", "self.learned"),
        say=[r"position\.weight", r"'learned' alone"],
        never=[r"computed once belongs"],
    ),
    Slip(
        "rotate",
        "turned by what is turned",
        but(
            ROTATE,
            "    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)",
            """    a = a * cos - b * sin
    b = a * sin + b * cos
    return torch.cat((a, b), dim=-1)""",
        ),
        say=[r"after its turn"],
        never=[r"clockwise", r"ignore"],
    ),
    Slip(
        "rotate",
        "i / d in the exponent",
        but(ROTATE, "torch.arange(0, d, 2,", "torch.arange(d // 2,"),
        say=[r"exponent"],
        never=[r"clockwise", r"ignore|neighbo"],
    ),
    Slip(
        "rotate",
        "counts from the first position",
        but(ROTATE, "positions[:, None] * freq", "(positions - positions[0])[:, None] * freq"),
        say=[r"from the first"],
        never=[r"ignore", r"clockwise"],
    ),
    Slip(
        "CharTokenizer",
        "no set",
        but(CHARS, "sorted(set(text))", "sorted(text)"),
        say=[r"vocab_size returned|expected"],
        never=[r"white space"],
    ),
    Slip(
        "TokenEmbedding",
        "max_norm",
        """
class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model))

    def forward(self, tokens):
        return nn.functional.embedding(tokens, self.weight, max_norm=1.0)
""",
        say=[r"changes its weight"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "LearnedPositions",
        "starts as waves",
        """
class LearnedPositions(nn.Module):
    def __init__(self, max_len, d_model):
        super().__init__()
        self.weight = nn.Parameter(sinusoidal_positions(max_len, d_model))

    def forward(self, positions):
        return self.weight[positions]
""",
        say=[r"random"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "LearnedPositions",
        "from the first position",
        """
class LearnedPositions(nn.Module):
    def __init__(self, max_len, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_len, d_model))

    def forward(self, positions):
        return self.weight[positions - positions[0]]
""",
        say=[r"row 0", r"row 6"],
        never=[r"whichever positions"],
    ),
    Slip(
        "sinusoidal_positions",
        "positions in bfloat16",
        but(WAVES, "torch.arange(T, dtype=torch.float32)", "torch.arange(T).bfloat16()"),
        say=[r"position 257", r"digits"],
        never=[r"exponent"],
    ),
    Slip(
        "sinusoidal_positions",
        "an exponent for each feature",
        """
def sinusoidal_positions(T, d_model):
    t = torch.arange(T, dtype=torch.float32).unsqueeze(1)
    out = t * 10000.0 ** (-torch.arange(d_model) / d_model)
    out[:, 0::2] = torch.sin(out[:, 0::2])
    out[:, 1::2] = torch.cos(out[:, 1::2])
    return out
""",
        say=[r"one angle"],
        never=[r"swapped|exchanged"],
    ),
    Slip(
        "TransformerEmbedding",
        "dropout in evaluation too",
        but(
            but(EMBEDDING, "self.dropout = nn.Dropout(dropout)", "self.p = dropout"),
            "self.dropout(x)",
            "nn.functional.dropout(x, self.p)",
        ),
        say=[r"eval"],
        never=[r"after all else"],
    ),
    Slip(
        "TransformerEmbedding",
        "positions one too late",
        but(EMBEDDING, "torch.arange(start, T,", "torch.arange(start + 1, T + 1,"),
        say=[r"at position 0", r"added"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "rotate",
        "positions in half precision",
        but(ROTATE, "positions[:, None] * freq", "positions[:, None].half() * freq"),
        say=[r"4097", r"digits"],
        never=[r"exponent"],
    ),
    Slip(
        "TransformerEmbedding",
        "looks at its tokens, right",
        but(
            EMBEDDING,
            "        T = tokens.size(1)\n",
            """        T = tokens.size(1)
        if int(tokens.max()) >= self.token.weight.size(0):
            raise ValueError("a token has no row")
""",
        ),
        right=True,
    ),
    Slip(
        "sinusoidal_positions",
        "sign forgotten",
        """
def sinusoidal_positions(T, d_model):
    t = torch.arange(T).unsqueeze(1)
    freq = 10000.0 ** (torch.arange(0, d_model, 2) / d_model)
    p = torch.zeros(T, d_model)
    p[:, 0::2] = torch.sin(t * freq)
    p[:, 1::2] = torch.cos(t * freq)
    return p
""",
        say=[r"position \* 10000", r"both together"],
        never=[r"exponents of 10000 were", r"0.102"],
    ),
    Slip(
        "sinusoidal_positions",
        "1/10000 multiplied: t * 10000^..",
        """
def sinusoidal_positions(T, d_model):
    t = torch.arange(T).unsqueeze(1)
    freq = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    p = torch.zeros(T, d_model)
    p[:, 0::2] = torch.sin(t / freq)
    p[:, 1::2] = torch.cos(t / freq)
    return p
""",
        say=[r"position \* 10000", r"both together"],
        never=[r"exponents of 10000 were", r"example"],
    ),
    Slip(
        "rotate",
        "sign of the exponent",
        but(
            ROTATE,
            "(-torch.arange(0, d, 2, device=positions.device) / d)",
            "(torch.arange(0, d, 2, device=positions.device) / d)",
        ),
        say=[r"position \* 10000", r"both together"],
        never=[r"exponents of 10000 were"],
    ),
    Slip(
        "rotate",
        "neighbors in, halves out",
        but(ROTATE, "x[..., : d // 2], x[..., d // 2 :]", "x[..., 0::2], x[..., 1::2]"),
        say=[r"x0, x2, x4, x6, x1, x3, x5, x7"],
        never=[r"came out another"],
    ),
    Slip(
        "rotate",
        "halves exchanged when joined",
        but(
            ROTATE,
            "(a * cos - b * sin, a * sin + b * cos)",
            "(a * sin + b * cos, a * cos - b * sin)",
        ),
        say=[r"x4, x5, x6, x7, x0, x1, x2, x3"],
        never=[r"came out another"],
    ),
    Slip(
        "rotate",
        "halves exchanged when taken",
        but(ROTATE, "a, b = x", "b, a = x"),
        say=[r"x4, x5, x6, x7, x0, x1, x2, x3"],
        never=[r"came out another"],
    ),
    Slip(
        "CharTokenizer",
        "ids from 1",
        """
class CharTokenizer:
    def __init__(self, text):
        if not text:
            raise ValueError("text has no characters")
        self.chars = sorted(set(text))
        self.ids = {c: i for i, c in enumerate(self.chars, start=1)}

    @property
    def vocab_size(self):
        return len(self.chars)

    def encode(self, text):
        for c in text:
            if c not in self.ids:
                raise ValueError(f"{c!r} is not in the vocabulary")
        return [self.ids[c] for c in text]

    def decode(self, tokens):
        return "".join(self.chars[int(i)] for i in tokens)
""",
        say=[r"should get 0 to 8"],
        never=[r"IndexError"],
    ),
    Slip(
        "rotate",
        "sine and cosine exchanged",
        but(ROTATE, "cos, sin = ", "sin, cos = "),
        say=[r"-x4, -x5, -x6, -x7, x0, x1, x2, x3"],
        never=[r"came out another"],
    ),
    Slip(
        "rotate",
        "base of 1000",
        but(ROTATE, "10000.0", "1000.0"),
        say=[r"as if 10000 were 1000"],
        never=[r"whole turns"],
    ),
    Slip(
        "sinusoidal_positions",
        "degrees",
        but(WAVES, "t * w)\n    out[:, 1", "t * w / 57.29578)\n    out[:, 1").replace(
            "cos(t * w)", "cos(t * w / 57.29578)"
        ),
        say=[r"0.01745 times"],
        never=[r"exponents of"],
    ),
    Slip(
        "sinusoidal_positions",
        "speeds in reverse",
        but(WAVES, "/ d_model)\n", "/ d_model).flip(0)\n"),
        say=[r"0\.001, 0\.01, 0\.1, 1"],
        never=[r"exponents of"],
    ),
    Slip(
        "rotate",
        "positions from 1",
        but(ROTATE, "positions[:, None] *", "(positions[:, None] + 1) *"),
        say=[r"one position too many"],
        never=[r"came out another"],
    ),
]
