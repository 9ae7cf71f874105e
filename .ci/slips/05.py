from slip import Slip


def swap(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


INIT = """
def init_weights(model):
    small = 0.02 / (2 * len(model.blocks)) ** 0.5
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif p.dim() == 1:
            nn.init.ones_(p)
        elif name.endswith(("out_proj.weight", "down.weight")):
            nn.init.normal_(p, mean=0.0, std=small)
        else:
            nn.init.normal_(p, mean=0.0, std=0.02)
"""

# plain: the cache is left alone
PLAIN = """
from functools import partial


class TinyTransformerLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = TransformerEmbedding(
            config.vocab_size, config.d_model, config.max_len, config.dropout, config.positions
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(config.d_model, config.n_heads, config.d_ff, config.dropout)
            for _ in range(config.n_layers)
        )
        self.ln_f = LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight = self.embedding.token.weight
        init_weights(self)

    def forward(self, tokens, cache=None):
        B, T = tokens.shape
        if T > self.config.max_len:
            raise ValueError(f"T is {T}, max_len is {self.config.max_len}")
        turn = None
        if self.config.positions == "rope":
            turn = partial(rotate, positions=torch.arange(T, device=tokens.device))
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, rotate=turn)
        return self.head(self.ln_f(x))
"""

# with the cache
CACHED = """
from functools import partial


class TinyTransformerLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        self.embedding = TransformerEmbedding(
            c.vocab_size, c.d_model, c.max_len, dropout=c.dropout, positions=c.positions
        )
        blocks = []
        for _ in range(c.n_layers):
            blocks.append(TransformerBlock(c.d_model, c.n_heads, c.d_ff, dropout=c.dropout))
        self.blocks = nn.ModuleList(blocks)
        self.ln_f = LayerNorm(c.d_model)
        self.head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        self.head.weight = self.embedding.token.weight
        init_weights(self)

    def forward(self, tokens, cache=None):
        T = tokens.size(1)
        if T > self.config.max_len:
            raise ValueError(f"{T} tokens, but the model reads at most {self.config.max_len}")
        start = 0 if cache is None else cache.length
        x = self.embedding(tokens, start)
        rotate_by = None
        if self.config.positions == "rope":
            positions = torch.arange(start, T, device=tokens.device)
            rotate_by = lambda t: rotate(t, positions)
        for i, block in enumerate(self.blocks):
            remember = None if cache is None else partial(cache.append, i)
            x = block(x, rotate=rotate_by, remember=remember)
        if cache is not None:
            cache.length = T
        return self.head(self.ln_f(x))
"""

SLIPS = [
    # ------------------------------------------------------------ count_parameters
    Slip(
        "count_parameters",
        "ln_f forgotten",
        """
def count_parameters(config):
    d, f, V = config.d_model, config.d_ff, config.vocab_size
    P = config.max_len * d if config.positions == "learned" else 0
    block = 4 * d + 4 * (d * d + d) + 2 * d * f + f + d
    return V * d + P + config.n_layers * block
""",
        say=["ln_f|last norm|final norm|norm after"],
        never=["position table", "head"],
    ),
    Slip(
        "count_parameters",
        "position table in any case",
        """
def count_parameters(config):
    d, f = config.d_model, config.d_ff
    tables = (config.vocab_size + config.max_len) * d
    attention = 4 * (d * d + d)
    mlp = d * f + f + f * d + d
    return tables + config.n_layers * (attention + mlp + 4 * d) + 2 * d
""",
        say=["position", "learned|sinusoidal|rope|rotary|nothing"],
        never=["ln_f", "bias"],
    ),
    Slip(
        "count_parameters",
        "out_proj and qkv without biases",
        """
def count_parameters(config):
    d, f = config.d_model, config.d_ff
    n = config.vocab_size * d
    if config.positions == "learned":
        n += config.max_len * d
    for _ in range(config.n_layers):
        n += 4 * d * d              # q, k, v, out
        n += d * f + f + f * d + d  # up, down
        n += 2 * (d + d)            # ln_1, ln_2
    return n + 2 * d
""",
        say=["bias"],
        never=["ln_f", "position table"],
    ),
    Slip(
        "count_parameters",
        "d_ff taken for 4 d",
        """
def count_parameters(config):
    d = config.d_model
    table = config.vocab_size * d
    pos = config.max_len * d if config.positions == "learned" else 0
    block = 12 * d * d + 13 * d
    return table + pos + config.n_layers * block + 2 * d
""",
        say=["d_ff"],
        never=["ln_f", "bias(es)? (is|are) missing"],
    ),
    Slip(
        "count_parameters",
        "right: a list of shapes",
        """
import math


def count_parameters(config):
    d, f = config.d_model, config.d_ff
    norm = [(d,), (d,)]
    block = 2 * norm + 4 * [(d, d), (d,)] + [(f, d), (f,), (d, f), (d,)]
    shapes = [(config.vocab_size, d)] + config.n_layers * block + norm
    if config.positions not in ("sinusoidal", "rope"):
        shapes.append((config.max_len, d))
    return sum(map(math.prod, shapes))
""",
        right=True,
    ),
    # ------------------------------------------------------------ init_weights
    Slip(
        "init_weights",
        "root of n_layers without the 2",
        swap(INIT, "(2 * len(model.blocks)) ** 0.5", "len(model.blocks) ** 0.5"),
        say=[
            r"2 ?[*·]? ?n_layers|without the 2|factor (of )?2|root of 2|1\.41|n_layers",
            "out_proj|down|projection",
        ],
        never=["norm", "bias", "table"],
    ),
    Slip(
        "init_weights",
        "norm scales 0 with the biases",
        """
def init_weights(model):
    n = len(model.blocks)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            nn.init.zeros_(p)
        elif "out_proj" in name or "down" in name:
            nn.init.normal_(p, std=0.02 / (2 * n) ** 0.5)
        else:
            nn.init.normal_(p, std=0.02)
""",
        say=["norm|ln_", r"identity|\b1\b|one"],
        never=["sqrt", "2 n_layers", "too large"],
    ),
    Slip(
        "init_weights",
        "tables left alone",
        """
def init_weights(model):
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj", "up")):
            nn.init.normal_(module.weight, 0.0, 0.02)
            nn.init.zeros_(module.bias)
        elif name.endswith(("out_proj", "down")):
            nn.init.normal_(module.weight, 0.0, 0.02 / (2 * len(model.blocks)) ** 0.5)
            nn.init.zeros_(module.bias)
        elif "ln_" in name:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
""",
        say=["table|token|embedding|position"],
        never=["out_proj", "norm"],
    ),
    Slip(
        "init_weights",
        "0.02 taken for the variance",
        """
def init_weights(model):
    std = 0.02 ** 0.5
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif p.dim() < 2:
            nn.init.ones_(p)
        else:
            residual = name.endswith(("out_proj.weight", "down.weight"))
            nn.init.normal_(p, 0, std / (2 * len(model.blocks)) ** 0.5 if residual else std)
""",
        say=[r"standard deviation|std|0\.02|7\.07|variance"],
        never=["2 n_layers", "n_layers without"],
    ),
    Slip(
        "init_weights",
        "in place on leaves",
        """
def init_weights(model):
    small = 0.02 / (2 * len(model.blocks)) ** 0.5
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.zero_()
        elif p.dim() == 1:
            p.fill_(1.0)
        else:
            p.normal_(0, small if name.endswith(("out_proj.weight", "down.weight")) else 0.02)
""",
        say=[r"no_grad|leaf|requires grad|nn\.init|\.data|in-place"],
        never=["must be 0", "deviation"],
    ),
    Slip(
        "init_weights",
        "right: by modules, randn_like",
        """
@torch.no_grad()
def init_weights(model):
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if isinstance(module, LayerNorm):
                p.fill_(1 if name == "weight" else 0)
            elif name == "bias":
                p.zero_()
            else:
                p.copy_(torch.randn_like(p) * 0.02)
    for block in model.blocks:
        for layer in (block.attention.out_proj, block.feed_forward.down):
            layer.weight.mul_((2 * len(model.blocks)) ** -0.5)
""",
        right=True,
    ),
    # ------------------------------------------------------------ TinyTransformerLM
    Slip(
        "TinyTransformerLM",
        "head is a copy of the table",
        swap(
            PLAIN,
            "self.head.weight = self.embedding.token.weight\n",
            "self.head.weight = nn.Parameter(self.embedding.token.weight.clone())\n",
        ),
        say=["table", "same|itself|copy|tied|one tensor"],
        never=["bias", "ln_f"],
    ),
    Slip(
        "TinyTransformerLM",
        "head with bias",
        swap(PLAIN, "config.vocab_size, bias=False)", "config.vocab_size)"),
        say=["bias", "head"],
        never=["copy", "ln_f"],
    ),
    Slip(
        "TinyTransformerLM",
        "positions without device",
        swap(PLAIN, "torch.arange(T, device=tokens.device)", "torch.arange(T)"),
        say=["device"],
        never=["numbers are wrong", "ln_f"],
    ),
    Slip(
        "TinyTransformerLM",
        "rotate shadowed",
        swap(
            swap(
                swap(PLAIN, "        turn = None\n", ""),
                "turn = partial(rotate, positions=torch.arange(T, device=tokens.device))",
                "rotate = partial(rotate, positions=torch.arange(T, device=tokens.device))",
            ),
            "            x = block(x, rotate=turn)",
            '            x = block(x, rotate=rotate if self.config.positions == "rope" else None)',
        ),
        say=["rotate", "UnboundLocalError|local variable|not associated|another name|shadow"],
        never=["numbers are wrong", "the CPU|give .*device"],
    ),
    Slip(
        "TinyTransformerLM",
        "T equal to max_len refused",
        swap(PLAIN, "if T > self.config.max_len:", "if T >= self.config.max_len:"),
        say=["max_len", "above|equal|exactly|longer than|T ="],
        never=["no ValueError", "must raise"],
    ),
    Slip(
        "TinyTransformerLM",
        "initialized too soon",
        swap(
            swap(PLAIN, "        init_weights(self)\n", ""),
            "        self.ln_f = LayerNorm",
            "        init_weights(self)\n        self.ln_f = LayerNorm",
        ).replace(
            "        self.head.weight = self.embedding.token.weight\n",
            "        self.embedding.token.weight = self.head.weight\n",
        ),
        say=[r"init_weights|first weights|0\.02|standard deviation|initiali|start"],
        never=["numbers are wrong", "copy"],
    ),
    Slip(
        "TinyTransformerLM",
        "one block n times",
        swap(
            PLAIN,
            """            TransformerBlock(config.d_model, config.n_heads, config.d_ff, config.dropout)
            for _ in range(config.n_layers)
""",
            """            [TransformerBlock(config.d_model, config.n_heads, config.d_ff, config.dropout)]
            * config.n_layers
""",
        ),
        say=["block", "same|shared|one block|own|each"],
        never=["head", "ln_f", "init_weights"],
    ),
    Slip(
        "TinyTransformerLM",
        "last position only",
        swap(PLAIN, "return self.head(self.ln_f(x))", "return self.head(self.ln_f(x[:, -1]))"),
        say=[
            r"last position|every position|all (T )?positions|\(B, T, vocab_size\)|axis T|T positions|\bT\b"
        ],
        never=["copy", "softmax"],
    ),
    Slip(
        "TinyTransformerLM",
        "length moves in every block",
        swap(
            swap(CACHED, "        if cache is not None:\n            cache.length = T\n", ""),
            "            x = block(x, rotate=rotate_by, remember=remember)\n",
            "            x = block(x, rotate=rotate_by, remember=remember)\n"
            "            if cache is not None:\n"
            "                cache.length = T\n",
        ),
        say=["length"],
        never=["never moves", "positions (are )?counted from 0"],
    ),
    Slip(
        "TinyTransformerLM",
        "rope positions from 0 under a cache",
        swap(
            CACHED,
            "torch.arange(start, T, device=tokens.device)",
            "torch.arange(T - start, device=tokens.device)",
        ),
        say=["position|start|cache.length|counted from 0"],
        never=["length moves|moves? on in every block", "device"],
    ),
    Slip(
        "TinyTransformerLM",
        "right: default argument, einsum head",
        swap(
            swap(CACHED, "lambda t: rotate(t, positions)", "lambda t, p=positions: rotate(t, p)"),
            "return self.head(self.ln_f(x))",
            "return torch.einsum('btd,vd->btv', self.ln_f(x), self.head.weight)",
        ),
        right=True,
    ),
    # ------------------------------------------------------------ next_token_distribution
    Slip(
        "next_token_distribution",
        "first position",
        """
@torch.no_grad()
def next_token_distribution(model, tokens):
    mode = model.training
    model.eval()
    p = model(tokens).softmax(dim=-1)
    model.train(mode)
    return p[:, 0]
""",
        say=["last|first position|position"],
        never=["dropout", "mode", "batch"],
    ),
    Slip(
        "next_token_distribution",
        "softmax over the batch",
        """
@torch.no_grad()
def next_token_distribution(model, tokens):
    was_training = model.training
    model.eval()
    logits = model(tokens)[:, -1]
    model.train(was_training)
    return torch.softmax(logits, 0)
""",
        say=["batch|dim|axis|vocab|each row|sum to 1"],
        never=["first position", "dropout"],
    ),
    Slip(
        "next_token_distribution",
        "always back to training",
        """
def next_token_distribution(model, tokens):
    model.eval()
    with torch.no_grad():
        out = model(tokens)
    model.train()
    return out[:, -1, :].softmax(-1)
""",
        say=["mode|eval|training"],
        never=["left in evaluation", "dropout is at work"],
    ),
    Slip(
        "next_token_distribution",
        "detach in place of no_grad",
        """
def next_token_distribution(model, tokens):
    was = model.training
    model.eval()
    p = model(tokens)[:, -1].softmax(dim=-1).detach()
    model.train(was)
    return p
""",
        say=["no_grad|graph"],
        never=[r"\bmode\b", "dropout", "position"],
    ),
    Slip(
        "next_token_distribution",
        "right: inference_mode and finally",
        """
def next_token_distribution(model, tokens):
    before = model.training
    try:
        with torch.inference_mode():
            scores = model.eval()(tokens)[:, tokens.size(1) - 1]
            return (scores - scores.logsumexp(-1, keepdim=True)).exp()
    finally:
        model.train(before)
""",
        right=True,
    ),
]

# Of the same kind, and slower, or beyond what the gate has time for.
SPARE = {
    ("TinyTransformerLM", "head is a copy of the table"),
    ("TinyTransformerLM", "T equal to max_len refused"),
    ("TinyTransformerLM", "rotate shadowed"),
    ("count_parameters", "d_ff taken for 4 d"),
    ("count_parameters", "out_proj and qkv without biases"),
    ("count_parameters", "right: a list of shapes"),
    ("init_weights", "0.02 taken for the variance"),
    ("TinyTransformerLM", "last position only"),
    ("TinyTransformerLM", "one block n times"),
    ("next_token_distribution", "first position"),
}
EXTRA = [slip for slip in SLIPS if (slip.exercise, slip.name) in SPARE]
SLIPS = [slip for slip in SLIPS if (slip.exercise, slip.name) not in SPARE]

COUNT = """
def count_parameters(config):
    d, f, n = config.d_model, config.d_ff, config.n_layers
    block = 4 * d + 4 * (d * d + d) + 2 * d * f + f + d
    positions = config.max_len * d if config.positions == "learned" else 0
    return config.vocab_size * d + positions + n * block + 2 * d
"""

NEXT = """
def next_token_distribution(model, tokens):
    mode = model.training
    model.eval()
    with torch.no_grad():
        logits = model(tokens)
    model.train(mode)
    return logits[:, -1].softmax(dim=-1)
"""

EXTRA += [
    Slip(
        "count_parameters",
        "rotary positions counted",
        swap(COUNT, 'config.positions == "learned"', 'config.positions != "sinusoidal"'),
        say=["rope", "no table"],
        never=["always"],
    ),
    Slip(
        "count_parameters",
        "builds the model",
        """
def count_parameters(config):
    return sum(p.numel() for p in TinyTransformerLM(config).parameters())
""",
        say=["built", "config"],
    ),
    Slip(
        "init_weights",
        "modules that are linear layers or embeddings",
        """
def init_weights(model):
    small = 0.02 / (2 * len(model.blocks)) ** 0.5
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, small if name.endswith(("out_proj", "down")) else 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02)
""",
        say=["embedding.position.weight", "from before"],
        never=[r"0\.0000"],
    ),
    Slip(
        "init_weights",
        "a name bound anew",
        swap(INIT, "nn.init.normal_(p, mean=0.0, std=0.02)", "p = torch.randn_like(p) * 0.02"),
        say=["from before", "in place"],
        never=[r"0\.0000"],
    ),
    Slip(
        "init_weights",
        "a seed inside",
        swap(INIT, "    small =", "    torch.manual_seed(0)\n    small ="),
        say=["same numbers", "seed"],
    ),
    Slip(
        "TinyTransformerLM",
        "embedding times the root of d_model",
        swap(CACHED, "self.embedding(tokens, start)\n", "self.embedding(tokens, start) * 4\n"),
        say=[r"blocks\[0\]", "4 .*times", "embedding returns"],
        never=["init_weights"],
    ),
    Slip(
        "TinyTransformerLM",
        "tied by .data",
        swap(
            CACHED,
            "self.head.weight = self.embedding.token.weight",
            "self.head.weight.data = self.embedding.token.weight.data",
        ),
        say=["two parameters", "same numbers"],
        never=["move apart", "another tensor"],
    ),
    Slip(
        "TinyTransformerLM",
        "tied by a second parameter",
        swap(
            CACHED,
            "self.head.weight = self.embedding.token.weight",
            "self.head.weight = nn.Parameter(self.embedding.token.weight)",
        ),
        say=["two parameters", "same numbers"],
        never=["move apart", "another tensor"],
    ),
    Slip(
        "TinyTransformerLM",
        "no rotation under a cache",
        swap(
            CACHED,
            'if self.config.positions == "rope":',
            'if self.config.positions == "rope" and cache is None:',
        ),
        say=["rotation", "cache"],
        never=["Notes", "cache.length"],
    ),
    Slip(
        "next_token_distribution",
        "gradients stay off",
        swap(NEXT, "with torch.no_grad():", "torch.set_grad_enabled(False)\n    if True:"),
        say=["graph", "After"],
        never=["no_grad"],
    ),
    Slip(
        "next_token_distribution",
        "squeezed",
        swap(NEXT, "softmax(dim=-1)", "softmax(dim=-1).squeeze()"),
        say=[r"\(11,\)", r"\(1, 11\)"],
        never=["meet"],
    ),
    Slip(
        "TinyTransformerLM",
        "a dropout of its own",
        swap(
            swap(
                CACHED,
                "self.ln_f = LayerNorm",
                "self.drop = nn.Dropout(0.1)\n        self.ln_f = LayerNorm",
            ),
            "self.embedding(tokens, start)\n",
            "self.drop(self.embedding(tokens, start))\n",
        ),
        say=["dropout=0", "second time"],
        never=["numbers are wrong"],
    ),
    Slip(
        "TinyTransformerLM",
        "new tokens embedded from 0",
        swap(CACHED, "self.embedding(tokens, start)", "self.embedding(tokens[:, start:])"),
        say=["embed", "cache.length"],
        never=["turn", "rotat"],
    ),
    Slip(
        "TinyTransformerLM",
        "every block appends as 0",
        swap(CACHED, "partial(cache.append, i)", "partial(cache.append, 0)"),
        say=[r"\[0, 0, 0\]"],
    ),
    Slip(
        "TinyTransformerLM",
        "no_grad over forward",
        swap(CACHED, "    def forward(", "    @torch.no_grad()\n    def forward("),
        say=["no graph", "no_grad"],
    ),
    Slip(
        "TinyTransformerLM",
        "as many blocks as heads",
        swap(CACHED, "range(c.n_layers)", "range(c.n_heads)"),
        say=["n_layers = 3", "4 in"],
    ),
    Slip(
        "next_token_distribution",
        "softmax along the positions",
        swap(NEXT, "logits[:, -1].softmax(dim=-1)", "logits.softmax(dim=1)[:, -1]"),
        say=["add up", "to 1"],
    ),
    Slip(
        "next_token_distribution",
        "one token too few is read",
        swap(NEXT, "model(tokens)", "model(tokens[:, :-1])"),
        say=["last position, 4", "at 3"],
    ),
]

EXTRA += [
    Slip(
        "init_weights",
        "down at full size",
        swap(INIT, '(("out_proj.weight", "down.weight"))', '("out_proj.weight")'),
        say=["down.weight", "sqrt"],
    ),
    Slip(
        "TinyTransformerLM",
        "a residual around each block",
        swap(PLAIN, "x = block(x, rotate=turn)", "x = x + block(x, rotate=turn)"),
        say=[r"blocks\[1\] should be given what blocks\[0\] returns"],
    ),
    Slip(
        "init_weights",
        "replaces the data",
        """
def init_weights(model):
    smaller = 0.02 * (2 * len(model.blocks)) ** -0.5
    for name, p in model.named_parameters():
        if p.ndim == 2:
            std = smaller if "out_proj" in name or "down" in name else 0.02
            p.data = torch.randn(p.shape) * std
        else:
            p.data = torch.zeros(p.shape) if "bias" in name else torch.ones(p.shape)
""",
        say=[r"bfloat16 .{5,60} is torch.float32 afterwards"],
        never=[r"standard deviation"],
    ),
]
