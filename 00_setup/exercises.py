"""Your turn: shapes. Replace each `raise NotImplementedError`, then run `pytest 00_setup`.

Each is graded on its good habits too (`theory.md`): the input left as it was, any dtype, device
and memory layout, the graph kept.

Shapes: B batch, T query/sequence length, S key length, d_model width of a position's vector,
d_k key width, d_in and d_out widths of a layer, vocab_size number of different tokens.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def add_position_bias(x: Tensor, bias: Tensor) -> Tensor:
    """★ Add one vector per position to every sequence of the batch, leaving `x` as it was.

    x (B, T, d_model), bias (T, d_model) -> (B, T, d_model). Any other shape of bias is a
    ValueError: broadcasting would stretch it without a word.

    >>> add_position_bias(torch.zeros(2, 2, 1), torch.tensor([[1.0], [5.0]])).tolist()
    [[[1.0], [5.0]], [[1.0], [5.0]]]
    """
    raise NotImplementedError


def pairwise_dots(q: Tensor, k: Tensor) -> Tensor:
    """★ (..., T, d_k), (..., S, d_k) -> (..., T, S): each query's dot product with each key.

    >>> q, k = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    >>> pairwise_dots(q, k)
    tensor([[3., 8., 3.]])
    """
    raise NotImplementedError


def fold_batch_time(x: Tensor) -> Tensor:
    """★ (B, T, vocab_size) -> (B * T, vocab_size): one row per position, sequence after sequence.

    >>> fold_batch_time(torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]))
    tensor([[1, 2],
            [3, 4],
            [5, 6],
            [7, 8]])
    """
    raise NotImplementedError


def shift_targets(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """★ Split sequences into what the model reads and what it must predict: the next token.

    tokens (B, T + 1) -> inputs (B, T), targets (B, T). Fewer than 2 columns are a ValueError.

    >>> inputs, targets = shift_targets(torch.tensor([[10, 11, 12, 13]]))
    >>> inputs, targets
    (tensor([[10, 11, 12]]), tensor([[11, 12, 13]]))
    """
    raise NotImplementedError


def pick_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """★★ The score that the model gave to each target token, whatever the others' are.

    logits (B, T, vocab_size), targets (B, T) of token ids -> (B, T).

    >>> pick_scores(torch.tensor([[[0.5, 2.0, 1.0], [3.0, 0.0, 4.0]]]), torch.tensor([[1, 0]]))
    tensor([[2., 3.]])
    """
    raise NotImplementedError


class Linear(nn.Module):
    """★★ (..., d_in) -> (..., d_out): x @ weight.T + bias, with parameters of your own.

    No `nn.Linear`; `F.linear` may multiply. Parameters: weight (d_out, d_in) and bias (d_out,),
    both starting uniform in +-1 / sqrt(d_in).

    >>> [(name, tuple(p.shape)) for name, p in Linear(d_in=3, d_out=2).named_parameters()]
    [('weight', (2, 3)), ('bias', (2,))]
    """

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def sgd_step(params: Iterable[Tensor], lr: float) -> None:
    """★★ Move every parameter, in place, by -lr times its gradient (`param.grad`).

    In place: the model holds these very tensors, and must see them changed. Parameters whose
    gradient is None stay where they are; gradients are left as they are. What you are given may be
    `model.parameters()`, a generator.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> (w**2).sum().backward()  # the gradient is 2w
    >>> sgd_step([w], lr=0.25)
    >>> w.tolist()
    [0.5, 1.0]
    """
    raise NotImplementedError
