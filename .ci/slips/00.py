from slip import Slip

SLIPS = [
    # ---- add_position_bias
    Slip(
        "add_position_bias",
        "in place",
        """
def add_position_bias(x, bias):
    if bias.shape != x.shape[1:]:
        raise ValueError(f"bias must be {tuple(x.shape[1:])}, is {tuple(bias.shape)}")
    x += bias
    return x
""",
        say=[r"in.?place|argument|caller|as it was|chang\w+ .{0,20}x\b|writes? into|overwrit"],
        never=[r"stretch", r"numbers are wrong"],
    ),
    Slip(
        "add_position_bias",
        "no check of the shape",
        """
def add_position_bias(x, bias):
    return x + bias
""",
        say=[r"ValueError", r"shape|stretch|broadcast"],
        never=[r"in.?place"],
    ),
    Slip(
        "add_position_bias",
        "assert for ValueError",
        """
def add_position_bias(x, bias):
    B, T, d_model = x.shape
    assert bias.shape == (T, d_model), f"bias should be ({T}, {d_model})"
    return x + bias[None, :, :]
""",
        say=[r"ValueError", r"AssertionError|assert"],
        never=[
            r"without a word",
            r"nothing (is|was) raised|raises nothing|does not raise|accepts?",
            r"in.?place",
        ],
    ),
    Slip(
        "add_position_bias",
        "checks the width only",
        """
def add_position_bias(x, bias):
    if bias.size(-1) != x.size(-1):
        raise ValueError(f"bias must have {x.size(-1)} features")
    return x + bias
""",
        say=[r"ValueError", r"shape|\(1, |stretch|broadcast"],
        never=[r"in.?place", r"never raise|no ValueError at all"],
    ),
    Slip(
        "add_position_bias",
        "expand_as, right",
        """
def add_position_bias(x, bias):
    wanted = list(x.shape)[1:]
    if list(bias.shape) != wanted:
        raise ValueError("bias: expected %s, got %s" % (wanted, list(bias.shape)))
    return torch.stack((x, bias.expand_as(x))).sum(dim=0)
""",
        right=True,
    ),
    # ---- pairwise_dots
    Slip(
        "pairwise_dots",
        "k.T",
        """
def pairwise_dots(q, k):
    return torch.matmul(q, k.T)
""",
        say=[r"\.T\b|last two|leading|batch|all (its )?axes|mT\b|transpos"],
        never=[
            r"reshape",
            r"elementwise",
            r"(no|wrong|without|missing|times|divid\w+) .{0,12}(scale|root|sqrt)",
        ],
    ),
    Slip(
        "pairwise_dots",
        "view for a transpose",
        """
def pairwise_dots(q, k):
    *lead, S, d_k = k.shape
    keys = k.contiguous().view(*lead, d_k, S)
    return q @ keys
""",
        say=[r"reshape|view", r"transpos|exchang|mix"],
        never=[
            r"(no|wrong|without|missing|times|divid\w+) .{0,12}(scale|root|sqrt)",
            r"elementwise",
        ],
    ),
    Slip(
        "pairwise_dots",
        "einsum for three axes",
        """
def pairwise_dots(q, k):
    return torch.einsum("btd,bsd->bts", q, k)
""",
        say=[r"leading|axes|axis|dimensions|subscripts|2-?D|3-?D"],
        never=[r"reshape", r"transpos", r"numbers are wrong"],
    ),
    # ---- fold_batch_time
    Slip(
        "fold_batch_time",
        "time before batch",
        """
def fold_batch_time(x):
    B, T, V = x.shape
    return x.permute(1, 0, 2).reshape(T * B, V)
""",
        say=[
            r"order|sequence after sequence|transpos|permut|position by position|rows|T before B|axes"
        ],
        never=[r"mix\w* (several )?(features|scores)", r"in.?place"],
    ),
    Slip(
        "fold_batch_time",
        "flatten without axes",
        """
def fold_batch_time(x):
    return x.flatten()
""",
        say=[r"shape|axis|axes|flatten"],
        never=[r"order", r"transpos"],
    ),
    Slip(
        "fold_batch_time",
        "a list of lists",
        """
def fold_batch_time(x):
    rows = []
    for sequence in x:
        rows.extend(sequence.tolist())
    return rows
""",
        say=[r"list", r"tensor"],
        never=[r"order|transpos|reshape"],
    ),
    Slip(
        "fold_batch_time",
        "unbind and cat, right",
        """
def fold_batch_time(x):
    return torch.cat(x.unbind(dim=0), dim=0)
""",
        right=True,
    ),
    # ---- shift_targets
    Slip(
        "shift_targets",
        "len counts the rows",
        """
def shift_targets(tokens):
    if len(tokens) < 2:
        raise ValueError("at least two tokens, please")
    x = tokens[:, :-1]
    y = tokens[:, 1:]
    return x, y
""",
        say=[r"len\(|rows|column|batch of one|one (row|sequence)|size\(1\)|shape\[1\]|axis"],
        never=[r"shifted|backward|roll"],
    ),
    Slip(
        "shift_targets",
        "off by one in the check",
        """
def shift_targets(tokens):
    B, n = tokens.shape
    if n <= 2:
        raise ValueError(f"need more than {n} columns")
    return tokens[:, : n - 1], tokens[:, 1:n]
""",
        say=[r"ValueError|rais|refus", r"2 columns|two columns|\b2\b|two|T = 1|exactly"],
        never=[r"does not (raise|refuse)|nothing (is|was) raised|accepts?\b", r"shifted|backward"],
    ),
    Slip(
        "shift_targets",
        "targets two ahead",
        """
def shift_targets(tokens):
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(f"need (B, T + 1) with T >= 1, got {tuple(tokens.shape)}")
    return tokens[:, :-2], tokens[:, 2:]
""",
        say=[r"next|one|two|column|shape|size|too short|axis|T\b"],
        never=[r"roll|wrap", r"other way|backward", r"are the inputs"],
    ),
    Slip(
        "shift_targets",
        "windows of two, right",
        """
def shift_targets(tokens):
    B, columns = tokens.shape
    if columns < 2:
        raise ValueError("shift_targets needs 2 columns or more")
    pairs = tokens.unfold(1, 2, 1)  # (B, T, 2)
    inputs, targets = pairs.unbind(dim=-1)
    return inputs, targets
""",
        right=True,
    ),
    Slip(
        "shift_targets",
        "targets in float",
        """
def shift_targets(tokens):
    if tokens.size(1) < 2:
        raise ValueError("two columns at least")
    return tokens[:, :-1], tokens[:, 1:].float()
""",
        say=[r"float32", r"int64"],
        never=[r"float64 went in", r"Models are trained"],
    ),
    # ---- pick_scores
    Slip(
        "pick_scores",
        "axis left behind",
        """
def pick_scores(logits, targets):
    index = targets[:, :, None]
    return torch.gather(logits, 2, index)
""",
        say=[r"squeeze|axis|\(B, T, 1\)|shape|too many"],
        never=[r"log.?(softmax|prob)", r"vocab_size too"],
    ),
    Slip(
        "pick_scores",
        "log-probabilities",
        """
import torch.nn.functional as F


def pick_scores(logits, targets):
    logp = F.log_softmax(logits, dim=-1)
    return logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
""",
        say=[r"log|softmax|normali[sz]|probabilit"],
        never=[r"axis", r"wrong token"],
    ),
    Slip(
        "pick_scores",
        "squeeze without an axis",
        """
def pick_scores(logits, targets):
    picked = logits.gather(dim=-1, index=targets.unsqueeze(-1))
    return picked.squeeze()
""",
        say=[r"squeeze|axis|axes|B = 1|T = 1|shape|too few"],
        never=[r"left behind|stays behind", r"log.?(softmax|prob)", r"numbers are wrong"],
    ),
    Slip(
        "pick_scores",
        "gather with two axes",
        """
def pick_scores(logits, targets):
    return torch.gather(logits, -1, targets)
""",
        say=[r"dimension|axes|axis|unsqueeze"],
        never=[
            r"log.?(softmax|prob)",
            r"(wrong|other|another|keeps?|lose\w*|chang\w+) .{0,12}dtype",
        ],
    ),
    Slip(
        "pick_scores",
        "flatten and index, right",
        """
def pick_scores(logits, targets):
    rows = logits.reshape(-1, logits.size(-1))
    n = torch.arange(rows.size(0), device=rows.device)
    return rows[n, targets.reshape(-1)].view(targets.shape)
""",
        right=True,
    ),
    Slip(
        "pick_scores",
        "one-hot product",
        """
def pick_scores(logits, targets):
    one_hot = torch.nn.functional.one_hot(targets, logits.size(-1))
    return (logits * one_hot).sum(dim=-1)
""",
        say=[r"-?inf", r"nan"],
        never=[r"squeeze", r"dtype"],
    ),
    Slip(
        "pick_scores",
        "one-hot in float32",
        """
def pick_scores(logits, targets):
    one_hot = torch.nn.functional.one_hot(targets, logits.size(-1)).float()
    return (logits.nan_to_num() * one_hot).sum(dim=-1)
""",
        say=[r"float32|dtype|inf"],
        never=[r"squeeze"],
    ),
    # ---- Linear
    Slip(
        "Linear",
        "weight transposed",
        """
class Linear(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        k = d_in**-0.5
        self.weight = nn.Parameter((2 * torch.rand(d_in, d_out) - 1) * k)
        self.bias = nn.Parameter((2 * torch.rand(d_out) - 1) * k)

    def forward(self, x):
        return x @ self.weight + self.bias
""",
        say=[r"d_out, d_in|transpos|axes|shape|swap|row per output"],
        never=[r"variance", r"uniform", r"nn\.Parameter"],
    ),
    Slip(
        "Linear",
        "bias starts at zero",
        """
class Linear(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        bound = 1 / d_in**0.5
        self.weight = nn.Parameter(torch.empty(d_out, d_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x):
        return x @ self.weight.T + self.bias
""",
        say=[r"bias", r"uniform|zero|\b0\b|start"],
        never=[
            r"weights? (start|has|have).{0,20}variance",
            r"forward.{0,30}(forget|leaves out|without)",
        ],
    ),
    Slip(
        "Linear",
        "bound from d_out",
        """
class Linear(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.empty(d_out))
        for p in (self.weight, self.bias):
            nn.init.uniform_(p, -(d_out**-0.5), d_out**-0.5)

    def forward(self, x):
        return torch.matmul(x, self.weight.t()) + self.bias
""",
        say=[r"d_in|d_out|bound|too (large|small|wide|narrow)|range"],
        never=[r"variance 1\b", r"normal", r"transpos"],
    ),
    Slip(
        "Linear",
        "plain tensors",
        """
class Linear(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        bound = d_in**-0.5
        self.weight = torch.empty(d_out, d_in).uniform_(-bound, bound).requires_grad_()
        self.bias = torch.empty(d_out).uniform_(-bound, bound).requires_grad_()

    def forward(self, x):
        return x @ self.weight.T + self.bias
""",
        say=[r"Parameter|parameters\(\)|regist"],
        never=[r"variance", r"transpos", r"gets? no gradient"],
    ),
    Slip(
        "Linear",
        "weight.data",
        """
class Linear(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        b = d_in**-0.5
        self.weight = nn.Parameter((2 * torch.rand(d_out, d_in) - 1) * b)
        self.bias = nn.Parameter((2 * torch.rand(d_out) - 1) * b)

    def forward(self, x):
        return x @ self.weight.data.T + self.bias
""",
        say=[r"weight", r"gradient", r"\.data"],
        never=[r"numbers are wrong"],
    ),
    # ---- sgd_step
    Slip(
        "sgd_step",
        "no no_grad",
        """
def sgd_step(params, lr):
    for p in params:
        if p.grad is not None:
            p -= lr * p.grad
""",
        say=[r"no_grad|leaf"],
        never=[r"rebind|new tensor", r"sign|up the gradient"],
    ),
    Slip(
        "sgd_step",
        "rebinds the name",
        """
def sgd_step(params, lr):
    with torch.no_grad():
        for param in params:
            if param.grad is None:
                continue
            param = param - lr * param.grad
""",
        say=[r"in.?place|rebind|new tensor|same tensor|name"],
        never=[r"no_grad", r"sign|up the gradient"],
    ),
    Slip(
        "sgd_step",
        "returns at the first None",
        """
@torch.no_grad()
def sgd_step(params, lr):
    for p in params:
        if p.grad is None:
            return
        p.add_(p.grad, alpha=-lr)
""",
        say=[r"None", r"skip|continue|other|next|rest|after|follow|every|stop|still"],
        never=[r"rebind|new tensor", r"sign|up the gradient"],
    ),
    Slip(
        "sgd_step",
        "gradients reset",
        """
def sgd_step(params, lr):
    with torch.no_grad():
        for p in params:
            if p.grad is None:
                continue
            p -= lr * p.grad
            p.grad.zero_()
""",
        say=[r"grad", r"left|zero|reset|clear|as (they|it)|keep|chang"],
        never=[r"rebind|new tensor", r"sign|up the gradient", r"None"],
    ),
    Slip(
        "sgd_step",
        "data and a list, right",
        """
def sgd_step(params, lr):
    moving = [p for p in params if p.grad is not None]
    for p in moving:
        p.data.add_(p.grad.detach(), alpha=-lr)
""",
        right=True,
    ),
    Slip(
        "sgd_step",
        "walks through params twice",
        """
def sgd_step(params, lr):
    grads = [p.grad for p in params]
    with torch.no_grad():
        for p, g in zip(params, grads):
            if g is not None:
                p -= lr * g
""",
        say=[r"generator|parameters\(\)"],
        never=[r"makes a new one", r"None for a gradient"],
    ),
    Slip(
        "sgd_step",
        "resets the gradient",
        """
@torch.no_grad()
def sgd_step(params, lr):
    for p in params:
        if p.grad is not None:
            p -= lr * p.grad
            p.grad = None
""",
        say=[r"gradient"],
        never=[r"generator"],
    ),
    Slip(
        "sgd_step",
        "lets go of the parameter",
        """
@torch.no_grad()
def sgd_step(params, lr):
    for p in params:
        if p.grad is not None:
            p.requires_grad_(False)
            p -= lr * p.grad
""",
        say=[r"requires_grad"],
        never=[r"generator"],
    ),
]

EXTRA = [
    Slip(
        "sgd_step",
        "no_grad called without with",
        """
def sgd_step(params, lr):
    torch.no_grad()
    for p in params:
        if p.grad is not None:
            p -= lr * p.grad
""",
        say=[r"with torch.no_grad", r"no effect"],
        never=[r"generator"],
    ),
]
