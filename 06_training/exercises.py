"""Your turn: training. Replace each `raise NotImplementedError`, then run `pytest 06_training`.

The order is the order of `theory.md`. Each exercise may use the ones above it.
Shapes: B batch, T positions (the block size), vocab_size characters. Losses are in nats.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def split_corpus(tokens: Tensor, val_fraction: float = 0.1) -> tuple[Tensor, Tensor]:
    """★ Cut (N,) tokens into two texts: the first to train on, the last to validate on.

    Both are slices of the text, in its order, and nothing is lost. `val_fraction` is the share
    of the second, and a token that the cut would go through is in the second: of 11, a tenth is 2.
    A share that is not between 0 and 1 is a ValueError.

    >>> train_tokens, val_tokens = split_corpus(torch.arange(10), val_fraction=0.2)
    >>> train_tokens.tolist(), val_tokens.tolist()
    ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9])
    """
    raise NotImplementedError


def get_batch(
    tokens: Tensor, batch_size: int, block_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """★★ Random windows of (N,) tokens: inputs (B, T) and targets (B, T).

    B is `batch_size` and T is `block_size`. The target of each input is the token that follows it
    in the text. Each window is drawn by itself, so they may overlap; every possible one is equally
    likely, and `generator` alone decides. Too few tokens for one window and its last target are a
    ValueError.

    >>> get_batch(torch.tensor([7, 8, 9]), 1, 2, torch.Generator())
    (tensor([[7, 8]]), tensor([[8, 9]]))
    """
    raise NotImplementedError


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """★★ Mean of -ln p(target) over all positions, finite for any finite logits.

    logits (..., vocab_size), targets (...) of token ids -> (), without `F.cross_entropy`. Targets
    of any other shape are a ValueError.

    >>> chances = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    >>> cross_entropy(chances.log(), torch.tensor([1, 2]))
    tensor(1.3863)
    """
    raise NotImplementedError


def perplexity(loss: Tensor | float) -> float:
    """★ Among how many equally likely tokens a model with this loss, in nats, seems to choose.

    >>> round(perplexity(math.log(65)), 4)
    65.0
    """
    raise NotImplementedError


def warmup_cosine(
    step: int, warmup_steps: int, max_steps: int, max_lr: float, min_lr: float
) -> float:
    """★★ The learning rate of `step` = 0, 1, ...: a line up, then half a cosine down.

    The line goes from max_lr / (warmup_steps + 1) at step 0 to max_lr at step `warmup_steps`, the
    cosine from there to min_lr at step `max_steps`; afterwards the rate stays at min_lr.
    warmup_steps is at most max_steps; where they are one, there is no cosine, and the rate of that
    step may be either.

    >>> [round(warmup_cosine(step, 2, 6, 1.0, 0.2), 2) for step in range(8)]
    [0.33, 0.67, 1.0, 0.88, 0.6, 0.32, 0.2, 0.2]
    """
    raise NotImplementedError


def clip_gradients(params: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """★★ Shorten the gradients so that together they are at most `max_norm` long.

    Laid end to end they make one vector: its direction stays, and where it is short enough it
    stays as it is. Returns its length before, (). A gradient that is None is passed over; without
    any the length is 0, a tensor too.

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradients([weight], max_norm=1.0), weight.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    raise NotImplementedError


class AdamW(torch.optim.Optimizer):
    """★★★ Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    PyTorch's base class keeps the settings in `self.param_groups`, where the schedule changes
    "lr" between steps, and gives each parameter p a dict of its own, `self.state[p]`: what is to be
    remembered belongs there, in p's dtype and on its device, and is saved with a checkpoint. A
    parameter whose gradient is None rests: no move, no decay, and its count of steps waits.

    >>> weight = nn.Parameter(torch.tensor([1.0]))
    >>> weight.grad = torch.tensor([0.5])
    >>> AdamW([weight], lr=0.1, weight_decay=0.1).step()
    >>> round(weight.item(), 4)
    0.89
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        raise NotImplementedError

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter of every group, in place, by `p.grad`, which stays as it is."""
        raise NotImplementedError


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
    accumulate: int = 1,
    bf16: bool = False,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """★★ One step down the gradient of the loss on inputs, targets (B, T).

    The gradients are those of this batch alone, all together clipped to `max_norm` when the
    optimizer uses them; the model is in training mode, and stays in it. Returns the loss before the
    step, (), without its graph.

    You may leave the last three alone at first. `accumulate` splits the batch into so many equal
    parts, each with a forward and a backward pass of its own, whose gradients add up to those of
    the whole. `bf16` runs the forward pass under `torch.autocast` to bfloat16, and the loss is that
    of the logits as float32. With a `scaler` the pass is float16 instead: the scaler scales each
    part's loss before its backward pass, unscales the gradients before they are clipped, and takes
    the optimizer's step; then it is updated.

    >>> model, batch = nn.Embedding(2, 2), (torch.tensor([[0]]), torch.tensor([[1]]))
    >>> _ = nn.init.zeros_(model.weight)
    >>> train_step(model, torch.optim.SGD(model.parameters(), lr=1.0), *batch, max_norm=1.0)
    tensor(0.6931)
    >>> model.weight.data
    tensor([[-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    """
    raise NotImplementedError
