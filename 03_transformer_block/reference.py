"""One transformer block: attention moves information between positions, the FFN works on each.

Shapes: B batch, T positions, d_model width of the residual stream, d_ff width inside the FFN.
Each norm is written out in `by_hand` and run as one fused kernel in `forward`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.multihead.reference import MultiHeadAttention


class TransformerBlock(nn.Module):
    """Pre-LN block: (B, T, d_model) -> (B, T, d_model).

    Each half reads a normalized copy of the stream and adds its result back, so that the
    gradient has a path straight through every block (Xiong et al. 2020).
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.ln_2 = LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(
        self,
        x: Tensor,
        rotate: Callable[[Tensor], Tensor] | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model). `rotate`, `remember`: see MultiHeadAttention."""
        x = x + self.attention(self.ln_1(x), rotate=rotate, remember=remember)
        return x + self.feed_forward(self.ln_2(x))


class LayerNorm(nn.Module):
    """Give every position mean 0 and variance 1 over its features, then scale and shift.

    (..., d_model) -> (..., d_model), after Ba et al. 2016.
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def by_hand(self, x: Tensor) -> Tensor:
        centered = x - x.mean(dim=-1, keepdim=True)
        variance = centered.square().mean(dim=-1, keepdim=True)  # over d_model, not d_model - 1
        return centered / torch.sqrt(variance + self.eps) * self.weight + self.bias


class RMSNorm(nn.Module):
    """Give every position root mean square 1 over its features, then scale.

    (..., d_model) -> (..., d_model). LayerNorm without the mean and the shift
    (Zhang and Sennrich 2019).
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def by_hand(self, x: Tensor) -> Tensor:
        mean_square = x.square().mean(dim=-1, keepdim=True)
        return x / torch.sqrt(mean_square + self.eps) * self.weight


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, the same for every position.

    (..., d_model) -> (..., d_model), through d_ff in the middle.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.up(x), approximate="tanh")  # `gelu`, fused
        return self.dropout(self.down(hidden))


def gelu(x: Tensor) -> Tensor:
    """A smooth gate: x times (nearly) the chance that a standard normal falls below x.

    The tanh form of Hendrycks and Gimpel 2016, which GPT-2 uses.
    """
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))
