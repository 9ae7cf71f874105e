from slip import Slip


def but(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


LAYER_NORM = """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x):
        c = x - x.mean(-1, keepdim=True)
        var = c.pow(2).mean(-1, keepdim=True)
        return c / torch.sqrt(var + self.eps) * self.weight + self.bias
"""

RMS_NORM = """
class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight
"""

FEED_FORWARD = """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.drop(self.down(gelu(self.up(x))))
"""

BLOCK = """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.ln_2 = LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        x = x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        return x + self.feed_forward(self.ln_2(x))
"""

SLIPS = [
    # ---- gelu
    Slip(
        "gelu",
        "0.44715",
        """
import math


def gelu(x):
    c = math.sqrt(2.0 / math.pi)
    return 0.5 * x * (1.0 + torch.tanh(c * (x + 0.44715 * torch.pow(x, 3))))
""",
        say=[r"0\.0?44715|coefficient|constant|cub"],
        never=[r"\berf\b", r"sigmoid", r"root of"],
    ),
    Slip(
        "gelu",
        "math.tanh",
        """
import math


def gelu(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + math.tanh(inner))
""",
        say=[r"torch\.tanh|math\.tanh|scalar|one element|only .{0,20}elements?"],
        never=[r"\berf\b", r"sigmoid", r"detach"],
    ),
    Slip(
        "gelu",
        "by the sigmoid of twice, right",
        """
def gelu(x):
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    return x * torch.sigmoid(2 * inner)
""",
        right=True,
    ),
    # ---- LayerNorm
    Slip(
        "LayerNorm",
        "eps outside the root",
        """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        std = centered.pow(2).mean(dim=-1, keepdim=True).sqrt()
        return centered / (std + self.eps) * self.weight + self.bias
""",
        say=[r"\beps\b"],
        never=[r"d ?[-−] ?1|unbiased", r"over (the )?positions", r"ignore"],
    ),
    Slip(
        "LayerNorm",
        "no keepdim",
        """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(dim=-1)
        var = ((x - x.mean(dim=-1, keepdim=True)) ** 2).mean(dim=-1, keepdim=True)
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias
""",
        say=[r"keepdim|keep.{0,20}(axis|dim)"],
        never=[r"\beps\b.{0,20}(outside|root)", r"d ?[-−] ?1|unbiased", r"in.?place"],
    ),
    Slip(
        "LayerNorm",
        "centers in place",
        """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        x -= x.mean(dim=-1, keepdim=True)
        rms = (x.square().mean(dim=-1, keepdim=True) + self.eps).sqrt()
        return x / rms * self.weight + self.bias
""",
        say=[r"in.?place|argument|caller|chang\w+ .{0,20}x\b|writes? into"],
        never=[r"\beps\b.{0,20}(outside|root)", r"keepdim", r"over (the )?positions"],
    ),
    Slip(
        "LayerNorm",
        "eps not kept",
        """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        shape = (x.size(-1),)
        return torch.nn.functional.layer_norm(x, shape, self.weight, self.bias)
""",
        say=[r"\beps\b"],
        never=[r"outside", r"d ?[-−] ?1|unbiased", r"over (the )?positions"],
    ),
    # ---- RMSNorm
    Slip(
        "RMSNorm",
        "divides by the length",
        """
class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x):
        length = torch.sqrt((x * x).sum(dim=-1, keepdim=True) + self.eps)
        return self.weight * x / length
""",
        say=[r"length|root mean|sum|mean of|sqrt\(d|root of d|factor|times"],
        never=[r"subtract", r"\beps\b.{0,20}outside"],
    ),
    Slip(
        "RMSNorm",
        "no eps",
        """
class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x):
        rms = x.square().mean(dim=-1, keepdim=True).sqrt()
        return x / rms * self.weight
""",
        say=[r"\beps\b|nan\b|0 ?/ ?0|all zero"],
        never=[r"outside", r"subtract", r"length"],
    ),
    Slip(
        "RMSNorm",
        "the root is detached",
        """
class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x):
        with torch.no_grad():
            rms = (x.square().mean(dim=-1, keepdim=True) + self.eps).sqrt()
        return x / rms * self.weight
""",
        say=[r"gradient|detach|no_grad|graph|derivative"],
        never=[
            r"(numbers|values) are wrong",
            r"weight .{0,20}no gradient",
            r"\beps\b.{0,25}(outside|inside|root|missing|ignored|not used)",
        ],
    ),
    Slip(
        "RMSNorm",
        "one weight for all features",
        """
class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.eps = eps

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return x * scale * self.weight
""",
        say=[r"\(d_model|shape|\bsize\b|feature|\(1,\)"],
        never=[
            r"subtract",
            r"\beps\b.{0,25}(outside|inside|root|missing|ignored|not used)",
            r"never applied",
        ],
    ),
    Slip(
        "RMSNorm",
        "by the norm, right",
        """
class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.d, self.eps = d_model, eps
        self.register_parameter("weight", nn.Parameter(torch.full((d_model,), 1.0)))

    def forward(self, x):
        squares = torch.einsum("...d,...d->...", x, x).unsqueeze(-1)
        return self.weight * (x * (self.d / (squares + self.d * self.eps)) ** 0.5)
""",
        right=True,
    ),
    # ---- FeedForward
    Slip(
        "FeedForward",
        "erf GELU",
        """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff)
        self.act = nn.GELU()
        self.down = nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.drop(self.down(self.act(self.up(x))))
""",
        say=[r"tanh|\berf\b"],
        never=[
            r"ReLU there",
            r"nothing between",
            r"dropout (is|acts|must|belongs|stands|comes|in)\b",
        ],
    ),
    Slip(
        "FeedForward",
        "dropout between",
        """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        h = gelu(self.up(x))
        h = self.dropout(h)
        return self.down(h)
""",
        say=[r"dropout", r"output|after|last|down"],
        never=[r"never used|not used|has no effect", r"in evaluation|training=True", r"twice"],
    ),
    Slip(
        "FeedForward",
        "dropout accepted and not used",
        """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.down(gelu(self.up(x)))
""",
        say=[r"dropout"],
        never=[r"before down|between", r"in evaluation|training=True", r"twice"],
    ),
    # ---- TransformerBlock
    Slip(
        "TransformerBlock",
        "Post-LN",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(d_model), LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout=dropout)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        x = self.ln_1(x + self.attention(x, rotate=rotate, remember=remember))
        return self.ln_2(x + self.feed_forward(x))
""",
        say=[r"Pre-?LN|Post-?LN|after|before|norm\w* .{0,40}(copy|branch|reads)"],
        never=[r"no residual", r"ln_1 twice", r"in.?place"],
    ),
    Slip(
        "TransformerBlock",
        "second residual forgotten",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.ln_2 = LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        x = x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        return self.feed_forward(self.ln_2(x))
""",
        say=[r"residual|add(s|ed)?\b|sum|\+", r"feed.?forward|second|FFN|network|ln_2"],
        never=[r"Post-?LN", r"side by side", r"both residuals|neither half"],
    ),
    Slip(
        "TransformerBlock",
        "adds to the normalized copy",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.ln_2 = LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        h = self.ln_1(x)
        h = h + self.attention(h, rotate=rotate, remember=remember)
        return h + self.feed_forward(self.ln_2(h))
""",
        say=[r"normali[sz]ed|copy|stream"],
        never=[r"Post-?LN", r"no residual|forget\w* the residual", r"side by side"],
    ),
    Slip(
        "TransformerBlock",
        "adds in place",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.ln_2 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        x += self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        x += self.feed_forward(self.ln_2(x))
        return x
""",
        say=[r"in.?place|argument|caller|chang\w+ .{0,20}x\b|writes? into|\+="],
        never=[r"Post-?LN", r"residual is missing|no residual", r"normalized copy"],
    ),
    Slip(
        "TransformerBlock",
        "handed on by place",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.ln_2 = LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        x = x + self.attention(self.ln_1(x), rotate, remember)
        x = x + self.feed_forward(self.ln_2(x))
        return x
""",
        say=[r"return_weights|by place|by (their )?name|keyword|second argument|rotate="],
        never=[r"applied to the stream|turns? the stream", r"numbers are wrong", r"Post-?LN"],
    ),
    Slip(
        "TransformerBlock",
        "dropout for attention only",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, n_heads, dropout=dropout, causal=True)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.ln_1 = LayerNorm(d_model)
        self.ln_2 = LayerNorm(d_model)

    def forward(self, x, rotate=None, remember=None):
        x = x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        return x + self.feed_forward(self.ln_2(x))
""",
        say=[r"dropout", r"feed.?forward|both halves"],
        never=[r"(no|neither) half", r"twice", r"in evaluation"],
    ),
    Slip(
        "TransformerBlock",
        "one line, right",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        parts = {
            "ln_1": LayerNorm(d_model),
            "attention": MultiHeadAttention(d_model, n_heads, dropout),
            "ln_2": LayerNorm(d_model),
            "feed_forward": FeedForward(d_model, d_ff, dropout),
        }
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x, rotate=None, remember=None):
        doors = {"rotate": rotate, "remember": remember}
        middle = torch.add(x, self.attention(self.ln_1(x), **doors))
        return torch.add(middle, self.feed_forward(self.ln_2(middle)))
""",
        right=True,
    ),
    # ---- by another reader
    Slip(
        "gelu",
        "halves x in place",
        """
import math


def gelu(x):
    return x.mul_(0.5) * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
""",
        say=[r"in place"],
        never=[r"not of the form", r"constants"],
    ),
    Slip(
        "LayerNorm",
        "shift before scale",
        but(
            LAYER_NORM,
            "c / torch.sqrt(var + self.eps) * self.weight + self.bias",
            "(c / torch.sqrt(var + self.eps) + self.bias) * self.weight",
        ),
        say=[r"normalized \* weight \+ bias|shift"],
        never=[r"E\[x|digits", r"\beps\b"],
    ),
    Slip(
        "RMSNorm",
        "eps outside, times one over",
        but(
            RMS_NORM,
            "torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)",
            "(1 / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps))",
        ),
        say=[r"eps to the root"],
        never=[r"not divided"],
    ),
    Slip(
        "TransformerBlock",
        "one norm for both",
        but(BLOCK, "self.ln_2 = LayerNorm(d_model)", "self.ln_2 = self.ln_1"),
        say=[r"one and the same"],
        never=[r"no part"],
    ),
]

EXTRA = [
    Slip(
        "LayerNorm",
        "mean and variance without a gradient",
        but(
            LAYER_NORM,
            """        c = x - x.mean(-1, keepdim=True)
        var = c.pow(2).mean(-1, keepdim=True)
""",
            """        with torch.no_grad():
            mean = x.mean(-1, keepdim=True)
            var = (x - mean).pow(2).mean(-1, keepdim=True)
        c = x - mean
""",
        ),
        say=[r"gradient (of|with respect to) x", r"no_grad"],
        never=[r"float32", r"numbers are wrong"],
    ),
    Slip(
        "LayerNorm",
        "bias subtracted",
        but(LAYER_NORM, "+ self.bias", "- self.bias"),
        say=[r"normalized \* weight \+ bias"],
        never=[r"E\[x|digits", r"\beps\b"],
    ),
    Slip(
        "LayerNorm",
        "eps a constant",
        but(LAYER_NORM, "var + self.eps", "var + 1e-5"),
        say=[r"built with eps=0\.1", r"used|kept"],
        never=[r"default", r"digits"],
    ),
    Slip(
        "LayerNorm",
        "eps 1e-6 by default",
        but(LAYER_NORM, "eps=1e-5", "eps=1e-6"),
        say=[r"without an eps", r"1e-05"],
        never=[r"nearly right", r"digits"],
    ),
    Slip(
        "LayerNorm",
        "in float32 always",
        but(LAYER_NORM, "        c =", "        x = x.float()\n        c ="),
        say=[r"float32"],
        never=[r"gradient (of|with)", r"\beps\b"],
    ),
    Slip(
        "LayerNorm",
        "mean over positions too",
        but(LAYER_NORM, "x - x.mean(-1, keepdim=True)", "x - x.mean((-2, -1), keepdim=True)"),
        say=[r"position"],
        never=[r"E\[x|digits", r"\beps\b"],
    ),
    Slip(
        "RMSNorm",
        "mean square of a detached x",
        but(RMS_NORM, "x.pow(2)", "x.detach().pow(2)"),
        say=[r"gradient (of|with respect to) x", r"detach"],
        never=[r"float32", r"numbers are wrong"],
    ),
    Slip(
        "RMSNorm",
        "F.rms_norm without eps",
        but(
            RMS_NORM,
            "x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight",
            "nn.functional.rms_norm(x, self.weight.shape, self.weight)",
        ),
        say=[r"eps=1e-05", r"used"],
        never=[r"not divided", r"outside"],
    ),
    Slip(
        "TransformerBlock",
        "dropout of its own",
        but(
            BLOCK,
            "x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)",
            "x + nn.functional.dropout(self.attention(self.ln_1(x), rotate=rotate, remember=remember), 0.1, self.training)",
        ),
        say=[r"random|dropout|chance"],
        never=[r"something else"],
    ),
    Slip(
        "TransformerBlock",
        "halves side by side",
        """
class TransformerBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.ln_2 = LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(self, x, rotate=None, remember=None):
        h = x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        return h + self.feed_forward(self.ln_2(x))
""",
        say=[r"side by side"],
        never=[r"Post-?LN"],
    ),
    Slip(
        "TransformerBlock",
        "second norm an RMSNorm",
        but(BLOCK, "self.ln_2 = LayerNorm", "self.ln_2 = RMSNorm"),
        say=[r"ln_2", r"RMSNorm", r"LayerNorm"],
        never=[r"AttributeError"],
    ),
    Slip(
        "gelu",
        "a root of few digits",
        """
def gelu(x):
    return 0.5 * x * (1 + torch.tanh(0.7979 * (x + 0.044715 * x**3)))
""",
        say=[r"0\.797900", r"0\.797885"],
        never=[r"float32"],
    ),
    Slip(
        "LayerNorm",
        "starts exchanged",
        but(
            LAYER_NORM,
            "self.weight = nn.Parameter(torch.ones(d_model))",
            "self.weight = nn.Parameter(torch.zeros(d_model))",
        ),
        say=[r"weight starts as 0", r"should be 1"],
        never=[r"digits", r"\beps\b"],
    ),
    Slip(
        "LayerNorm",
        "variance over positions",
        but(LAYER_NORM, "c.pow(2).mean(-1", "c.pow(2).mean(-2"),
        say=[r"position"],
        never=[r"digits", r"\beps\b"],
    ),
    Slip(
        "RMSNorm",
        "computed in float32",
        but(
            RMS_NORM,
            "return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight",
            "y = x.float()\n        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)\n        return y.type_as(x) * self.weight",
        ),
        say=[r"float32"],
        never=[r"numbers are right", r"\beps\b"],
    ),
    Slip(
        "FeedForward",
        "a residual of its own",
        but(FEED_FORWARD, "return self", "return x + self"),
        say=[r"add the input"],
        never=[r"dropout"],
    ),
    Slip(
        "FeedForward",
        "dropout in evaluation too",
        but(
            but(FEED_FORWARD, "self.drop = nn.Dropout(dropout)", "self.p = dropout"),
            "self.drop(self.down(gelu(self.up(x))))",
            "nn.functional.dropout(self.down(gelu(self.up(x))), self.p)",
        ),
        say=[r"eval"],
        never=[r"asked for"],
    ),
    Slip(
        "FeedForward",
        "dropout of 0.1 by default",
        but(FEED_FORWARD, "dropout=0.0", "dropout=0.1"),
        say=[r"random|chance"],
        never=[r"eval"],
    ),
    Slip(
        "TransformerBlock",
        "network as wide as there are heads",
        but(BLOCK, "FeedForward(d_model, d_ff", "FeedForward(d_model, n_heads"),
        say=[r"feed_forward", r"\(40, 16\)"],
        never=[r"RuntimeError"],
    ),
    Slip(
        "TransformerBlock",
        "one head",
        but(BLOCK, "(d_model, n_heads, dropout)", "(d_model, 1, dropout)"),
        say=[r"n_heads"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "TransformerBlock",
        "network first",
        but(
            BLOCK,
            """        x = x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        return x + self.feed_forward(self.ln_2(x))
""",
            """        x = x + self.feed_forward(self.ln_2(x))
        return x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
""",
        ),
        say=[r"comes first"],
        never=[r"side by side"],
    ),
    Slip(
        "TransformerBlock",
        "the stream detached",
        but(BLOCK, "return x + self", "return x.detach() + self"),
        say=[r"gradient (of|with respect to) x"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "FeedForward",
        "gelu after down",
        but(FEED_FORWARD, "self.down(gelu(self.up(x)))", "gelu(self.down(self.up(x)))"),
        say=[r"after `down`"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "FeedForward",
        "gelu before up",
        but(FEED_FORWARD, "self.down(gelu(self.up(x)))", "self.down(self.up(gelu(x)))"),
        say=[r"before `up`"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "TransformerBlock",
        "norm behind the network",
        but(BLOCK, "self.feed_forward(self.ln_2(x))", "self.ln_2(self.feed_forward(x))"),
        say=[r"it gives x \+ ln_2\(feed_forward\(x\)\)"],
        never=[r"something else", r"attention\(ln_1"],
    ),
    Slip(
        "TransformerBlock",
        "no second residual",
        but(BLOCK, "return x + self", "return self"),
        say=[r"it gives (0|feed_forward)"],
        never=[r"something else"],
    ),
    Slip(
        "TransformerBlock",
        "second sum starts from the old x",
        but(but(BLOCK, "x = x + self.att", "h = x + self.att"), "self.ln_2(x)", "self.ln_2(h)"),
        say=[r"it gives x alone"],
        never=[r"something else"],
    ),
    Slip(
        "TransformerBlock",
        "normalized copy is added",
        but(
            BLOCK,
            "return x + self.feed_forward(self.ln_2(x))",
            "h = self.ln_2(x)\n        return h + self.feed_forward(h)",
        ),
        say=[r"it gives ln_2 of x"],
        never=[r"something else"],
    ),
    Slip(
        "TransformerBlock",
        "second half reads what the first adds",
        but(
            but(BLOCK, "x = x + self.att", "h = self.att"),
            "x + self.feed_forward(self.ln_2(x))",
            "x + h + self.feed_forward(self.ln_2(h))",
        ),
        say=[r"gives x \+ feed_forward\(ln_2\(0\)\)"],
        never=[r"something else"],
    ),
    Slip(
        "gelu",
        "without the half",
        """
import math


def gelu(x):
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
""",
        say=[r"is 2 times"],
        never=[r"whatever a"],
    ),
]
