"""Your turn: the block. Replace each `raise NotImplementedError`; `pytest 03_transformer_block`.

The order is the order of `theory.md`. Each exercise may use the ones above it.
Each is graded on its good habits too (`00_setup/theory.md`): the input left as it was, any dtype,
device and memory layout, the graph kept.
Shapes: B batch, T positions, d_model width of the residual stream, d_ff width inside the FFN.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tiny_transformer.multihead.reference import MultiHeadAttention


def gelu(x: Tensor) -> Tensor:
    """★ GELU in its tanh form, as GPT-2 has it (Hendrycks and Gimpel 2016, section 2).

    >>> gelu(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1588,  0.0000,  0.8412])
    """
    raise NotImplementedError


class LayerNorm(nn.Module):
    """★★ Give every position mean 0 and variance 1 over its features, then scale and shift.

    (..., d_model) -> (..., d_model). The parameters are `weight` and `bias`, both (d_model,), which
    start as the identity. The variance is that of all d_model features, and `eps` is added to it.
    Take it from x - mean: the mean of x^2 minus mean^2 loses its digits where the mean is large.

    >>> LayerNorm(2)(torch.tensor([3.0, 5.0])).detach()
    tensor([-1.0000,  1.0000])
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class RMSNorm(nn.Module):
    """★★ Give every position root mean square 1 over its features, then scale.

    (..., d_model) -> (..., d_model). The one parameter is `weight` (d_model,), which starts as
    the identity; `eps` is added to the mean square.

    >>> RMSNorm(2)(torch.tensor([3.0, 4.0])).detach()
    tensor([0.8485, 1.1314])
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class FeedForward(nn.Module):
    """★ Two linear layers with a GELU (the tanh form) between, the same for every position.

    (..., d_model) -> (..., d_model), through d_ff in the middle. Name the layers `up` and `down`,
    both with bias. `dropout` acts on the output, after `down`, in training.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class TransformerBlock(nn.Module):
    """★★★ Pre-LN block: (B, T, d_model) -> (B, T, d_model).

    Causal attention, then the feed-forward network; each reads a normalized copy of the stream and
    adds its result back (Xiong et al. 2020). Name the parts ln_1 and ln_2 (a LayerNorm for each
    half), attention and feed_forward, and hand `dropout` to both halves.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        rotate: Callable[[Tensor], Tensor] | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model).

        You may leave `rotate` and `remember` alone at first. They are for attention, which takes
        them under these names: hand them on (modules 04 and 07).
        """
        raise NotImplementedError
