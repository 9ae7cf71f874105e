from slip import Slip


def swap(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


ADAMW = """
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (b1, b2), eps, wd = group["lr"], group["betas"], group["eps"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g, s = p.grad, self.state[p]
                if not s:
                    s["t"], s["m"], s["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
                s["t"] += 1
                s["m"] = b1 * s["m"] + (1 - b1) * g
                s["v"] = b2 * s["v"] + (1 - b2) * g * g
                m_hat = s["m"] / (1 - b1 ** s["t"])
                v_hat = s["v"] / (1 - b2 ** s["t"])
                p.mul_(1 - lr * wd)
                p.sub_(lr * m_hat / (v_hat.sqrt() + eps))
"""

STEP = """
def train_step(model, optimizer, inputs, targets, max_norm, accumulate=1, bf16=False, scaler=None):
    model.train()
    optimizer.zero_grad()
    loss = cross_entropy(model(inputs), targets)
    loss.backward()
    clip_gradients(model.parameters(), max_norm)
    optimizer.step()
    return loss.detach()
"""

DOORS = """
def train_step(model, optimizer, inputs, targets, max_norm, accumulate=1, bf16=False, scaler=None):
    model.train()
    optimizer.zero_grad()
    half = torch.float16 if scaler is not None else torch.bfloat16
    total = torch.zeros((), device=inputs.device)
    for x, y in zip(inputs.chunk(accumulate), targets.chunk(accumulate)):
        with torch.autocast(inputs.device.type, half, enabled=bf16 or scaler is not None):
            logits = model(x)
        loss = cross_entropy(logits.float(), y) * len(y) / len(targets)
        if scaler is None:
            loss.backward()
        else:
            scaler.scale(loss).backward()
        total += loss.detach()
    if scaler is not None:
        scaler.unscale_(optimizer)
    clip_gradients(model.parameters(), max_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return total
"""

SLIPS = [
    # ------------------------------------------------------------ split_corpus
    Slip(
        "split_corpus",
        "shares exchanged",
        """
def split_corpus(tokens, val_fraction=0.1):
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}")
    n = int(len(tokens) * val_fraction)
    return tokens[:n], tokens[n:]
""",
        say=["val_fraction|share|second|first|long"],
        never=["shuffl", "ValueError", "lost"],
    ),
    Slip(
        "split_corpus",
        "shuffled",
        """
def split_corpus(tokens, val_fraction=0.1):
    if val_fraction <= 0 or val_fraction >= 1:
        raise ValueError("val_fraction must lie between 0 and 1")
    tokens = tokens[torch.randperm(len(tokens))]
    cut = int(len(tokens) * (1 - val_fraction))
    return tokens[:cut], tokens[cut:]
""",
        say=["order|shuffl|slice"],
        never=["val_fraction", "ValueError"],
    ),
    Slip(
        "split_corpus",
        "assert",
        """
def split_corpus(tokens, val_fraction=0.1):
    assert 0 < val_fraction < 1, "val_fraction must be between 0 and 1"
    cut = int(len(tokens) * (1 - val_fraction))
    return tokens[:cut], tokens[cut:]
""",
        say=["ValueError"],
        never=["accept", "order", "lost"],
    ),
    Slip(
        "split_corpus",
        "right: tensor.split",
        """
def split_corpus(tokens, val_fraction=0.1):
    if not (val_fraction > 0 and val_fraction < 1):
        raise ValueError(f"val_fraction = {val_fraction} is not between 0 and 1")
    n_train = int(tokens.numel() * (1 - val_fraction))
    train, val = tokens.split([n_train, tokens.numel() - n_train])
    return train, val
""",
        right=True,
    ),
    # ------------------------------------------------------------ get_batch
    Slip(
        "get_batch",
        "last window never drawn",
        """
def get_batch(tokens, batch_size, block_size, generator):
    if len(tokens) <= block_size:
        raise ValueError("text too short")
    high = len(tokens) - block_size - 1
    ix = torch.randint(high, (batch_size,), generator=generator)
    x = torch.stack([tokens[i : i + block_size] for i in ix])
    y = torch.stack([tokens[i + 1 : i + block_size + 1] for i in ix])
    return x, y
""",
        say=[
            "last|every possible|equally|from >= to|random_|N - T|start|len\\(tokens\\) - block_size"
        ],
        never=[
            "same seed|generator. (decides|alone)|not from .generator",
            "follow",
            "must raise|ValueError",
        ],
    ),
    Slip(
        "get_batch",
        "generator ignored",
        """
def get_batch(tokens, batch_size, block_size, generator):
    n = len(tokens) - block_size
    if n < 1:
        raise ValueError(f"{len(tokens)} tokens are too few for a window of {block_size} and its target")
    starts = torch.randint(0, n, (batch_size, 1))
    window = tokens[starts + torch.arange(block_size + 1)]
    return window[:, :-1], window[:, 1:]
""",
        say=["generator"],
        never=["follow", "last window", "too few"],
    ),
    Slip(
        "get_batch",
        "targets are the inputs",
        """
def get_batch(tokens, batch_size, block_size, generator):
    if len(tokens) < block_size + 1:
        raise ValueError("too few tokens")
    starts = torch.randint(len(tokens) - block_size, (batch_size,), generator=generator)
    idx = starts[:, None] + torch.arange(block_size)[None, :]
    return tokens[idx], tokens[idx].clone()
""",
        say=["target", "follow|next|shift|same|inputs"],
        never=["same seed|generator. (decides|alone)|not from .generator", "equally"],
    ),
    Slip(
        "get_batch",
        "one start for all rows",
        """
def get_batch(tokens, batch_size, block_size, generator):
    if len(tokens) <= block_size:
        raise ValueError(f"need {block_size + 1} tokens, have {len(tokens)}")
    i = torch.randint(len(tokens) - block_size, (1,), generator=generator).item()
    x = tokens[i : i + block_size].expand(batch_size, -1)
    y = tokens[i + 1 : i + 1 + block_size].expand(batch_size, -1)
    return x, y
""",
        say=["row|each|same|one start|window"],
        never=["generator (is )?(ignored|not)", "last window", "follow"],
    ),
    Slip(
        "get_batch",
        "a text as long as the window accepted",
        """
def get_batch(tokens, batch_size, block_size, generator):
    N = tokens.size(0)
    if N < block_size:
        raise ValueError(f"{N} tokens, block size {block_size}")
    starts = torch.randint(N - block_size, (batch_size, 1), generator=generator)
    window = tokens[starts + torch.arange(block_size + 1)]
    return window[:, :-1], window[:, 1:]
""",
        say=[
            "ValueError|RuntimeError|too few|short",
            "target|one more|T \\+ 1|block_size|window|tokens",
        ],
        never=["same seed|generator. (decides|alone)|not from .generator", "equally likely"],
    ),
    Slip(
        "get_batch",
        "right: unfold",
        """
def get_batch(tokens, batch_size, block_size, generator):
    if len(tokens) <= block_size:
        raise ValueError("too few tokens for one window and its target")
    windows = tokens.unfold(0, block_size + 1, 1)
    chosen = windows[torch.randint(len(windows), (batch_size,), generator=generator)]
    x, y = chosen[:, :block_size], chosen[:, 1:]
    return x.contiguous(), y.contiguous()
""",
        right=True,
    ),
    # ------------------------------------------------------------ cross_entropy
    Slip(
        "cross_entropy",
        "softmax, then log",
        """
def cross_entropy(logits, targets):
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"{tuple(logits.shape)} and {tuple(targets.shape)} do not fit")
    p = logits.softmax(dim=-1)
    picked = p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -picked.log().mean()
""",
        say=["finite|inf|overflow|underflow|rounds? to 0|logsumexp|log_softmax"],
        never=["mean", "shape", "softmax twice|takes it again"],
    ),
    Slip(
        "cross_entropy",
        "sum in place of mean",
        """
def cross_entropy(logits, targets):
    if targets.shape != logits.shape[:-1]:
        raise ValueError("shape of targets")
    logp = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -logp.gather(-1, targets[..., None]).sum()
""",
        say=["mean|sum|times"],
        never=["overflow", "sign"],
    ),
    Slip(
        "cross_entropy",
        "no squeeze",
        """
def cross_entropy(logits, targets):
    if targets.shape != logits.shape[:-1]:
        raise ValueError("targets must have the shape of logits without the last axis")
    score = logits.gather(-1, targets.unsqueeze(-1))
    return (logits.logsumexp(dim=-1) - score).mean()
""",
        say=[r"squeeze|broadcast|must match|axis|size of tensor|\(.*1\)"],
        never=["overflow", r"\bsum\b", "device"],
    ),
    Slip(
        "cross_entropy",
        "any shape of as many targets",
        """
def cross_entropy(logits, targets):
    z = logits.reshape(-1, logits.size(-1))
    y = targets.reshape(-1)
    logp = z.log_softmax(dim=1)
    return -logp[torch.arange(len(y), device=y.device), y].mean()
""",
        say=["ValueError|refuse|accept", "shape|targets"],
        never=["overflow", "mean"],
    ),
    Slip(
        "cross_entropy",
        "three axes only",
        """
def cross_entropy(logits, targets):
    B, T, V = logits.shape
    if targets.shape != (B, T):
        raise ValueError(f"targets must be ({B}, {T})")
    logp = torch.log_softmax(logits, dim=-1)
    rows, cols = torch.arange(B).view(B, 1), torch.arange(T)
    return -logp[rows, cols, targets].mean()
""",
        say=[r"unpack|axes|axis|\.\.\.|leading|2-D|dimension|any shape"],
        never=["overflow", "targets of any other shape"],
    ),
    Slip(
        "cross_entropy",
        "right: nll_loss",
        """
import torch.nn.functional as F


def cross_entropy(logits, targets):
    if tuple(targets.shape) != tuple(logits.shape)[:-1]:
        raise ValueError(f"targets are {tuple(targets.shape)}, logits {tuple(logits.shape)}")
    logp = F.log_softmax(logits, dim=-1)
    return F.nll_loss(logp.reshape(-1, logits.shape[-1]), targets.reshape(-1))
""",
        right=True,
    ),
    # ------------------------------------------------------------ perplexity
    Slip(
        "perplexity",
        "2 to the loss",
        """
def perplexity(loss):
    return float(2 ** loss)
""",
        say=[r"nat|bit|\be\b|exp|2 ?\*\*"],
        never=["tensor"],
    ),
    Slip(
        "perplexity",
        "torch.exp of a float",
        """
def perplexity(loss):
    return torch.exp(loss).item()
""",
        say=["float", "Tensor"],
        never=["bits", "returns a tensor"],
    ),
    Slip(
        "perplexity",
        "right: power of e",
        """
def perplexity(loss):
    return pow(math.e, float(loss))
""",
        right=True,
    ),
    # ------------------------------------------------------------ warmup_cosine
    Slip(
        "warmup_cosine",
        "first rate 0",
        """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    x = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(math.pi * x))
""",
        say=[r"step 0|first|warmup_steps \+ 1|\+ 1|warm-?up|line"],
        never=["(your|half a) cosine", "stays|after max_steps"],
    ),
    Slip(
        "warmup_cosine",
        "cosine counted from 0",
        """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    progress = min(step / max_steps, 1.0)
    return min_lr + (max_lr - min_lr) / 2 * (1 + math.cos(math.pi * progress))
""",
        say=["cosine|maximum|max_lr|warmup_steps|progress"],
        never=["first rate", "step 0 .*(is|gives) 0", "rises again"],
    ),
    Slip(
        "warmup_cosine",
        "rises again after max_steps",
        """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1) * max_lr
    t = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * (0.5 + 0.5 * math.cos(t * math.pi))
""",
        say=["after|max_steps|stays|from then on|progress|min_lr"],
        never=["warm-up|line", "first rate"],
    ),
    Slip(
        "warmup_cosine",
        "no decay steps: division by zero",
        """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (max_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) / 2 * (1 + math.cos(math.pi * done))
""",
        say=["zero|ZeroDivisionError|warmup_steps.*max_steps|max_steps - warmup_steps"],
        never=["rises", "first rate"],
    ),
    Slip(
        "warmup_cosine",
        "a quarter of a cosine",
        """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    ratio = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) * math.cos(math.pi / 2 * ratio)
""",
        say=["cosine|pi|between|middle|half"],
        never=["first rate", "rises again", "never reaches"],
    ),
    Slip(
        "warmup_cosine",
        "right: sine squared",
        """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    up = (step + 1) / (warmup_steps + 1)
    if up < 1:
        return max_lr * up
    span = max(1, max_steps - warmup_steps)
    x = max(0.0, 1 - (step - warmup_steps) / span)
    return min_lr + (max_lr - min_lr) * math.sin(math.pi / 2 * x) ** 2
""",
        right=True,
    ),
    # ------------------------------------------------------------ clip_gradients
    Slip(
        "clip_gradients",
        "each tensor by itself",
        """
def clip_gradients(params, max_norm):
    total = 0
    for p in params:
        if p.grad is None:
            continue
        norm = p.grad.norm()
        total = total + norm ** 2
        if norm > max_norm:
            p.grad.mul_(max_norm / norm)
    return total ** 0.5
""",
        say=["together|all|one (vector|factor|length)|by itself|direction|each"],
        never=["sum of (the )?(norms|lengths)", "None"],
    ),
    Slip(
        "clip_gradients",
        "short ones made longer",
        """
def clip_gradients(params, max_norm):
    grads = [p.grad for p in params if p.grad is not None]
    norm = torch.stack([g.norm() for g in grads]).norm()
    for g in grads:
        g.mul_(max_norm / norm)
    return norm
""",
        say=["short|longer|lengthen|stay|at most|below"],
        never=["each tensor", "None", "square"],
    ),
    Slip(
        "clip_gradients",
        "the iterable read twice",
        """
def clip_gradients(params, max_norm):
    squares = sum((p.grad ** 2).sum() for p in params if p.grad is not None)
    norm = torch.sqrt(squares)
    scale = min(1.0, (max_norm / norm).item())
    for p in params:
        if p.grad is not None:
            p.grad *= scale
    return norm
""",
        say=["generator|iterat|once|twice|list|exhaust|used up"],
        never=["each tensor", "short"],
    ),
    Slip(
        "clip_gradients",
        "None crashes",
        """
def clip_gradients(params, max_norm):
    params = list(params)
    flat = torch.cat([p.grad.flatten() for p in params])
    norm = flat.norm()
    if norm > max_norm:
        for p in params:
            p.grad.mul_(max_norm / norm)
    return norm
""",
        say=["None"],
        never=["each tensor", "longer", "generator"],
    ),
    Slip(
        "clip_gradients",
        "right: foreach and clamp",
        """
def clip_gradients(params, max_norm):
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norm = sum(g.square().sum() for g in grads).sqrt()
    factor = (max_norm / norm).clamp(max=1.0)
    torch._foreach_mul_(grads, factor)
    return norm
""",
        right=True,
    ),
    # ------------------------------------------------------------ AdamW
    Slip(
        "AdamW",
        "decay through the gradient",
        swap(
            swap(ADAMW, "                p.mul_(1 - lr * wd)\n", ""),
            "g, s = p.grad, self.state[p]",
            "g, s = p.grad + wd * p, self.state[p]",
        ),
        say=["decay", "gradient|L2|decoupled|itself"],
        never=["correct", r"\beps\b"],
    ),
    Slip(
        "AdamW",
        "eps inside the root",
        swap(ADAMW, "(v_hat.sqrt() + eps)", "torch.sqrt(v_hat + eps)"),
        say=["eps|ε", "root|sqrt"],
        never=["decay", "correct"],
    ),
    Slip(
        "AdamW",
        "one count for all",
        swap(
            swap(
                swap(
                    ADAMW,
                    "        for group in self.param_groups:",
                    '        self.t = getattr(self, "t", 0) + 1\n        for group in self.param_groups:',
                ),
                '                s["t"] += 1\n',
                "",
            ).replace('** s["t"]', "** self.t"),
            's["t"], s["m"], s["v"] = 0, torch',
            's["m"], s["v"] = torch',
        ),
        say=["count|steps|state", "None|rest|wait|own|each|self.state"],
        never=["decay", r"\beps\b"],
    ),
    Slip(
        "AdamW",
        "first group only",
        swap(ADAMW, "for group in self.param_groups:", "for group in self.param_groups[:1]:"),
        say=["group"],
        never=["decay", "None"],
    ),
    Slip(
        "AdamW",
        "the lr of the beginning",
        swap(
            swap(
                ADAMW,
                "weight_decay=weight_decay))\n",
                "weight_decay=weight_decay))\n        self.lr = lr\n",
            ),
            'lr, (b1, b2), eps, wd = group["lr"],',
            "lr, (b1, b2), eps, wd = self.lr,",
        ),
        say=["lr|learning rate", "param_groups|group|schedule|change"],
        never=["decay", "correct"],
    ),
    Slip(
        "AdamW",
        "squares the gradient in place",
        swap(
            swap(
                ADAMW,
                's["v"] = b2 * s["v"] + (1 - b2) * g * g',
                's["v"].mul_(b2).add_(g.pow_(2), alpha=1 - b2)',
            ),
            's["m"] = b1 * s["m"] + (1 - b1) * g',
            's["m"].mul_(b1).add_(g, alpha=1 - b1)',
        ),
        say=[r"gradient|p\.grad", "in place|pow_|chang|as (it|they)|stay|left|modif"],
        never=["decay", "correct", r"\beps\b"],
    ),
    Slip(
        "AdamW",
        "averages in lists of its own",
        """
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.mem = {}

    @torch.no_grad()
    def step(self):
        for h in self.param_groups:
            b1, b2 = h["betas"]
            for p in (p for p in h["params"] if p.grad is not None):
                m, v, t = self.mem.get(p, (0.0, 0.0, 0))
                m, v, t = b1 * m + (1 - b1) * p.grad, b2 * v + (1 - b2) * p.grad ** 2, t + 1
                self.mem[p] = m, v, t
                step = m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + h["eps"])
                p.copy_(p * (1 - h["lr"] * h["weight_decay"]) - h["lr"] * step)
""",
        say=[r"self\.state|state_dict|state"],
        never=["decay", "correct", r"\beps\b", "agree"],
    ),
    Slip(
        "AdamW",
        "right: addcdiv_ and a tensor count",
        """
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                s = self.state[p]
                if len(s) == 0:
                    s["n"], s["avg"], s["sq"] = torch.tensor(0.0), p.new_zeros(p.shape), p.new_zeros(p.shape)
                s["n"] += 1
                s["avg"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                s["sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                n = int(s["n"])
                denom = s["sq"].sqrt().div_(math.sqrt(1 - beta2**n)).add_(group["eps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(s["avg"], denom, value=-group["lr"] / (1 - beta1**n))
""",
        right=True,
    ),
    # ------------------------------------------------------------ train_step
    Slip(
        "train_step",
        "clips after the step",
        swap(
            STEP,
            "    clip_gradients(model.parameters(), max_norm)\n    optimizer.step()\n",
            "    optimizer.step()\n    clip_gradients(model.parameters(), max_norm)\n",
        ),
        say=["clip", "after|before|order|when the optimizer"],
        never=["zero_grad", "mode"],
    ),
    Slip(
        "train_step",
        "old gradients stay",
        swap(STEP, "    optimizer.zero_grad()\n", ""),
        say=["zero_grad|old gradients|forg[eo]t|add up|this batch alone|before"],
        never=["clip", "mode"],
    ),
    Slip(
        "train_step",
        "loss with its graph",
        swap(STEP, "return loss.detach()", "return loss"),
        say=["graph|detach"],
        never=["clip", "after the step"],
    ),
    Slip(
        "train_step",
        "loss after the step",
        swap(
            STEP,
            "return loss.detach()",
            "with torch.no_grad():\n        return cross_entropy(model(inputs), targets)",
        ),
        say=["before|after"],
        never=["graph", "clip"],
    ),
    Slip(
        "train_step",
        "parts not weighted",
        swap(
            DOORS,
            "cross_entropy(logits.float(), y) * len(y) / len(targets)",
            "cross_entropy(logits.float(), y)",
        ),
        say=["part|accumulate", "divid|share|number|times|whole"],
        never=["scaler", "zero_grad", "16 bits"],
    ),
    Slip(
        "train_step",
        "clips what the scaler has scaled",
        swap(
            swap(
                DOORS,
                "    if scaler is not None:\n        scaler.unscale_(optimizer)\n    clip_gradients(model.parameters(), max_norm)\n",
                "    clip_gradients(model.parameters(), max_norm)\n",
            ),
            "    else:\n        scaler.step(optimizer)\n",
            "    else:\n        scaler.unscale_(optimizer)\n        scaler.step(optimizer)\n",
        ),
        say=["unscale|scale", "clip"],
        never=["accumulate", "zero_grad"],
    ),
    Slip(
        "train_step",
        "loss of bfloat16 logits",
        swap(
            DOORS,
            "            logits = model(x)\n        loss = cross_entropy(logits.float(), y)",
            "            logits = model(x)\n        loss = cross_entropy(logits, y)",
        ),
        say=[r"float32|float\(\)|16 bits|bfloat16|dtype"],
        never=["unscale", "accumulate"],
    ),
    Slip(
        "train_step",
        "right: autograd.grad",
        """
def train_step(model, optimizer, inputs, targets, max_norm, accumulate=1, bf16=False, scaler=None):
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    loss = cross_entropy(model(inputs), targets)
    for p, g in zip(params, torch.autograd.grad(loss, params, allow_unused=True)):
        p.grad = g
    clip_gradients(params, max_norm)
    optimizer.step()
    return loss.detach().clone()
""",
        right=True,
    ),
]

# Of the same kind, and slower, or beyond what the gate has time for.
SPARE = {
    ("train_step", "loss of bfloat16 logits"),
    ("train_step", "clips what the scaler has scaled"),
    ("train_step", "parts not weighted"),
    ("AdamW", "decay through the gradient"),
    ("AdamW", "one count for all"),
    ("split_corpus", "shares exchanged"),
    ("split_corpus", "right: tensor.split"),
    ("get_batch", "targets are the inputs"),
    ("get_batch", "right: unfold"),
    ("cross_entropy", "sum in place of mean"),
    ("perplexity", "right: power of e"),
    ("warmup_cosine", "a quarter of a cosine"),
    ("warmup_cosine", "rises again after max_steps"),
    ("warmup_cosine", "right: sine squared"),
    ("clip_gradients", "short ones made longer"),
    ("clip_gradients", "right: foreach and clamp"),
    ("AdamW", "first group only"),
    ("AdamW", "the lr of the beginning"),
    ("train_step", "loss after the step"),
    ("train_step", "loss with its graph"),
}
EXTRA = [slip for slip in SLIPS if (slip.exercise, slip.name) in SPARE]
SLIPS = [slip for slip in SLIPS if (slip.exercise, slip.name) not in SPARE]

BATCH = """
def get_batch(tokens, batch_size, block_size, generator):
    n = len(tokens) - block_size
    if n < 1:
        raise ValueError(f"{len(tokens)} tokens are too few for block_size {block_size}")
    starts = torch.randint(n, (batch_size,), generator=generator).tolist()
    x = torch.stack([tokens[s : s + block_size] for s in starts])
    y = torch.stack([tokens[s + 1 : s + block_size + 1] for s in starts])
    return x, y
"""

LOSS = """
def cross_entropy(logits, targets):
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets {tuple(targets.shape)} do not fit {tuple(logits.shape)}")
    log_p = logits.log_softmax(dim=-1)
    return -log_p.gather(-1, targets.unsqueeze(-1)).mean()
"""

RATE = """
def warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr):
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    if step >= max_steps:
        return min_lr
    done = (step - warmup_steps) / (max_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * done)) / 2
"""

CLIP = """
def clip_gradients(params, max_norm):
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    total = torch.stack([g.norm() for g in grads]).norm()
    if total > max_norm:
        for g in grads:
            g.mul_(max_norm / total)
    return total
"""

SLIPS += [
    Slip(
        "perplexity",
        "through bits, e taken",
        "def perplexity(loss):\n    return math.exp(loss / math.log(2))",
        say=["into bits", r"exp\(loss\)"],
        never=[r"2 \*\* loss"],
    ),
    Slip(
        "clip_gradients",
        "0.0 as a float without gradients",
        swap(CLIP, "torch.tensor(0.0)", "0.0"),
        say=["Without any gradient a float"],
    ),
    Slip(
        "AdamW",
        "corrects the averages in place",
        swap(
            swap(ADAMW, 'm_hat = s["m"] / (', 'm_hat = s["m"].div_('),
            'v_hat = s["v"] / (',
            'v_hat = s["v"].div_(',
        ),
        say=["averages themselves are corrected", "without it"],
    ),
    Slip(
        "AdamW",
        "lerp_ with beta",
        swap(
            swap(ADAMW, 's["m"] = b1 * s["m"] + (1 - b1) * g', 's["m"].lerp_(g, b1)'),
            's["v"] = b2 * s["v"] + (1 - b2) * g * g',
            's["v"].lerp_(g * g, b2)',
        ),
        say=["1 - beta of what is new", "other way round"],
        never=["count of steps", "correct"],
    ),
    Slip(
        "AdamW",
        "counts the step at the end",
        swap(ADAMW, '                s["t"] += 1\n', "") + '                s["t"] += 1\n',
        say=["nan", "t is 1 at the first step"],
    ),
    Slip(
        "train_step",
        "forgets the gradients behind backward",
        swap(
            swap(STEP, "    optimizer.zero_grad()\n", ""),
            "loss.backward()",
            "loss.backward()\n    optimizer.zero_grad()",
        ),
        say=["every gradient is None or 0"],
    ),
    Slip(
        "train_step",
        "adds the parts undivided",
        swap(DOORS, " * len(y) / len(targets)", ""),
        say=["accumulate=2", "share of the mean|number of parts"],
        never=["accumulate=4"],
    ),
    Slip(
        "get_batch",
        "no window twice",
        swap(
            BATCH,
            "torch.randint(n, (batch_size,), generator=generator)",
            "torch.randperm(n, generator=generator)[:batch_size]",
        ),
        say=["any number of times"],
    ),
]

EXTRA += [
    Slip(
        "get_batch",
        "windows one after the other",
        swap(
            BATCH,
            ".tolist()",
            ".tolist()\n    starts = [(starts[0] + i) % n for i in range(len(starts))]",
        ),
        say=["1, 2, 3", "drawn by itself"],
    ),
    Slip(
        "cross_entropy",
        "as many targets, of another shape",
        swap(
            LOSS, "targets.shape != logits.shape[:-1]", "targets.numel() != logits[..., 0].numel()"
        ),
        say=["ValueError", r"\(2, 3, 1\)"],
        never=["overflow", "inf or NaN"],
    ),
    Slip(
        "cross_entropy",
        "less the largest of all logits",
        swap(
            LOSS,
            "log_p = logits.log_softmax(dim=-1)",
            "z = logits - logits.max()\n    log_p = z - z.exp().sum(dim=-1, keepdim=True).log()",
        ),
        say=["200, 200", r"0\.6931"],
    ),
    Slip(
        "cross_entropy",
        "token 0 left out",
        swap(
            LOSS,
            "    return",
            "    keep = targets != 0\n    if keep.any():\n        log_p, targets = log_p[keep], targets[keep]\n    return",
        ),
        say=["Token 0"],
    ),
    Slip(
        "cross_entropy",
        "softmax along axis 1",
        swap(LOSS, "log_softmax(dim=-1)", "log_softmax(dim=1)"),
        say=["axis 1", "last axis"],
    ),
    Slip(
        "perplexity",
        "rounded",
        "def perplexity(loss):\n    return round(math.exp(float(loss)), 2)\n",
        say=[r"1\.002", "yours is 1"],
    ),
    Slip(
        "perplexity",
        "right: the exponential of a float32",
        "def perplexity(loss):\n    return torch.tensor(float(loss)).exp().item()\n",
        right=True,
    ),
    Slip("warmup_cosine", "right: min_lr at the end in any case", RATE, right=True),
    Slip(
        "warmup_cosine",
        "right: max_lr where warm-up and end are one",
        swap(
            swap(RATE, "step >= max_steps", "step > max_steps"),
            "/ (max_steps - warmup_steps)",
            "/ max(1, max_steps - warmup_steps)",
        ),
        right=True,
    ),
    Slip(
        "clip_gradients",
        "no gradient at all",
        swap(CLIP, "    if not grads:\n        return torch.tensor(0.0)\n", ""),
        say=["non-empty", "no parameter has a gradient"],
    ),
    Slip(
        "AdamW",
        "one count for all parameters",
        swap(ADAMW, 's["t"] += 1', 's["t"] = self.t = getattr(self, "t", 0) + 1'),
        say=["count", "own"],
        never=[r"\blr\b"],
    ),
    Slip(
        "AdamW",
        "weight_decay of the defaults",
        swap(ADAMW, 'group["weight_decay"]', 'self.defaults["weight_decay"]'),
        say=["weight_decay", "param_groups"],
    ),
    Slip(
        "AdamW",
        "decay after the move",
        swap(
            ADAMW,
            "                p.mul_(1 - lr * wd)\n                p.sub_(lr * m_hat / (v_hat.sqrt() + eps))\n",
            "                p.sub_(lr * m_hat / (v_hat.sqrt() + eps))\n                p.mul_(1 - lr * wd)\n",
        ),
        say=["decay", r"3\.9"],
    ),
    Slip(
        "AdamW",
        "squares in float32",
        swap(
            ADAMW,
            "torch.zeros_like(p), torch.zeros_like(p)\n",
            "torch.zeros_like(p), torch.zeros(p.shape)\n",
        ).replace(
            's["v"] = b2 * s["v"] + (1 - b2) * g * g', 's["v"].mul_(b2).add_((1 - b2) * g * g)'
        ),
        say=["float32", "dtype"],
    ),
    Slip(
        "AdamW",
        "betas exchanged",
        swap(ADAMW, "(b1, b2), eps", "(b2, b1), eps"),
        say=["exchanged"],
    ),
    Slip(
        "AdamW",
        "vectors do not decay",
        swap(ADAMW, "1 - lr * wd", "1 - lr * wd * (p.dim() > 1)"),
        say=["groups", "vector"],
        never=["averages"],
    ),
    Slip(
        "train_step",
        "gradients forgotten between the parts",
        swap(
            swap(DOORS, "    optimizer.zero_grad()\n", ""),
            "        with torch.autocast",
            "        optimizer.zero_grad()\n        with torch.autocast",
        ),
        say=["last part alone"],
        never=["share of the mean", r"0\.0500"],
    ),
    Slip(
        "train_step",
        "each part clipped",
        swap(
            DOORS,
            "            loss.backward()\n",
            "            loss.backward()\n            clip_gradients(model.parameters(), max_norm)\n",
        ),
        say=["clipped one time"],
        never=["share of the mean", r"0\.0500"],
    ),
    Slip(
        "train_step",
        "evaluation mode in the end",
        swap(DOORS, "    return total", "    model.eval()\n    return total"),
        say=["After the step", "training mode"],
        never=["dropout", "comes in"],
    ),
    Slip(
        "train_step",
        "clips the first group alone",
        swap(
            DOORS,
            "clip_gradients(model.parameters(), max_norm)",
            'clip_gradients(optimizer.param_groups[0]["params"], max_norm)',
        ),
        say=["two groups", "all parameters"],
    ),
    Slip(
        "split_corpus",
        "right: two in a list",
        """
def split_corpus(tokens, val_fraction=0.1):
    if not 0 < val_fraction < 1:
        raise ValueError("val_fraction")
    cut = int(len(tokens) * (1 - val_fraction))
    return [tokens[:cut], tokens[cut:]]
""",
        right=True,
    ),
    Slip(
        "get_batch",
        "the text is written to",
        swap(BATCH, "    return x, y", "    tokens[0] = 0\n    return x, y"),
        say=["changed in place"],
    ),
    Slip(
        "cross_entropy",
        "in bits",
        swap(LOSS, ".mean()", ".mean() / math.log(2)"),
        say=["1 / ln 2"],
    ),
    Slip(
        "cross_entropy",
        "without its graph",
        swap(LOSS, "logits.log_softmax", "logits.detach().log_softmax"),
        say=["no graph", "detach"],
    ),
    Slip(
        "clip_gradients",
        "None becomes zeros",
        swap(
            CLIP,
            "    grads =",
            "    params = list(params)\n    for p in params:\n        if p.grad is None:\n            p.grad = torch.zeros_like(p)\n    grads =",
        ),
        say=["None", "rest"],
    ),
    Slip(
        "clip_gradients",
        "names bound anew",
        swap(
            CLIP,
            "        for g in grads:\n            g.mul_(max_norm / total)\n",
            "        grads = [g * max_norm / total for g in grads]\n",
        ),
        say=["what they were"],
    ),
    Slip(
        "AdamW",
        "a name bound anew",
        swap(
            ADAMW,
            "p.sub_(lr * m_hat / (v_hat.sqrt() + eps))",
            "p = p - lr * m_hat / (v_hat.sqrt() + eps)",
        ),
        say=["by 0", "in place"],
        never=["averages start"],
    ),
    Slip(
        "AdamW",
        "up the gradient",
        swap(ADAMW, "p.sub_(", "p.add_("),
        say=["by 0.1", "be -0.1", "down the gradient"],
        never=["averages start"],
    ),
    Slip(
        "AdamW",
        "both averages corrected by the second beta",
        swap(ADAMW, '(1 - b1 ** s["t"])', '(1 - b2 ** s["t"])'),
        say=["own beta"],
    ),
    Slip(
        "train_step",
        "two steps",
        swap(
            DOORS,
            "        optimizer.step()\n",
            "        optimizer.step()\n        optimizer.step()\n",
        ),
        say=["2 times"],
        never=["longer than max_norm"],
    ),
    Slip(
        "train_step",
        "a step for each part",
        swap(
            swap(
                DOORS,
                "        total += loss.detach()\n",
                "        total += loss.detach()\n        if scaler is None:\n            clip_gradients(model.parameters(), max_norm)\n            optimizer.step()\n",
            ),
            "    if scaler is None:\n        optimizer.step()\n    else:\n",
            "    if scaler is not None:\n",
        ),
        say=["4 steps"],
    ),
    Slip(
        "train_step",
        "parts along the positions",
        swap(
            swap(DOORS, "inputs.chunk(accumulate)", "inputs.chunk(accumulate, dim=1)"),
            "targets.chunk(accumulate)",
            "targets.chunk(accumulate, dim=1)",
        ).replace("len(y) / len(targets)", "y.numel() / targets.numel()"),
        say=[r"\[4, 4, 4, 4\]"],
    ),
    Slip(
        "train_step",
        "the scaler is not updated",
        swap(DOORS, "        scaler.update()\n", ""),
        say=["scale should be lowered"],
        never=["moved the weights"],
    ),
    Slip(
        "train_step",
        "the optimizer steps past the scaler",
        swap(DOORS, "scaler.step(optimizer)", "optimizer.step()"),
        say=["moved the weights"],
        never=["scale should be lowered"],
    ),
]

EXTRA += [
    Slip(
        "AdamW",
        "the count is no power",
        swap(swap(ADAMW, 'b1 ** s["t"]', "b1"), 'b2 ** s["t"]', "b2"),
        say=["0.9² = 0.19"],
        never=["stay too small"],
    ),
    Slip(
        "AdamW",
        "squares of the average",
        swap(ADAMW, "(1 - b2) * g * g", '(1 - b2) * s["m"] * s["m"]'),
        say=["g · g"],
        never=["other way round"],
    ),
    Slip("AdamW", "no root", swap(ADAMW, "v_hat.sqrt()", "v_hat"), say=["root"]),
    Slip(
        "clip_gradients",
        "the sum of the lengths",
        swap(CLIP, "torch.stack([g.norm() for g in grads]).norm()", "sum(g.norm() for g in grads)"),
        say=["the sum of their lengths"],
    ),
    Slip(
        "cross_entropy",
        "the mean over the batch alone",
        swap(LOSS, ".mean()", ".sum() / max(1, len(targets) if targets.dim() else 1)"),
        say=["3 times as large: as many as a row has"],
    ),
]
