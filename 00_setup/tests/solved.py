"""One learner's answers to the exercises of module 00, which its tests must accept."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def add_position_bias(x: Tensor, bias: Tensor) -> Tensor:
    if bias.shape != x.shape[1:]:
        raise ValueError(f"bias is {tuple(bias.shape)}, but x needs {tuple(x.shape[1:])}")
    return x + bias.unsqueeze(0)


def pairwise_dots(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("...td,...sd->...ts", q, k)


def fold_batch_time(x: Tensor) -> Tensor:
    B, T, vocab_size = x.shape
    return x.reshape(B * T, vocab_size)


def shift_targets(tokens: Tensor) -> tuple[Tensor, Tensor]:
    if tokens.shape[1] < 2:
        raise ValueError(f"tokens has {tokens.shape[1]} columns, but I need at least 2")
    return tokens[:, :-1], tokens[:, 1:]


def pick_scores(logits: Tensor, targets: Tensor) -> Tensor:
    B, T, _ = logits.shape
    rows = torch.arange(B, device=logits.device)[:, None]
    columns = torch.arange(T, device=logits.device)[None, :]
    return logits[rows, columns, targets]


class Linear(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        limit = d_in**-0.5
        self.weight = nn.Parameter((2 * torch.rand(d_out, d_in) - 1) * limit)
        self.bias = nn.Parameter((2 * torch.rand(d_out) - 1) * limit)

    def forward(self, x: Tensor) -> Tensor:
        return x.matmul(self.weight.t()) + self.bias


def sgd_step(params: Iterable[Tensor], lr: float) -> None:
    for p in params:
        if p.grad is not None:
            p.data -= lr * p.grad
