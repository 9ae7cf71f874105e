"""One learner's answers to the exercises of module 02, which its tests must accept."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tiny_transformer.attention.reference import causal_mask, scaled_dot_product_attention


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    B, T, d_model = x.shape
    return x.reshape(B, T, n_heads, d_model // n_heads).permute(0, 2, 1, 3)


def merge_heads(x: Tensor) -> Tensor:
    B, n_heads, T, d_head = x.shape
    return x.permute(0, 2, 1, 3).reshape(B, T, n_heads * d_head)


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__()
        if d_model % n_heads != 0:
            raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}")
        self.heads, self.is_causal = n_heads, causal
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.drop_weights = nn.Dropout(dropout)
        self.drop_out = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        return_weights: bool = False,
        rotate: Callable[[Tensor], Tensor] | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        q = split_heads(self.q_proj(x), self.heads)
        k = split_heads(self.k_proj(x), self.heads)
        v = split_heads(self.v_proj(x), self.heads)
        if rotate is not None:
            q = rotate(q)
            k = rotate(k)
        if remember is not None:
            k, v = remember(k, v)
        mask = None
        if self.is_causal:
            mask = causal_mask(k.shape[2], x.device)
            mask = mask[-q.shape[2] :]  # the queries stand at the end
        _, weights = scaled_dot_product_attention(q, k, v, mask)
        mixed = self.drop_weights(weights) @ v
        out = self.drop_out(self.out_proj(merge_heads(mixed)))
        if return_weights:
            return out, weights
        return out


def attention_entropy(weights: Tensor) -> Tensor:
    return torch.special.entr(weights).sum(-1)
