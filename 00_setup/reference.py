"""A shape primer: the seven moves on tensors that the rest of the course is made of.

Shapes: B batch, T query/sequence length, S key length, d_model width of a position's vector,
d_k key width, d_in and d_out widths of a layer, vocab_size number of different tokens.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def add_position_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Add one vector per position to every sequence of the batch.

    x (B, T, d_model), bias (T, d_model) -> (B, T, d_model).

    Raises:
        ValueError: if bias is not (T, d_model); broadcasting would stretch many other shapes
            without a word.
    """
    if bias.shape != x.shape[-2:]:
        raise ValueError(f"bias is {tuple(bias.shape)}, not (T, d_model) = {tuple(x.shape[-2:])}")
    return x + bias  # a missing leading axis counts as 1 and is stretched over B


def pairwise_dots(q: Tensor, k: Tensor) -> Tensor:
    """(..., T, d_k), (..., S, d_k) -> (..., T, S): each query's dot product with each key."""
    return q @ k.transpose(-2, -1)


def fold_batch_time(x: Tensor) -> Tensor:
    """(B, T, vocab_size) -> (B * T, vocab_size): one row per position, one sequence after another.

    Losses are averages over positions; which sequence a position came from no longer matters.
    """
    return x.flatten(0, 1)


def shift_targets(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Split sequences into what the model reads and what it must predict: the next token.

    tokens (B, T + 1) -> inputs (B, T), targets (B, T).

    Raises:
        ValueError: if a sequence is too short to hold an input and its target.
    """
    if tokens.size(1) < 2:
        raise ValueError(f"tokens is {tuple(tokens.shape)}; (B, T + 1) needs at least 2 columns")
    return tokens[:, :-1], tokens[:, 1:]


def pick_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """The score that the model gave to each target token.

    logits (B, T, vocab_size), targets (B, T) of token ids -> (B, T).
    """
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # gather wants an index per axis


class Linear(nn.Module):
    """(..., d_in) -> (..., d_out): x @ weight.T + bias, as `nn.Linear`.

    Both parameters start uniform in +-1 / sqrt(d_in), so that the outputs of a wide layer
    are no larger than those of a narrow one.
    """

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        bound = d_in**-0.5
        self.weight = nn.Parameter(torch.empty(d_out, d_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(d_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


@torch.no_grad()
def sgd_step(params: Iterable[Tensor], lr: float) -> None:
    """Move every parameter, in place, by -lr times its gradient.

    Parameters without a gradient stay where they are. Without `no_grad`, autograd would
    refuse: the step is not part of the function being differentiated.
    """
    for param in params:
        if param.grad is not None:
            param -= lr * param.grad
