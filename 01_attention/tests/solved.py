"""One learner's answers to the exercises of module 01, which its tests must accept."""

import torch
from torch import Tensor, nn


def stable_softmax(scores: Tensor, dim: int = -1) -> Tensor:
    biggest = scores.max(dim=dim, keepdim=True).values
    e = torch.exp(scores - biggest)
    return e / e.sum(dim=dim, keepdim=True)


def causal_mask(T: int, device: torch.device | str | None = None) -> Tensor:
    positions = torch.arange(T, device=device)
    return positions[None, :] <= positions[:, None]


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    d_k = q.shape[-1]
    return torch.einsum("...td,...sd->...ts", q, k) * d_k**-0.5


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    scores = attention_scores(q, k)
    if mask is not None:
        if (mask.sum(dim=-1) == 0).any():
            raise ValueError("mask hides every key from one of the queries")
        scores = scores.masked_fill(mask.logical_not(), torch.finfo(scores.dtype).min)
    weights = stable_softmax(scores, dim=-1)
    return torch.matmul(weights, v), weights


class SelfAttention(nn.Module):
    def __init__(self, d_model: int, d_k: int):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_k, bias=False)
        self.k_proj = nn.Linear(d_model, d_k, bias=False)
        self.v_proj = nn.Linear(d_model, d_k, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        T = x.shape[1]
        mask = causal_mask(T, device=x.device)
        return scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), mask)
