"""Multi-head attention: several heads attend in parallel, each in its own slice of d_model.

Shapes: B batch, T query positions, S key positions, d_head = d_model / n_heads.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.attention.reference import causal_mask, scaled_dot_product_attention


class MultiHeadAttention(nn.Module):
    """Project x to queries, keys and values, attend head by head, merge and project back.

    (B, T, d_model) -> (B, T, d_model). Follows Vaswani et al. 2017, section 3.2.2, with GPT-2's
    two dropouts: on the attention weights and on the output.

    Raises:
        ValueError: if the heads do not divide d_model.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads is {n_heads}; it must divide d_model, which is {d_model}")
        self.n_heads = n_heads
        self.causal = causal
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        return_weights: bool = False,
        rotate: Callable[[Tensor], Tensor] | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x (B, T, d_model) -> out (B, T, d_model), and weights (B, n_heads, T, S) if asked for.

        `rotate` is applied to queries and keys (module 04's turns them by their positions).
        `remember` takes the new keys and values and returns all S so far, the newest last (module
        07's cache).
        """
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, n_heads, T, d_head)
        k = split_heads(self.k_proj(x), self.n_heads)
        v = split_heads(self.v_proj(x), self.n_heads)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        if remember is not None:
            k, v = remember(k, v)  # (B, n_heads, S, d_head)
        if return_weights:
            heads, weights = self.attend_explicitly(q, k, v)
            return self.dropout(self.out_proj(merge_heads(heads))), weights
        return self.dropout(self.out_proj(merge_heads(self.attend_fused(q, k, v))))

    def attend_explicitly(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Module 01's attention, which shows its weights: for reading and for pictures."""
        T, S = q.size(-2), k.size(-2)
        mask = causal_mask(S, q.device)[S - T :] if self.causal else None  # queries are the last T
        _, weights = scaled_dot_product_attention(q, k, v, mask)
        return self.dropout(weights) @ v, weights

    def attend_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same in one kernel that never stores the (T, S) weights: for training.

        FlashAttention (Dao et al. 2022), where the device has it.
        """
        T, S = q.size(-2), k.size(-2)
        # is_causal would align the first query with the first key; a lone query sees everything.
        mask = causal_mask(S, q.device)[S - T :] if self.causal and 1 < T < S else None
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=self.causal and bool(T == S),  # an ONNX export has symbols for T and S
        )


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, T, d_model) -> (B, n_heads, T, d_head): head h gets the h-th slice of the features."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, n_heads, T, d_head) -> (B, T, d_model): the inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def attention_entropy(weights: Tensor) -> Tensor:
    """(..., T, S) -> (..., T): how widely each query spreads its attention, in nats.

    0 where it looks at one key, ln(S) where it looks at all S alike. 0 ln 0 counts as 0.
    """
    return -torch.xlogy(weights, weights).sum(dim=-1)
