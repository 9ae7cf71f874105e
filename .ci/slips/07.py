from slip import Slip


def swap(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


HEAD = """
def generate(model, tokens, max_new_tokens, temperature=1.0, top_k=None, top_p=None,
             generator=None, use_cache=True, lengths=None):
"""

# without cache and lengths
GENERATE = (
    HEAD
    + """    mode = model.training
    model.eval()
    context = model.config.max_len
    hop = max(1, context // 2)
    with torch.no_grad():
        for _ in range(max_new_tokens):
            start = 0
            while tokens.size(1) - start > context:
                start += hop
            logits = model(tokens[:, start:])[:, -1]
            new = sample(logits, temperature, top_k, top_p, generator)
            tokens = torch.cat([tokens, new[:, None]], dim=1)
    model.train(mode)
    return tokens
"""
)

# with everything
FULL = (
    HEAD
    + """    was_training = model.training
    model.eval()
    B, T = tokens.shape
    L, hop = model.config.max_len, max(1, model.config.max_len // 2)
    if lengths is None:
        lengths = torch.full((B,), T, device=tokens.device)
    lengths = lengths.to(tokens.device)
    text = torch.cat([tokens, tokens.new_zeros(B, max_new_tokens)], dim=1)
    old, cache = None, None
    with torch.no_grad():
        for end in range(int(lengths.min()), int(lengths.max()) + max_new_tokens):
            start = 0 if end <= L else -(-(end - L) // hop) * hop
            if use_cache and start != old:
                cache = KVCache(model.config, B, device=tokens.device)
            old = start
            window = text[:, start:end]
            logits = model(window, cache) if use_cache else model(window)
            new = sample(logits[:, -1], temperature, top_k, top_p, generator)
            text[:, end] = torch.where(lengths <= end, new, text[:, end])
    model.train(was_training)
    return text
"""
)

CACHE = """
class KVCache:
    def __init__(self, config, batch_size, device=None):
        d_head = config.d_model // config.n_heads
        shape = (config.n_layers, batch_size, config.n_heads, config.max_len, d_head)
        self.keys = torch.zeros(shape, device=device)
        self.values = torch.zeros(shape, device=device)
        self.length = 0

    def append(self, layer, k, v):
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
"""

SAMPLE = """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)
"""

NUCLEUS = """
def top_p_filter(logits, p):
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}; it must be in (0, 1]")
    if p == 1:
        return logits.clone()
    chances, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    cut = chances.cumsum(dim=-1) - chances >= p
    return logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), float("-inf"))
"""

SLIPS = [
    # ------------------------------------------------------------ greedy
    Slip(
        "greedy",
        "argmax of everything",
        """
def greedy(logits):
    return logits.argmax()
""",
        say=["dim|each row|axis|last axis|whole batch"],
        never=["keepdim", "second"],
    ),
    Slip(
        "greedy",
        "squeeze without dim",
        """
def greedy(logits):
    best = logits.argmax(dim=-1, keepdim=True)
    return best.squeeze()
""",
        say=[r"squeeze|shape|batch of one|one row|\(1,\)|axis"],
        never=["whole batch", "wrong token"],
    ),
    Slip(
        "greedy",
        "values and indices",
        """
def greedy(logits):
    return torch.max(logits, dim=-1)
""",
        say=["ind(ex|ices)|argmax|tuple|return_types|values|a tensor"],
        never=["dim is missing", "whole batch"],
    ),
    Slip(
        "greedy",
        "the scores, not where they stand",
        """
def greedy(logits):
    return logits.max(dim=-1).values
""",
        say=["token ids are whole"],
        never=["dtype is fixed"],
    ),
    # ------------------------------------------------------------ apply_temperature
    Slip(
        "apply_temperature",
        "multiplies",
        """
def apply_temperature(logits, temperature):
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}")
    return logits * temperature
""",
        say=["divi|multipl|other way|wrong way|turns"],
        never=["ValueError", "in place"],
    ),
    Slip(
        "apply_temperature",
        "divides the caller's logits",
        """
def apply_temperature(logits, temperature):
    if not temperature > 0:
        raise ValueError("temperature must be above 0")
    logits /= temperature
    return logits
""",
        say=["in place|caller|argument|chang|new tensor|your input|/="],
        never=["multipl", "nan"],
    ),
    Slip(
        "apply_temperature",
        "nan passes",
        """
def apply_temperature(logits, temperature):
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    return torch.div(logits, temperature)
""",
        say=["nan"],
        never=["multipl", "-1"],
    ),
    Slip(
        "apply_temperature",
        "zero passes",
        """
def apply_temperature(logits, temperature):
    if temperature < 0:
        raise ValueError("negative temperature")
    return logits / temperature
""",
        say=["0", "ValueError|refuse"],
        never=["multipl", "in place"],
    ),
    Slip(
        "apply_temperature",
        "right: logarithm of a power",
        """
def apply_temperature(logits, temperature):
    if not (temperature > 0.0):
        raise ValueError("not above 0: %r" % temperature)
    return torch.log_softmax(logits, dim=-1).div(temperature)
""",
        right=True,
    ),
    # ------------------------------------------------------------ top_k_filter
    Slip(
        "top_k_filter",
        "only what is above the k-th",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError(f"k is {k}")
    k = min(k, logits.size(-1))
    kth = logits.topk(k, dim=-1).values[..., -1:]
    return torch.where(logits > kth, logits, float("-inf"))
""",
        say=["k-th|k − 1|k - 1|one too few|too few|stays? too|itself|equal|tie"],
        never=["vocab_size keeps", "in place", "ValueError"],
    ),
    Slip(
        "top_k_filter",
        "k above vocab_size crashes",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError("k must be at least 1")
    values, _ = torch.topk(logits, k, dim=-1)
    return logits.masked_fill(logits < values[..., [-1]], -torch.inf)
""",
        say=["out of range|vocab_size|min\\(k"],
        never=["tie", "in place"],
    ),
    Slip(
        "top_k_filter",
        "in place",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError(f"k = {k}")
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1, None]
    logits[logits < kth] = float("-inf")
    return logits
""",
        say=["in place|caller|argument|new tensor|chang|your input"],
        never=["tie", "above the k-th"],
    ),
    Slip(
        "top_k_filter",
        "ties dropped",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    best = logits.topk(min(k, logits.size(-1)), dim=-1)
    out = torch.full_like(logits, float("-inf"))
    return out.scatter(-1, best.indices, best.values)
""",
        say=["tie|equal|same score"],
        never=["in place", "above vocab_size", "one too few"],
    ),
    Slip(
        "top_k_filter",
        "batches only",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError("k below 1")
    B, V = logits.shape
    kth = logits.sort(dim=1, descending=True)[0][:, min(k, V) - 1]
    return logits.masked_fill(logits < kth.view(B, 1), float("-inf"))
""",
        say=[r"unpack|axes|axis|\.\.\.|leading|1-D|dimension|any shape"],
        never=["tie", "in place"],
    ),
    Slip(
        "top_k_filter",
        "right: counts the better ones",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError(f"k is {k}")
    better = (logits.unsqueeze(-2) > logits.unsqueeze(-1)).sum(dim=-1)
    return torch.where(better < k, logits, torch.full_like(logits, -float("inf")))
""",
        right=True,
    ),
    Slip(
        "top_k_filter",
        "one k-th for all rows",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError(f"k is {k}")
    kth = logits.topk(min(k, logits.size(-1)), dim=-1).values.min()
    return logits.masked_fill(logits < kth, float("-inf"))
""",
        say=["each row by itself", "number"],
        never=["k - 1"],
    ),
    Slip(
        "top_k_filter",
        "sorted, and left so",
        """
def top_k_filter(logits, k):
    if k < 1:
        raise ValueError(f"k is {k}")
    ordered = logits.sort(dim=-1, descending=True).values
    ordered[..., k:] = float("-inf")
    return ordered
""",
        say=["number"],
        never=["k - 1"],
    ),
    # ------------------------------------------------------------ top_p_filter
    Slip(
        "top_p_filter",
        "drops the one that crosses p",
        """
def top_p_filter(logits, p):
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}")
    if p == 1:
        return logits.clone()
    probs, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    cut = probs.cumsum(dim=-1) > p
    return logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), -torch.inf)
""",
        say=["cross|p or more|too few|before|less than p|together"],
        never=["sorted order", "p of 1", "in place"],
    ),
    Slip(
        "top_p_filter",
        "mask left in sorted order",
        """
def top_p_filter(logits, p):
    if p <= 0 or p > 1:
        raise ValueError("p must be in (0, 1]")
    if p == 1:
        return logits.clone()
    ordered = logits.softmax(-1).sort(dim=-1, descending=True).values
    before = ordered.cumsum(-1) - ordered
    return logits.masked_fill(before >= p, float("-inf"))
""",
        say=["order|scatter|vocabulary|back|likeliest"],
        never=["cross", "in place", "p of 1"],
    ),
    Slip(
        "top_p_filter",
        "one too many at the boundary",
        """
def top_p_filter(logits, p):
    if not (0.0 < p <= 1.0):
        raise ValueError(f"{p} is not in (0, 1]")
    probs, order = torch.sort(logits.softmax(-1), -1, descending=True)
    before = probs.cumsum(-1) - probs
    drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before > p)
    return logits.masked_fill(drop, float("-inf")) if p < 1 else logits.clone()
""",
        say=["fewest|exactly|boundary|>=|too many|p or more|reach"],
        never=["cross.*(belongs|dropped)", "sorted order"],
    ),
    Slip(
        "top_p_filter",
        "p of 1 refused",
        """
def top_p_filter(logits, p):
    if not 0 < p < 1:
        raise ValueError(f"p is {p}; it must be between 0 and 1")
    probs, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    cut = probs.cumsum(dim=-1) - probs >= p
    back = order.argsort(dim=-1)
    return logits.masked_fill(cut.gather(-1, back), float("-inf"))
""",
        say=[r"\b1\b", "ValueError|raise|refuse|keeps everything"],
        never=["cross", "order"],
    ),
    Slip(
        "top_p_filter",
        "p of 1 loses tokens by rounding",
        """
def top_p_filter(logits, p):
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}; it must be in (0, 1]")
    probs, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    before = probs.cumsum(dim=-1) - probs
    cut = torch.empty_like(before, dtype=torch.bool).scatter_(-1, order, before >= p)
    return logits.masked_fill(cut, float("-inf"))
""",
        say=[r"p (of|=|is) 1|keeps everything|round"],
        never=["cross", "order", "ValueError"],
    ),
    Slip(
        "top_p_filter",
        "sums down the batch",
        """
def top_p_filter(logits, p):
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}")
    if p == 1:
        return logits.clone()
    z, order = logits.sort(dim=-1, descending=True)
    q = z.softmax(dim=-1)
    remove = q.cumsum(dim=0) - q >= p
    return torch.empty_like(z).scatter(-1, order, z.masked_fill(remove, -torch.inf))
""",
        say=["row|dim|axis|batch"],
        never=["cross", "in place", "p of 1"],
    ),
    Slip(
        "top_p_filter",
        "sums scores, not probabilities",
        """
def top_p_filter(logits, p):
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}")
    if p == 1:
        return logits.clone()
    z, idx = logits.sort(-1, descending=True)
    cut = torch.cumsum(z, -1) - z >= p
    return logits.masked_fill(torch.zeros_like(cut).scatter(-1, idx, cut), float("-inf"))
""",
        say=["probabilit|softmax"],
        never=["cross", "order", "in place"],
    ),
    Slip(
        "top_p_filter",
        "right: a loop over rows",
        """
def top_p_filter(logits, p):
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}")
    if p == 1:
        return logits.clone()
    flat = logits.reshape(-1, logits.size(-1))
    out = torch.full_like(flat, float("-inf"))
    for row, q, new in zip(flat, flat.softmax(dim=-1), out):
        total = torch.zeros((), dtype=q.dtype)
        for i in q.argsort(descending=True).tolist():
            if total >= p:
                break
            new[i] = row[i]
            total = total + q[i]
    return out.view_as(logits)
""",
        right=True,
    ),
    Slip(
        "top_p_filter",
        "the mask gathered by order",
        swap(NUCLEUS, "torch.zeros_like(cut).scatter(-1, order, cut)", "cut.gather(-1, order)"),
        say=["gather|likeliest", "order|ids"],
        never=["crosses p stays", "less than p"],
    ),
    Slip(
        "top_p_filter",
        "normalised again",
        swap(NUCLEUS, 'float("-inf"))', 'float("-inf")).log_softmax(dim=-1)'),
        say=["right tokens stay", "scores"],
        never=[r"keep number \[1\]", "crosses"],
    ),
    Slip(
        "top_p_filter",
        "probabilities come back",
        swap(
            NUCLEUS, "    return logits.masked_fill(", "    return logits.softmax(-1).masked_fill("
        ).replace('float("-inf")', "0.0"),
        say=["-inf"],
        never=["crosses", "you keep 4"],
    ),
    Slip(
        "top_p_filter",
        "written into what was given",
        swap(NUCLEUS, "logits.masked_fill(", "logits.masked_fill_("),
        say=["in place|new tensor"],
        never=["crosses", "order"],
    ),
    Slip(
        "top_p_filter",
        "sorted upwards",
        swap(NUCLEUS, "descending=True", "descending=False"),
        say=["likeliest"],
        never=["crosses", "gather"],
    ),
    # ------------------------------------------------------------ sample
    Slip(
        "sample",
        "squeezes a batch of one away",
        swap(SAMPLE, ".squeeze(1)", ".squeeze()"),
        say=[r"\(1, 11\)", "one row"],
        never=["generator", "order"],
    ),
    Slip(
        "sample",
        "below 0 is greedy too",
        swap(SAMPLE, "temperature == 0", "temperature <= 0"),
        say=["temperature=-1|ValueError"],
        never=["generator"],
    ),
    Slip(
        "sample",
        "greedy unless it is told otherwise",
        swap(SAMPLE, "temperature=1.0", "temperature=0"),
        say=["no filter|default|1.0"],
        never=["order is"],
    ),
    Slip(
        "sample",
        "draws from the scores",
        swap(SAMPLE, "logits.softmax(dim=-1)", "logits.exp().clamp(max=1)"),
        say=[r"with \[|RuntimeError|1000"],
        never=["generator", "order is"],
    ),
    Slip(
        "sample",
        "top_k and top_p in each other's place",
        SAMPLE.replace("top_k_filter(logits, top_k)", "top_k_filter(logits, top_p)").replace(
            "top_p_filter(logits, top_p)", "top_p_filter(logits, top_k)"
        ),
        say=["top_k"],
        never=["the order is", "same seed"],
    ),
    Slip(
        "sample",
        "filters before the temperature",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    p = apply_temperature(logits, temperature).softmax(dim=-1)
    return torch.multinomial(p, 1, generator=generator).squeeze(-1)
""",
        say=["temperature", "first|before|order|after"],
        never=[
            "same seed|generator. (is not|decides|alone)|not from .generator",
            "top_k (is|was) ignored",
        ],
    ),
    Slip(
        "sample",
        "top-p before top-k",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    z = apply_temperature(logits, temperature)
    z = z if top_p is None else top_p_filter(z, top_p)
    z = z if top_k is None else top_k_filter(z, top_k)
    return torch.multinomial(torch.softmax(z, -1), num_samples=1, generator=generator)[:, 0]
""",
        say=["top.?k", "top.?p", "order|before|first|then|left"],
        never=[
            "temperature (comes|is) (last|after)",
            "same seed|generator. (is not|decides|alone)|not from .generator",
        ],
    ),
    Slip(
        "sample",
        "generator ignored",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return torch.distributions.Categorical(logits=logits).sample()
""",
        say=["generator"],
        never=["order", "temperature"],
    ),
    Slip(
        "sample",
        "temperature 0 not greedy",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    z = apply_temperature(logits, temperature)
    if top_k is not None:
        z = top_k_filter(z, top_k)
    if top_p is not None:
        z = top_p_filter(z, top_p)
    return torch.multinomial(z.softmax(-1), 1, generator=generator).view(-1)
""",
        say=["0", "greedy"],
        never=["same seed|generator. (is not|decides|alone)|not from .generator", "order"],
    ),
    Slip(
        "sample",
        "column of tokens",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    logits = top_k_filter(logits, top_k) if top_k is not None else logits
    logits = top_p_filter(logits, top_p) if top_p is not None else logits
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
""",
        say=[r"\(B, 1\)|\(B,\)|shape|axis|squeeze|\(2,\)|\d, 1\)"],
        never=["same seed|generator. (is not|decides|alone)|not from .generator", "order"],
    ),
    Slip(
        "sample",
        "top_k of 0 silently off",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    if top_k:
        logits = top_k_filter(logits, top_k)
    if top_p:
        logits = top_p_filter(logits, top_p)
    probs = logits.softmax(-1)
    return torch.multinomial(probs, 1, generator=generator).squeeze(1)
""",
        say=["0|None|ValueError"],
        never=["order", "same seed|generator. (is not|decides|alone)|not from .generator"],
    ),
    Slip(
        "sample",
        "right: exponential race",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    p = logits.softmax(dim=-1)
    clock = torch.empty_like(p).exponential_(1.0, generator=generator)
    return (p / clock).argmax(dim=-1)
""",
        right=True,
    ),
    Slip(
        "sample",
        "seeds PyTorch itself",
        swap(
            SAMPLE, "    if temperature == 0:", "    torch.manual_seed(0)\n    if temperature == 0:"
        ),
        say=["two draws are the same"],
        never=["order is"],
    ),
    Slip(
        "sample",
        "a seeded generator of its own",
        swap(
            SAMPLE,
            "generator=generator)",
            "generator=generator or torch.Generator().manual_seed(0))",
        ),
        say=["two draws are the same"],
        never=["order is"],
    ),
    # ------------------------------------------------------------ generate
    Slip(
        "generate",
        "reads the first max_len tokens",
        swap(GENERATE, "model(tokens[:, start:])", "model(tokens[:, :context])")
        .replace(
            "            start = 0\n            while tokens.size(1) - start > context:\n                start += hop\n",
            "",
        )
        .replace("    hop = max(1, context // 2)\n", ""),
        say=["end|last|first|window|beginning|context"],
        never=[
            r"\bmode\b",
            "same seed|generator. (is not|decides|alone)|not from .generator",
            "half",
        ],
    ),
    Slip(
        "generate",
        "only the window comes back",
        swap(
            GENERATE,
            "            logits = model(tokens[:, start:])[:, -1]\n",
            "            tokens = tokens[:, start:]\n            logits = model(tokens)[:, -1]\n",
        ),
        say=["whole|all of the text|window|lost|missing|short|T \\+ max_new_tokens|axis|has size"],
        never=[r"\bmode\b", "same seed|generator. (is not|decides|alone)|not from .generator"],
    ),
    Slip(
        "generate",
        "left in evaluation mode",
        swap(swap(GENERATE, "    mode = model.training\n", ""), "    model.train(mode)\n", ""),
        say=["mode"],
        never=["dropout (is|was) at work", "window"],
    ),
    Slip(
        "generate",
        "window shorter than half",
        swap(GENERATE, "hop = max(1, context // 2)", "hop = context"),
        say=["half"],
        never=[r"\bmode\b", "more than the context", "first max_len"],
    ),
    Slip(
        "generate",
        "temperature 0 becomes 1",
        swap(
            GENERATE,
            "sample(logits, temperature, top_k",
            "sample(logits, temperature or 1.0, top_k",
        ),
        say=["temperature", "0|greedy"],
        never=[
            "window",
            r"\bmode\b",
            "same seed|generator. (is not|decides|alone)|not from .generator",
        ],
    ),
    Slip(
        "generate",
        "one cache for all windows",
        swap(
            swap(
                FULL,
                "            if use_cache and start != old:\n",
                "            if use_cache and cache is None:\n",
            ),
            "            old = start\n",
            "",
        ),
        say=["cache", "window|new|moves"],
        never=[r"\bmode\b", "With lengths|Among prompts", "never used"],
    ),
    Slip(
        "generate",
        "hands the cache only the last token",
        swap(
            FULL,
            "            window = text[:, start:end]\n",
            "            window = text[:, start:end]\n"
            "            if use_cache and cache.length > 0:\n                window = window[:, -1:]\n",
        ),
        say=["cache", "window|tokens|whole|length"],
        never=[r"\bmode\b", "new cache", "lengths\\b.*padded"],
    ),
    Slip(
        "generate",
        "longer prompts written over",
        swap(FULL, "torch.where(lengths <= end, new, text[:, end])", "new"),
        say=["prompt|lengths", "longer|over|row|own"],
        never=["use_cache (another|the)|(new|the) cache", r"\bmode\b", "window"],
    ),
    Slip(
        "generate",
        "never ends",
        HEAD
        + """    mode, n = model.training, tokens.size(1)
    model.eval()
    out = torch.cat([tokens, tokens.new_zeros(len(tokens), max_new_tokens)], dim=1)
    with torch.no_grad():
        while n < out.size(1):
            logits = model(out[:, max(0, n - model.config.max_len) : n])
            out[:, n] = sample(logits[:, -1], temperature, top_k, top_p, generator)
    model.train(mode)
    return out
""",
        say=["end|stop|seconds|loop|time"],
        never=["window", "use_cache (another|the)|(new|the) cache", r"\bmode\b"],
    ),
    Slip(
        "generate",
        "right: slides by one, a fresh cache each time",
        """
@torch.no_grad()
def generate(model, tokens, max_new_tokens, temperature=1.0, top_k=None, top_p=None,
             generator=None, use_cache=True, lengths=None):
    before, L = model.training, model.config.max_len
    try:
        model.eval()
        cache = KVCache(model.config, tokens.size(0), tokens.device) if use_cache else None
        for _ in range(max_new_tokens):
            if use_cache and tokens.size(1) > L:
                cache = KVCache(model.config, tokens.size(0), tokens.device)
            args = (tokens[:, -L:],) if cache is None else (tokens[:, -L:], cache)
            nxt = sample(model(*args)[:, -1], temperature, top_k, top_p, generator)
            tokens = torch.hstack((tokens, nxt.unsqueeze(1)))
        return tokens.clone()
    finally:
        model.train(before)
""",
        right=True,
    ),
    Slip(
        "generate",
        "prompts end a token later",
        swap(FULL, "lengths <= end", "lengths < end"),
        say=[r"\[0, 0, 0\]", "token number 1"],
        never=["the cache", "without temperature"],
    ),
    Slip(
        "generate",
        "top_p not handed on",
        swap(FULL, "temperature, top_k, top_p, generator", "temperature, top_k, None, generator"),
        say=["without top_p|not given its top_p"],
        never=["the cache", "generator is"],
    ),
    Slip(
        "generate",
        "the generator not handed on",
        swap(GENERATE, "top_p, generator)", "top_p)"),
        say=["generator"],
        never=["top_p"],
    ),
    Slip(
        "generate",
        "the temperature not handed on",
        swap(GENERATE, "sample(logits, temperature, ", "sample(logits, 1.0, "),
        say=["temperature"],
        never=["generator (is|decides)"],
    ),
    Slip(
        "generate",
        "gradients are kept",
        swap(FULL, "torch.no_grad()", "torch.enable_grad()"),
        say=["graph"],
        never=["dropout"],
    ),
    Slip(
        "generate",
        "always in training afterwards",
        swap(FULL, "model.train(was_training)", "model.train()"),
        say=["training=False", "training=True"],
        never=["leave the model in evaluation"],
    ),
    Slip(
        "generate",
        "samples at the first position",
        swap(GENERATE, "[:, -1]", "[:, 0]"),
        say=["last position"],
        never=["without"],
    ),
    # ------------------------------------------------------------ KVCache
    Slip(
        "KVCache",
        "values kept as keys",
        swap(
            CACHE,
            "self.values[layer, :, :, self.length : end] = v",
            "self.values[layer, :, :, self.length : end] = k",
        ),
        say=["values"],
        never=["device"],
    ),
    Slip(
        "KVCache",
        "shared by all caches",
        """
class KVCache:
    kept = {}

    def __init__(self, config, batch_size, device=None):
        self.length = 0

    def append(self, layer, k, v):
        if self.length and layer in self.kept:
            old_k, old_v = (t[:, :, : self.length] for t in self.kept[layer])
            k, v = torch.cat((old_k, k), 2), torch.cat((old_v, v), 2)
        self.kept[layer] = k, v
        return k, v
""",
        say=["take turns|share"],
        never=["device"],
    ),
    Slip(
        "KVCache",
        "append moves the length",
        swap(
            CACHE,
            "        return self.keys[layer",
            "        self.length = end\n        return self.keys[layer",
        ),
        say=["length"],
        never=["device", "one store", "d_head"],
    ),
    Slip(
        "KVCache",
        "one store for all layers",
        CACHE.replace("(config.n_layers, batch_size, ", "(batch_size, ").replace(
            "[layer, :, :,", "[:, :,"
        ),
        say=["layer"],
        never=["length", "device"],
    ),
    Slip(
        "KVCache",
        "keeps what lies behind length",
        """
class KVCache:
    def __init__(self, config, batch_size, device=None):
        shape = (batch_size, config.n_heads, 0, config.d_model // config.n_heads)
        self.k = [torch.zeros(shape, device=device) for _ in range(config.n_layers)]
        self.v = [torch.zeros(shape, device=device) for _ in range(config.n_layers)]
        self.length = 0

    def append(self, layer, k, v):
        self.k[layer] = torch.cat([self.k[layer], k], dim=2)
        self.v[layer] = torch.cat([self.v[layer], v], dim=2)
        return self.k[layer], self.v[layer]
""",
        say=["length", "behind|back|forget|place|first|keep"],
        never=["moves? the length", "device", "one store"],
    ),
    Slip(
        "KVCache",
        "device ignored",
        CACHE.replace("torch.zeros(shape, device=device)", "torch.zeros(*shape)"),
        say=["device"],
        never=["length", "layer"],
    ),
    Slip(
        "KVCache",
        "only the new ones come back",
        swap(
            CACHE,
            "return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]",
            "return self.keys[layer, :, :, self.length : end], self.values[layer, :, :, self.length : end]",
        ),
        say=["all|new|earlier|so far|S\\b"],
        never=["device", "moves? the length", "one store"],
    ),
    Slip(
        "KVCache",
        "length under another name",
        CACHE.replace("self.length", "self.n_read"),
        say=["length"],
        never=["device", "layer", "moves? the length"],
    ),
    Slip(
        "KVCache",
        "right: parts in a dict",
        """
class KVCache:
    def __init__(self, config, batch_size, device=None):
        d_head = config.d_model // config.n_heads
        empty = torch.empty(batch_size, config.n_heads, 0, d_head, device=device)
        self.store = {layer: (empty, empty) for layer in range(config.n_layers)}
        self.length = 0

    def append(self, layer, k, v):
        old_k, old_v = (t[:, :, : self.length] for t in self.store[layer])
        self.store[layer] = torch.cat((old_k, k), 2), torch.cat((old_v, v), 2)
        return self.store[layer]
""",
        right=True,
    ),
]

# Of the same kind, and slower, or beyond what the gate has time for.
SPARE = {
    ("generate", "never ends"),
    ("generate", "temperature 0 becomes 1"),
    ("generate", "longer prompts written over"),
    ("generate", "one cache for all windows"),
    ("generate", "hands the cache only the last token"),
    ("greedy", "values and indices"),
    ("apply_temperature", "zero passes"),
    ("apply_temperature", "multiplies"),
    ("top_k_filter", "batches only"),
    ("top_k_filter", "in place"),
    ("top_k_filter", "right: counts the better ones"),
    ("top_p_filter", "sums scores, not probabilities"),
    ("top_p_filter", "p of 1 refused"),
    ("sample", "column of tokens"),
    ("sample", "top-p before top-k"),
    ("generate", "left in evaluation mode"),
    ("generate", "reads the first max_len tokens"),
    ("KVCache", "only the new ones come back"),
    ("top_p_filter", "probabilities come back"),
    ("top_p_filter", "written into what was given"),
    ("top_p_filter", "sorted upwards"),
    ("sample", "greedy unless it is told otherwise"),
    ("sample", "draws from the scores"),
    ("sample", "top_k and top_p in each other's place"),
    ("generate", "prompts end a token later"),
    ("generate", "the generator not handed on"),
    ("generate", "the temperature not handed on"),
    ("generate", "gradients are kept"),
    ("generate", "always in training afterwards"),
    ("generate", "samples at the first position"),
    ("KVCache", "values kept as keys"),
    ("sample", "a seeded generator of its own"),
    ("top_k_filter", "sorted, and left so"),
    ("greedy", "the scores, not where they stand"),
    ("KVCache", "shared by all caches"),
}
EXTRA = [slip for slip in SLIPS if (slip.exercise, slip.name) in SPARE]
SLIPS = [slip for slip in SLIPS if (slip.exercise, slip.name) not in SPARE]

UNCACHED = [
    ("left in evaluation mode, without a cache", "    model.train(mode)\n", "", ["training=True"]),
    ("no rest for dropout, without a cache", "    model.eval()\n", "", ["dropout"]),
    ("a graph, without a cache", "torch.no_grad()", "torch.enable_grad()", ["graph is built"]),
]
SLIPS += [
    *(
        Slip(
            "generate", name, swap(GENERATE, old, new), say=say, never=["KVCache", "With use_cache"]
        )
        for name, old, new, say in UNCACHED
    ),
    Slip(
        "generate",
        "right but for a cache",
        GENERATE,
        say=["still read again", "to write last"],
    ),
    Slip(
        "generate",
        "a window one token too long",
        swap(FULL, "-(-(end - L) // hop) * hop", "(end - L) // hop * hop"),
        say=["context is 8", r"\[9\]"],
        never=["KVCache", "With use_cache", "new cache"],
    ),
]
EXTRA += [
    Slip(
        "generate",
        "token 0 ends the text",
        swap(
            GENERATE,
            "            tokens = torch.cat",
            "            if (new == 0).all():\n                break\n            tokens = torch.cat",
        ),
        say=["No token is special"],
    ),
    Slip(
        "generate",
        "a new cache at each step",
        swap(FULL, "use_cache and start != old", "use_cache"),
        say=["the same one at each step"],
    ),
    Slip(
        "KVCache",
        "d_model taken for d_head",
        swap(CACHE, "config.d_model // config.n_heads", "config.d_model"),
        say=[r"size of the tensor \(16\)"],
        never=["device"],
    ),
    Slip(
        "KVCache",
        "values come back as keys",
        swap(
            CACHE,
            "return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]",
            "return self.values[layer, :, :, :end], self.keys[layer, :, :, :end]",
        ),
        say=["changed places"],
    ),
    Slip(
        "sample",
        "top_p of all tokens",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    scaled = apply_temperature(logits, temperature)
    kept = scaled
    if top_k is not None:
        kept = top_k_filter(scaled, top_k)
    if top_p is not None:
        kept = torch.minimum(kept, top_p_filter(scaled, top_p))
    return torch.multinomial(kept.softmax(dim=-1), 1, generator=generator).squeeze(-1)
""",
        say=[r"top_k has left"],
        never=[r"before the temperature"],
    ),
    Slip(
        "sample",
        "one number for all rows",
        """
def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    chances = logits.softmax(dim=-1).cumsum(dim=-1)
    return (chances < torch.rand(1, generator=generator)).sum(dim=-1)
""",
        say=[r"all rows|own"],
        never=[r"global random state"],
    ),
]
