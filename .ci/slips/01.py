from slip import Slip

SLIPS = [
    Slip(
        "stable_softmax",
        "the scores as they are",
        """
def stable_softmax(scores, dim=-1):
    return scores
""",
        say=[r"softmax is missing|scores where probabilities"],
        never=["digits", "largest score"],
    ),
    # ---- stable_softmax
    Slip(
        "stable_softmax",
        "no keepdim at the maximum",
        """
def stable_softmax(scores, dim=-1):
    biggest = scores.max(dim).values
    e = torch.exp(scores - biggest)
    return e / e.sum(dim, keepdim=True)
""",
        say=[r"keepdim|keep.{0,20}(axis|dim)"],
        never=[r"overflows|nan\b", r"does not subtract|without subtracting"],
    ),
    Slip(
        "stable_softmax",
        "no maximum",
        """
def stable_softmax(scores, dim=-1):
    e = scores.exp()
    return e / e.sum(dim=dim, keepdim=True)
""",
        say=[r"overflow|largest|maximum|inf"],
        never=[r"keepdim", r"sum along another|wrong (axis|dim)"],
    ),
    Slip(
        "stable_softmax",
        "one maximum for all rows",
        """
def stable_softmax(scores, dim=-1):
    shifted = scores - scores.max()
    e = torch.exp(shifted)
    return e / e.sum(dim, keepdim=True)
""",
        say=[r"row|own|each|along `?dim|global|whole tensor|underflow"],
        never=[r"keepdim", r"without subtracting|does not subtract|subtracts? nothing"],
    ),
    Slip(
        "stable_softmax",
        "always the last axis",
        """
def stable_softmax(scores, dim=-1):
    e = torch.exp(scores - scores.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)
""",
        say=[r"\bdim\b"],
        never=[r"overflow(s|ed)\b", r"keepdim"],
    ),
    Slip(
        "stable_softmax",
        "max returns a pair",
        """
def stable_softmax(scores, dim=-1):
    m = scores.max(dim, keepdim=True)
    e = torch.exp(scores - m)
    return e / e.sum(dim, keepdim=True)
""",
        say=[r"values|amax|pair|tuple|torch\.return_types\.max"],
        never=[r"keepdim is missing|forgot keepdim", r"overflow(s|ed)\b"],
    ),
    Slip(
        "stable_softmax",
        "normalize with p = 1, right",
        """
import torch.nn.functional as F


def stable_softmax(scores, dim=-1):
    m, _ = scores.max(dim, keepdim=True)
    return F.normalize(torch.exp(scores - m), p=1, dim=dim)
""",
        right=True,
    ),
    Slip(
        "stable_softmax",
        "a small number in the denominator",
        """
def stable_softmax(scores, dim=-1):
    e = (scores - scores.amax(dim=dim, keepdim=True)).exp()
    return e / (e.sum(dim=dim, keepdim=True) + 1e-6)
""",
        say=[r"add up to|sum", r"float64"],
        never=[r"overflow", r"keepdim"],
    ),
    Slip(
        "stable_softmax",
        "logsumexp",
        """
def stable_softmax(scores, dim=-1):
    return torch.exp(scores - torch.logsumexp(scores, dim, keepdim=True))
""",
        say=[r"0\.4999", r"0\.5\b"],
        never=[r"overflow", r"keepdim"],
    ),
    # ---- causal_mask
    Slip(
        "causal_mask",
        "float ones",
        """
def causal_mask(T, device=None):
    return torch.tril(torch.ones(T, T, device=device))
""",
        say=[r"bool"],
        never=[
            r"(forget|forgot|ignor|without|wrong|other|another)\w* .{0,15}device",
            r"transpos|future",
        ],
    ),
    Slip(
        "causal_mask",
        "no device",
        """
def causal_mask(T, device=None):
    return torch.ones(T, T, dtype=torch.bool).tril()
""",
        say=[r"device"],
        never=[
            r"(wrong|other|another|keeps?|lose\w*|chang\w+) .{0,12}dtype",
            r"diagonal",
            r"transpos|future",
        ],
    ),
    Slip(
        "causal_mask",
        "True means hidden",
        """
def causal_mask(T, device=None):
    return torch.ones(T, T, device=device).triu(diagonal=1).bool()
""",
        say=[r"True|opposite|exchang|invert|may attend"],
        never=[
            r"(forget|forgot|ignor|without|wrong|other|another)\w* .{0,15}device",
            r"(wrong|other|another|keeps?|lose\w*|chang\w+) .{0,12}dtype|returned float",
        ],
    ),
    Slip(
        "causal_mask",
        "bool not called",
        """
def causal_mask(T, device=None):
    mask = torch.tril(torch.ones(T, T, device=device)).bool
    return mask
""",
        say=[r"method|function|callable|not a tensor|parenthes|no attribute|call"],
        never=[r"float32", r"future", r"diagonal"],
    ),
    # ---- attention_scores
    Slip(
        "attention_scores",
        "root of the number of keys",
        """
def attention_scores(q, k):
    scale = k.shape[-2] ** 0.5
    return (q @ k.mT) / scale
""",
        say=[r"d_k|width|last axis|number of keys|\bS\b"],
        never=[r"no scale|not scaled", r"transpos"],
    ),
    Slip(
        "attention_scores",
        "axes counted from the front",
        """
def attention_scores(q, k):
    dots = torch.matmul(q, k.transpose(0, 1))
    return dots / q.size(-1) ** 0.5
""",
        say=[r"last two|axes|axis|-2|leading|batch|transpos|2-?D"],
        never=[r"(no|wrong|without|missing|times|divid\w+) .{0,12}(scale|root|sqrt)"],
    ),
    Slip(
        "attention_scores",
        "math not imported",
        """
def attention_scores(q, k):
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
""",
        say=[r"math", r"import|not defined"],
        never=[r"(no|wrong|without|missing) .{0,5}scale", r"axes|axis"],
    ),
    Slip(
        "attention_scores",
        "whole root of the width",
        """
import math


def attention_scores(q, k):
    return q @ k.mT / math.isqrt(q.shape[-1])
""",
        say=[r"square root", r"\b2\b"],
        never=[r"not scaled", r"transpos"],
    ),
    # ---- scaled_dot_product_attention
    Slip(
        "scaled_dot_product_attention",
        "mask after the softmax",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    weights = stable_softmax(attention_scores(q, k))
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query sees nothing")
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ v, weights
""",
        say=[r"before|after|sum"],
        never=[r"leak|sees? the future", r"True and False"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "no ValueError",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        scores = scores.masked_fill(mask == False, float("-inf"))
    weights = stable_softmax(scores, dim=-1)
    out = weights @ v
    return out, weights
""",
        say=[r"ValueError|raise|refuse", r"nothing|nan|empty|no key|masked"],
        never=[r"overflow", r"after the softmax", r"numbers are wrong"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "mask inverted",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not bool(mask.any(-1).all()):
            raise ValueError("empty row in mask")
        scores = torch.where(mask, torch.tensor(float("-inf"), device=scores.device), scores)
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"True|invert|opposite|exchang|~|may attend|wrong (way|side)"],
        never=[r"after the softmax", r"transpos", r"overflow"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "refuses only an empty mask",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any():
            raise ValueError("the mask hides everything")
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"ValueError|raise|refuse", r"row|query|queries|each|one"],
        never=[r"overflow", r"after the softmax", r"never raise"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "if mask",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask:
        if not mask.any(dim=-1).all():
            raise ValueError("a row of the mask is empty")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"is not None|ambiguous"],
        never=[r"ignores? the mask|mask is never", r"after the softmax"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "additive mask, right",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        seen = mask.expand(scores.shape).sum(dim=-1)
        if (seen == 0).any():
            raise ValueError("a query may attend to nothing")
        penalty = torch.zeros_like(scores).masked_fill(mask.logical_not(), float("-inf"))
        scores = scores + penalty
    weights = stable_softmax(scores)
    return torch.einsum("...ts,...sd->...td", weights, v), weights
""",
        right=True,
    ),
    Slip(
        "scaled_dot_product_attention",
        "hidden by -100",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, -100)
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"-inf", r"weight"],
        never=[r"after the softmax", r"True and False"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "hidden by -10000",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, -10000.0)
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"-inf", r"weight"],
        never=[r"after the softmax", r"True and False"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "renormalizes after the softmax",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    weights = stable_softmax(attention_scores(q, k))
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        weights = weights * mask
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights @ v, weights
""",
        say=[r"before the softmax", r"nan|add up"],
        never=[r"rows no longer sum"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "looks for empty columns",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-2).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"refused|every query", r"last axis|row"],
        never=[r"after the softmax"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "nan_to_num for the ValueError",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    weights = torch.nan_to_num(stable_softmax(scores))
    return weights @ v, weights
""",
        say=[r"ValueError"],
        never=[r"after the softmax", r"numbers are wrong"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "returns weights without a graph",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights @ v, weights.detach()
""",
        say=[r"detach|graph|gradient", r"weights|result 2"],
        never=[r"after the softmax"],
    ),
    # ---- SelfAttention
    Slip(
        "SelfAttention",
        "biases left on",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k)
        self.k_proj = nn.Linear(d_model, d_k)
        self.v_proj = nn.Linear(d_model, d_k)

    def forward(self, x):
        mask = causal_mask(x.size(1), x.device)
        return scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), mask)
""",
        say=[r"bias"],
        never=[
            r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask",
            r"q_proj.{0,20}(missing|named)",
        ],
    ),
    Slip(
        "SelfAttention",
        "mask without device",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return scaled_dot_product_attention(q, k, v, mask=causal_mask(T))
""",
        say=[r"device"],
        never=[
            r"forget\w* the mask|no mask|sees? the future|leak",
            r"(no|have|has|left|leave\w*|without|extra) .{0,8}bias",
        ],
    ),
    Slip(
        "SelfAttention",
        "one fused projection",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.qkv = nn.Linear(d_model, 3 * d_k, bias=False)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return scaled_dot_product_attention(q, k, v, causal_mask(x.shape[1], device=x.device))
""",
        say=[r"q_proj"],
        never=[
            r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask",
            r"(no|have|has|left|leave\w*|without|extra) .{0,8}bias",
            r"numbers are wrong",
        ],
    ),
    Slip(
        "SelfAttention",
        "values from the keys",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.k_proj(x)
        return scaled_dot_product_attention(q, k, v, causal_mask(x.size(1), x.device))
""",
        say=[r"v_proj|values"],
        never=[
            r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask",
            r"(no|have|has|left|leave\w*|without|extra) .{0,8}bias",
        ],
    ),
    Slip(
        "SelfAttention",
        "widths exchanged",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_k, d_model, bias=False)
        self.k_proj = nn.Linear(d_k, d_model, bias=False)
        self.v_proj = nn.Linear(d_k, d_model, bias=False)

    def forward(self, x):
        T = x.size(-2)
        return scaled_dot_product_attention(
            self.q_proj(x), self.k_proj(x), self.v_proj(x), causal_mask(T, x.device))
""",
        say=[r"d_model.{0,40}d_k|d_k.{0,40}d_model|shape|in_features|mat1|axes|width"],
        never=[
            r"leak|sees? the future|(no|forget\w*|forgot\w*) (the )?mask",
            r"\bbias\b.{0,30}(left|on|too)",
        ],
    ),
    Slip(
        "SelfAttention",
        "queries and keys exchanged",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x):
        mask = causal_mask(x.size(1), x.device)
        return scaled_dot_product_attention(self.k_proj(x), self.q_proj(x), self.v_proj(x), mask)
""",
        say=[r"quer(y|ies)", r"keys?", r"exchang|place of"],
        never=[r"scales? with d.k", r"future"],
    ),
]

EXTRA = [
    Slip(
        "stable_softmax",
        "denominator cut from the graph",
        """
def stable_softmax(scores, dim=-1):
    e = (scores - scores.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True).detach()
""",
        say=[r"gradient", r"detach"],
        never=[r"overflow", r"keepdim"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "scaled twice",
        """
import math


def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k) / math.sqrt(q.size(-1))
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"twice|two times|already"],
        never=[r"not scaled"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "weights cut where they meet the values",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights.detach() @ v, weights
""",
        say=[r"gradient", r"detach"],
        never=[r"result 2 of 2"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "drops out",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    weights = nn.functional.dropout(weights, 0.1)
    return weights @ v, weights
""",
        say=[r"chance"],
        never=[r"every number is"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "weights first",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights, weights @ v
""",
        say=[r"weights first"],
        never=[r"one too many"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "scores of its own, not scaled",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = q @ k.mT
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"not scaled"],
        never=[r"twice"],
    ),
    Slip(
        "SelfAttention",
        "scaled twice",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x):
        mask = causal_mask(x.size(1), x.device)
        return scaled_dot_product_attention(self.q_proj(x) / self.q_proj.out_features**0.5, self.k_proj(x), self.v_proj(x), mask)
""",
        say=[r"twice"],
        never=[r"future"],
    ),
    Slip(
        "SelfAttention",
        "values of a detached x",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x):
        mask = causal_mask(x.size(1), x.device)
        return scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x.detach()), mask)
""",
        say=[r"gradient", r"detach"],
        never=[r"future"],
    ),
    Slip(
        "stable_softmax",
        "max over -1 always",
        """
def stable_softmax(scores, dim=-1):
    e = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
    return e / e.sum(dim=dim, keepdim=True)
""",
        say=[r"last axis it is right", r"along `dim`"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "stable_softmax",
        "divides by the maximum",
        """
def stable_softmax(scores, dim=-1):
    e = torch.exp(scores / scores.max(dim=dim, keepdim=True).values)
    return e / e.sum(dim=dim, keepdim=True)
""",
        say=[r"subtract it"],
        never=[r"last axis", r"along `dim`"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "forgets ~",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(mask, float("-inf"))
    weights = stable_softmax(scores, dim=-1)
    return weights @ v, weights
""",
        say=[r"other way round|where the mask is True"],
        never=[r"NaN", r"diagonal"],
    ),
    Slip(
        "SelfAttention",
        "k and v swapped in the call",
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, d_k):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x):
        mask = causal_mask(x.size(1), x.device)
        return scaled_dot_product_attention(self.q_proj(x), self.v_proj(x), self.k_proj(x), mask)
""",
        say=[r"q_proj\(x\) as queries and v_proj\(x\) as keys"],
        never=[r"numbers are wrong"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "inf times mask",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores + (~mask) * float("-inf")
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"times -inf"],
        never=[r"float16", r"Half"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "default mask causal",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is None:
        mask = causal_mask(q.size(-2), q.device)
    if not mask.any(dim=-1).all():
        raise ValueError("a query may attend to nothing")
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"mask=None", r"causal"],
        never=[r"must match"],
    ),
    Slip(
        "stable_softmax",
        "largest absolute value taken away",
        """
def stable_softmax(scores, dim=-1):
    e = (scores - scores.abs().amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)
""",
        say=[r"absolute"],
        never=[r"look for"],
    ),
    Slip(
        "stable_softmax",
        "largest of all rows taken away",
        """
def stable_softmax(scores, dim=-1):
    e = (scores - scores.max()).exp()
    return e / e.sum(dim, keepdim=True)
""",
        say=[r"largest score of that row"],
        never=[r"look for"],
    ),
    Slip(
        "scaled_dot_product_attention",
        "hidden scores are 0",
        """
def scaled_dot_product_attention(q, k, v, mask=None):
    scores = attention_scores(q, k)
    if mask is not None:
        if not mask.any(dim=-1).all():
            raise ValueError("a query may attend to nothing")
        scores = scores.masked_fill(~mask, 0.0)
    weights = stable_softmax(scores)
    return weights @ v, weights
""",
        say=[r"should get none", r"before the softmax"],
        never=[r"example"],
    ),
    Slip(
        "attention_scores",
        "cosines",
        """
def attention_scores(q, k):
    q = q / q.norm(dim=-1, keepdim=True)
    k = k / k.norm(dim=-1, keepdim=True)
    return q @ k.transpose(-2, -1)
""",
        say=[r"cosines"],
        never=[r"not scaled", r"saturates"],
    ),
]
