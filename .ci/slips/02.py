from slip import Slip

# Two right ways to write the long one; each slip below changes one of them, or is written out.
PLAIN = """
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0, causal=True):
        super().__init__()
        if d_model % n_heads != 0:
            raise ValueError(f"{n_heads} heads do not divide d_model = {d_model}")
        self.n_heads = n_heads
        self.causal = causal
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, return_weights=False, rotate=None, remember=None):
        q = split_heads(self.q_proj(x), self.n_heads)
        k = split_heads(self.k_proj(x), self.n_heads)
        v = split_heads(self.v_proj(x), self.n_heads)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        if remember is not None:
            k, v = remember(k, v)
        T, S = q.size(2), k.size(2)
        mask = causal_mask(S, x.device)[S - T :] if self.causal else None
        _, weights = scaled_dot_product_attention(q, k, v, mask)
        heads = self.dropout(weights) @ v
        out = self.dropout(self.out_proj(merge_heads(heads)))
        if return_weights:
            return out, weights
        return out
"""

OWN = """
import math


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0, causal=True):
        super().__init__()
        if d_model % n_heads:
            raise ValueError("n_heads must divide d_model")
        self.h, self.d_head, self.causal = n_heads, d_model // n_heads, causal
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(d_model, d_model) for _ in range(4)
        )
        self.attn_drop, self.out_drop = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x, return_weights=False, rotate=None, remember=None):
        B, T, C = x.shape
        q = self.q_proj(x).view(B, T, self.h, self.d_head).transpose(1, 2)
        k = self.k_proj(x).view(B, T, self.h, self.d_head).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.h, self.d_head).transpose(1, 2)
        if rotate:
            q = rotate(q)
            k = rotate(k)
        if remember:
            k, v = remember(k, v)
        S = k.size(-2)
        att = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(self.d_head)
        if self.causal:
            att = att.masked_fill(~causal_mask(S, device=x.device)[-T:], -math.inf)
        att = att.softmax(dim=-1)
        y = self.attn_drop(att) @ v
        y = y.transpose(1, 2).reshape(B, T, C)
        y = self.out_drop(self.out_proj(y))
        return (y, att) if return_weights else y
"""


def but(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


SLIPS = [
    # ---- split_heads
    Slip(
        "split_heads",
        "every n_heads-th feature",
        """
def split_heads(x, n_heads):
    B, T, d_model = x.shape
    x = x.view(B, T, d_model // n_heads, n_heads)
    return x.permute(0, 3, 1, 2)
""",
        say=[r"slice|every|interleav|-th feature|contiguous features"],
        never=[r"positions get mixed|mix\w* positions", r"axes .{0,30}swapped"],
    ),
    Slip(
        "split_heads",
        "float width",
        """
def split_heads(x, n_heads):
    B, T, d_model = x.shape
    d_head = d_model / n_heads
    return x.view(B, T, n_heads, d_head).transpose(1, 2)
""",
        say=[r"//|float|integer|\bint\b"],
        never=[
            r"positions get mixed",
            r"contiguous",
            r"(wrong|other|another|keeps?|lose\w*|chang\w+) .{0,12}dtype",
        ],
    ),
    Slip(
        "split_heads",
        "chunk and stack, right",
        """
def split_heads(x, n_heads):
    d_head = x.size(-1) // n_heads
    return torch.stack([x[..., h * d_head : (h + 1) * d_head] for h in range(n_heads)], dim=1)
""",
        right=True,
    ),
    # ---- merge_heads
    Slip(
        "merge_heads",
        "bare reshape",
        """
def merge_heads(x):
    B, H, T, d = x.shape
    return x.reshape(B, T, H * d)
""",
        say=[r"reshap|view", r"position|transpos|mix|axis|order"],
        never=[r"interleav", r"contiguous"],
    ),
    Slip(
        "merge_heads",
        "view after transpose",
        """
def merge_heads(x):
    B, n_heads, T, d_head = x.shape
    return x.transpose(1, 2).view(B, T, n_heads * d_head)
""",
        say=[r"contiguous|reshape|flatten|stride|memory"],
        never=[r"positions? (get|are) mixed", r"interleav", r"numbers are wrong"],
    ),
    Slip(
        "merge_heads",
        "interleaved",
        """
def merge_heads(x):
    return x.permute(0, 2, 3, 1).flatten(start_dim=2)
""",
        say=[
            r"interleav|slice|side by side|next to each other|every|order of the features|head.{0,30}feature"
        ],
        never=[r"positions? (get|are) mixed|mix\w* positions", r"contiguous"],
    ),
    Slip(
        "merge_heads",
        "flattens too much",
        """
def merge_heads(x):
    x = x.transpose(1, 2)
    return x.flatten(1)
""",
        say=[r"axis|axes|shape|\(B, T"],
        never=[r"interleav", r"transpose is missing|mix"],
    ),
    # ---- MultiHeadAttention
    Slip(
        "MultiHeadAttention",
        "no dropout on the output",
        but(
            PLAIN,
            "self.dropout(self.out_proj(merge_heads(heads)))",
            "self.out_proj(merge_heads(heads))",
        ),
        say=[r"dropout", r"output"],
        never=[r"never used|not used at all", r"training=True|in eval", r"forget.{0,20}weights"],
    ),
    Slip(
        "MultiHeadAttention",
        "dropout before out_proj",
        but(OWN, "self.out_drop(self.out_proj(y))", "self.out_proj(self.out_drop(y))"),
        say=[r"dropout", r"out_proj|output|last|after"],
        never=[
            r"never used",
            r"in evaluation",
            r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask",
        ],
    ),
    Slip(
        "MultiHeadAttention",
        "F.dropout in evaluation",
        "\nimport torch.nn.functional as F\n"
        + but(
            but(
                but(PLAIN, "self.dropout = nn.Dropout(dropout)", "self.p = dropout"),
                "self.dropout(weights) @ v",
                "F.dropout(weights, self.p) @ v",
            ),
            "self.dropout(self.out_proj(merge_heads(heads)))",
            "F.dropout(self.out_proj(merge_heads(heads)), self.p)",
        ),
        say=[r"eval|training"],
        never=[
            r"never used",
            r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask",
            r"before out_proj",
        ],
    ),
    Slip(
        "MultiHeadAttention",
        "weights returned after dropout",
        but(
            PLAIN,
            "heads = self.dropout(weights) @ v",
            "weights = self.dropout(weights)\n        heads = weights @ v",
        ),
        say=[r"dropout", r"weights"],
        never=[r"after the softmax", r"twice", r"never used"],
    ),
    Slip(
        "MultiHeadAttention",
        "no ValueError",
        but(
            PLAIN,
            '        if d_model % n_heads != 0:\n            raise ValueError(f"{n_heads} heads do not divide d_model = {d_model}")\n',
            "",
        ),
        say=[r"ValueError", r"divi|multiple|heads"],
        never=[r"numbers are wrong", r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask"],
    ),
    Slip(
        "MultiHeadAttention",
        "always causal",
        but(OWN, "        if self.causal:\n            att = att", "        att = att"),
        say=[r"causal"],
        never=[r"no mask|mask is missing|forget\w* the mask", r"leak|sees? the future"],
    ),
    Slip(
        "MultiHeadAttention",
        "remember before rotate",
        but(
            PLAIN,
            "        if rotate is not None:\n            q, k = rotate(q), rotate(k)\n        if remember is not None:\n            k, v = remember(k, v)\n",
            "        if remember is not None:\n            k, v = remember(k, v)\n        if rotate is not None:\n            q, k = rotate(q), rotate(k)\n",
        ),
        say=[r"remember", r"before|order|first|after|turn"],
        never=[
            r"result.{0,20}not used",
            r"last T rows",
            r"values (are |get )?turn\w*|turns? (the )?values",
        ],
    ),
    Slip(
        "MultiHeadAttention",
        "mask of the first T",
        but(OWN, "causal_mask(S, device=x.device)[-T:]", "causal_mask(S, device=x.device)[:T]"),
        say=[r"last|newest|new queries|first"],
        never=[r"before they (turn|meet)|before rotate", r"result.{0,20}not used", r"transpos"],
    ),
    Slip(
        "MultiHeadAttention",
        "loop over the heads, right",
        """
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0, causal=True):
        super().__init__()
        self.d_head, rest = divmod(d_model, n_heads)
        if rest:
            raise ValueError(f"d_model={d_model} is no multiple of n_heads={n_heads}")
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(d_model, d_model))
        self.causal, self.p = causal, dropout

    def forward(self, x, return_weights=False, rotate=None, remember=None):
        q, k, v = (
            torch.stack(p(x).split(self.d_head, dim=-1), dim=1)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotate:
            q, k = map(rotate, (q, k))
        if remember:
            k, v = remember(k, v)
        T, S = q.shape[2], k.shape[2]
        mask = causal_mask(S, x.device).narrow(0, S - T, T) if self.causal else None
        outs, maps = [], []
        for h in range(q.shape[1]):
            _, w = scaled_dot_product_attention(q[:, h], k[:, h], v[:, h], mask)
            maps.append(w)
            outs.append(nn.functional.dropout(w, self.p, self.training) @ v[:, h])
        out = self.out_proj(torch.cat(outs, dim=-1))
        out = nn.functional.dropout(out, self.p, self.training)
        return (out, torch.stack(maps, dim=1)) if return_weights else out
""",
        right=True,
    ),
    Slip(
        "MultiHeadAttention",
        "weights returned without a graph",
        but(PLAIN, "return out, weights", "return out, weights.detach()"),
        say=[r"detach|graph|gradient", r"weights"],
        never=[r"dropout"],
    ),
    Slip(
        "MultiHeadAttention",
        "rotate exchanges queries and keys",
        but(PLAIN, "q, k = rotate(q), rotate(k)", "q, k = rotate(k), rotate(q)"),
        say=[r"quer(y|ies)", r"keys"],
        never=[r"should be turned by `rotate` already", r"turned? (afterwards|twice)"],
    ),
    Slip(
        "MultiHeadAttention",
        "remember is given the values first",
        but(PLAIN, "k, v = remember(k, v)", "v, k = remember(v, k)"),
        say=[r"values", r"keys"],
        never=[r"should be turned by `rotate` already", r"does not call|result.{0,20}not used"],
    ),
    Slip(
        "MultiHeadAttention",
        "queries from a detached x",
        but(
            PLAIN,
            "split_heads(self.q_proj(x), self.n_heads)",
            "split_heads(self.q_proj(x.detach()), self.n_heads)",
        ),
        say=[r"gradient", r"detach|graph|cut"],
        never=[r"numbers are wrong"],
    ),
    # ---- attention_entropy
    Slip(
        "attention_entropy",
        "nan at zeros",
        """
def attention_entropy(weights):
    return -(weights * weights.log()).sum(dim=-1)
""",
        say=[r"nan|0 \* log|0 ln 0|log\(0\)|zero"],
        never=[r"log2|\bbits\b", r"averag|mean"],
    ),
    Slip(
        "attention_entropy",
        "a small constant in the log",
        """
def attention_entropy(weights):
    eps = 1e-5
    return -torch.einsum("...s,...s->...", weights, torch.log(weights + eps))
""",
        say=[r"1e-0?5|eps|constant|small|added|adds|inside the log|close|xlogy"],
        never=[r"nan\b", r"log2|\bbits\b", r"averag|mean"],
    ),
    Slip(
        "attention_entropy",
        "zeros replaced in the argument",
        """
def attention_entropy(weights):
    weights[weights == 0] = 1.0
    return -(weights * torch.log(weights)).sum(-1)
""",
        say=[
            r"in.?place|argument|caller|chang\w+ .{0,20}weights|writes? into|as (they|it) w(as|ere)"
        ],
        never=[r"nan\b", r"log2|\bbits\b", r"averag|mean"],
    ),
    Slip(
        "attention_entropy",
        "entr, right",
        """
def attention_entropy(weights):
    return torch.special.entr(weights).sum(dim=-1)
""",
        right=True,
    ),
    Slip(
        "attention_entropy",
        "1e-9 in the logarithm",
        """
def attention_entropy(weights):
    return -(weights * (weights + 1e-9).log()).sum(dim=-1)
""",
        say=[r"float16", r"nan"],
        never=[r"averag|mean\b", r"\bbits\b"],
    ),
    Slip(
        "attention_entropy",
        "1e-5 in the logarithm",
        """
def attention_entropy(weights):
    return -(weights * (weights + 1e-5).log()).sum(dim=-1)
""",
        say=[r"added|1e-0?5|something else|xlogy"],
        never=[r"nothing of the input", r"\bbits\b"],
    ),
    Slip(
        "attention_entropy",
        "logarithms where the mask is, right",
        """
def attention_entropy(weights):
    logs = torch.zeros_like(weights)
    logs[weights > 0] = weights[weights > 0].log()
    return -(weights * logs).sum(dim=-1)
""",
        right=True,
    ),
    Slip(
        "attention_entropy",
        "logarithms in float32",
        """
def attention_entropy(weights):
    logs = torch.zeros(weights.shape)
    logs[weights > 0] = torch.log(weights[weights > 0]).float()
    return -(weights * logs).sum(dim=-1)
""",
        say=[r"float32|dtype"],
        never=[r"nonzero|fx\.experimental"],
    ),
]

EXTRA = [
    Slip(
        "MultiHeadAttention",
        "dropout of its own",
        but(PLAIN, "nn.Dropout(dropout)", "nn.Dropout(0.1)"),
        say=[r"dropout", r"two calls|chance|random"],
        never=[r"future", r"positions 4", r"nothing has dropped"],
    ),
    Slip(
        "MultiHeadAttention",
        "scaled by the width of the model",
        but(
            OWN,
            'att = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(self.d_head)',
            "att = q @ k.mT / self.out_proj.in_features**0.5",
        ),
        say=[r"d_model", r"d_head|head.s width"],
        never=[r"not scaled"],
    ),
    Slip(
        "MultiHeadAttention",
        "softmax over the heads",
        but(OWN, "att.softmax(dim=-1)", "att.softmax(dim=1)"),
        say=[r"nan|softmax|heads", r"dim|axis|softmax"],
        never=[r"positions 4 and 5", r"future"],
    ),
    Slip(
        "MultiHeadAttention",
        "scaled twice",
        but(PLAIN, "(q, k, v, mask)", "(q / q.size(-1) ** 0.5, k, v, mask)"),
        say=[r"twice"],
        never=[r"d_model"],
    ),
    Slip(
        "MultiHeadAttention",
        "softmax over the queries",
        but(OWN, "att.softmax(dim=-1)", "att.softmax(dim=-2)"),
        say=[r"queries", r"dim=-1"],
        never=[r"future", r"positions 4"],
    ),
    Slip(
        "MultiHeadAttention",
        "heads merged by a bare reshape",
        but(PLAIN, "merge_heads(heads)", "heads.reshape(x.shape)"),
        say=[r"numbers|reshape"],
        never=[r"future", r"positions 4"],
    ),
    Slip(
        "MultiHeadAttention",
        "residual added",
        but(
            PLAIN,
            "out = self.dropout(self.out_proj(merge_heads(heads)))",
            "out = x + self.dropout(self.out_proj(merge_heads(heads)))",
        ),
        say=[r"numbers"],
        never=[r"features of one head", r"positions 4"],
    ),
    Slip(
        "MultiHeadAttention",
        "refuses only more heads than features",
        but(PLAIN, "d_model % n_heads != 0", "n_heads > d_model"),
        say=[r"ValueError", r"divide"],
        never=[r"DID NOT RAISE"],
    ),
    Slip(
        "attention_entropy",
        "no minus",
        """
def attention_entropy(weights):
    return torch.xlogy(weights, weights).sum(-1)
""",
        say=[r"sign"],
        never=[r"nothing of the input"],
    ),
    Slip(
        "attention_entropy",
        "constant logarithms",
        """
def attention_entropy(weights):
    logs = torch.where(weights > 0, weights, 1.0).detach().log()
    return -(weights * logs).sum(-1)
""",
        say=[r"gradient", r"detach"],
        never=[r"nan"],
    ),
    Slip(
        "split_heads",
        "split(n_heads) is a size",
        """
def split_heads(x, n_heads):
    return torch.stack(x.split(n_heads, dim=-1), dim=1)
""",
        say=[r"n_heads features wide"],
        never=[r"swapped"],
    ),
    Slip(
        "MultiHeadAttention",
        "rotates before the split",
        but(
            PLAIN,
            """        q = split_heads(self.q_proj(x), self.n_heads)
        k = split_heads(self.k_proj(x), self.n_heads)
        v = split_heads(self.v_proj(x), self.n_heads)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
""",
            """        q, k = self.q_proj(x), self.k_proj(x)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        q, k = split_heads(q, self.n_heads), split_heads(k, self.n_heads)
        v = split_heads(self.v_proj(x), self.n_heads)
""",
        ),
        say=[r"given a tensor \(2, 5, 16\)"],
        never=[r"remember"],
    ),
    Slip(
        "MultiHeadAttention",
        "turns x before projecting",
        but(
            PLAIN,
            """        if rotate is not None:
            q, k = rotate(q), rotate(k)
""",
            """        if rotate is not None:
            q = split_heads(self.q_proj(rotate(x)), self.n_heads)
            k = split_heads(self.k_proj(rotate(x)), self.n_heads)
""",
        ),
        say=[r"given a tensor \(2, 5, 16\)"],
        never=[r"something else"],
    ),
    Slip(
        "MultiHeadAttention",
        "normalizes again after dropout",
        but(
            PLAIN,
            "heads = self.dropout(weights) @ v",
            "w = self.dropout(weights)\n        heads = (w / w.sum(-1, keepdim=True)) @ v",
        ),
        say=[r"divided", r"not normalized again"],
        never=[r"after all else"],
    ),
    Slip(
        "MultiHeadAttention",
        "heads reshaped at the end",
        but(PLAIN, "merge_heads(heads)", "heads.reshape(x.shape)"),
        say=[r"without moving the heads"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "attention_entropy",
        "sum over queries",
        """
def attention_entropy(weights):
    return -torch.xlogy(weights, weights).sum(dim=-2)
""",
        say=[r"over the queries \(dim=-2\)"],
        never=[r"size 7"],
    ),
    Slip(
        "MultiHeadAttention",
        "queries and keys exchanged",
        but(PLAIN, "attention(q, k, v, mask)", "attention(k, q, v, mask)"),
        say=[r"k_proj\(x\) as queries and q_proj\(x\) as keys"],
        never=[r"Expected size"],
    ),
    Slip(
        "MultiHeadAttention",
        "keys and values exchanged",
        but(
            but(PLAIN, "attention(q, k, v, mask)", "attention(q, v, k, mask)"),
            "self.dropout(weights) @ v",
            "self.dropout(weights) @ k",
        ),
        say=[r"v_proj\(x\) as keys"],
        never=[r"factor of its own"],
    ),
]
