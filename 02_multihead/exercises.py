"""Your turn: multi-head attention. Replace each `raise NotImplementedError`; `pytest 02_multihead`.

The order is the order of `theory.md`. Each exercise may use the ones above it.
Each is graded on its good habits too (`00_setup/theory.md`): the input left as it was, any dtype,
device and memory layout, the graph kept.
Shapes: B batch, T query positions, S key positions, d_head = d_model / n_heads.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tiny_transformer.attention.reference import (
    causal_mask,
    scaled_dot_product_attention,
)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """★ (B, T, d_model) -> (B, n_heads, T, d_head): head h gets the h-th slice of the features.

    >>> split_heads(torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]]), n_heads=2)
    tensor([[[[1, 2],
              [5, 6]],
    <BLANKLINE>
             [[3, 4],
              [7, 8]]]])
    """
    raise NotImplementedError


def merge_heads(x: Tensor) -> Tensor:
    """★ (B, n_heads, T, d_head) -> (B, T, d_model): undoes `split_heads`.

    >>> merge_heads(torch.tensor([[[[1, 2], [5, 6]], [[3, 4], [7, 8]]]]))
    tensor([[[1, 2, 3, 4],
             [5, 6, 7, 8]]])
    """
    raise NotImplementedError


class MultiHeadAttention(nn.Module):
    """★★★ Project x to queries, keys and values, attend head by head, merge and project back.

    Name the four projections, all (d_model, d_model) with bias, q_proj, k_proj, v_proj and
    out_proj. In training, `dropout` acts on the attention weights and again on the output, after
    out_proj. With `causal`, position t attends to positions 0..t; without, to all. Heads that do
    not divide d_model are a ValueError.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__()
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        return_weights: bool = False,
        rotate: Callable[[Tensor], Tensor] | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x (B, T, d_model) -> out (B, T, d_model), and weights (B, n_heads, T, S) if asked for.

        The weights are those from before dropout. S is T at first, and you may leave `rotate` and
        `remember` alone. Come back for them: `rotate` turns queries and keys, each (B, n_heads, T,
        d_head), before they meet (module 04); then `remember(k, v)` takes the new keys and values
        and gives all S so far, the newest last, for the T queries to look at (module 07).

        >>> attention = MultiHeadAttention(d_model=8, n_heads=2)
        >>> out, weights = attention(torch.zeros(1, 3, 8), return_weights=True)
        >>> weights[0, 0].detach()
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333]])
        """
        raise NotImplementedError


def attention_entropy(weights: Tensor) -> Tensor:
    """★★ (..., T, S) -> (..., T): how widely each query spreads its attention, in nats.

    The entropy of each row, where 0 ln 0 counts as 0.

    >>> attention_entropy(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    tensor([0.6931, 0.5623])
    """
    raise NotImplementedError
