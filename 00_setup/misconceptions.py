"""Wrong turns that learners take in module 00, and what to say to each."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.setup.grading.diagnosis import Misconception, probe


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@probe("add_position_bias", T=3, d_model=2)
def as_many_sequences_as_positions(add_position_bias: Callable) -> list[Tensor]:
    x = torch.zeros(3, 3, 2)
    return [add_position_bias(x, some(3, 2)), x]


@probe("pairwise_dots", B=2, T=4, d_k=3)
def as_many_queries_as_keys(pairwise_dots: Callable) -> list[Tensor]:
    return [pairwise_dots(some(2, 4, 3), some(2, 4, 3).flip(1))]


@probe("fold_batch_time", B=2, T=3, d_model=4)
def a_small_batch(fold_batch_time: Callable) -> list[Tensor]:
    return [fold_batch_time(some(2, 3, 4))]


@probe("shift_targets", B=2, T=3)
def counted_tokens(shift_targets: Callable) -> Any:
    return shift_targets(torch.arange(8).view(2, 4))


@probe("pick_scores", B=2, T=3, vocab_size=4)
def targets_that_are_not_the_best(pick_scores: Callable) -> list[Tensor]:
    return [pick_scores(some(2, 3, 4), torch.tensor([[0, 1, 2], [3, 2, 1]]))]


@probe("Linear", B=4, d_in=3, d_out=2)
def shapes_spread_and_output(Linear: Callable) -> Any:
    layer, wide = Linear(3, 2), Linear(48, 64)
    bound, largest = 48**-0.5, wide.weight.abs().max().item()
    facts = {
        "weight and bias are registered as parameters": len(list(layer.parameters())) == 2,
        "the weights begin spread over +-1 / sqrt(d_in)": 0.9 < largest / bound < 1.001,
    }
    with torch.no_grad():
        for param in (layer.weight, layer.bias):
            param.copy_(torch.arange(param.numel()).view(param.shape))
    return [facts, layer.weight, layer(some(4, 3))]


@probe("sgd_step", n=3)
def a_step_of_two_parameters(sgd_step: Callable) -> list[Tensor]:
    params = [some(3).requires_grad_(), some(2, 2).requires_grad_()]
    sum((param**3).sum() for param in params).backward()
    sgd_step(params, 0.1)
    return params


class LinearStoredAsUsed(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        bound = d_in**-0.5
        self.weight = nn.Parameter(torch.empty(d_in, d_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(d_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class LinearOfUnitNormals(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class LinearWithoutParameters(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        bound = d_in**-0.5
        self.weight = torch.empty(d_out, d_in).uniform_(-bound, bound)
        self.bias = torch.empty(d_out).uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


@torch.no_grad()
def climb(params: Iterable[Tensor], lr: float) -> None:
    for param in params:
        if param.grad is not None:
            param += lr * param.grad


@torch.no_grad()
def rebind(params: Iterable[Tensor], lr: float) -> None:
    for param in params:
        if param.grad is not None:
            param = param - lr * param.grad


MISCONCEPTIONS = [
    Misconception(
        "add_position_bias",
        wrong=lambda x, bias: x.add_(bias),
        hint="You changed the caller's x: `+=`, `add_` and `out[b] = ...` write into it, under "
        "whatever name. The next block, or the backward pass, still needs the old value: return "
        "a new tensor.",
    ),
    Misconception(
        "add_position_bias",
        wrong=lambda x, bias: x + bias.unsqueeze(1),
        hint="Your bias goes by sequence instead of by position: (T, 1, d_model) puts T on the "
        "batch axis, which goes unnoticed only while B equals T. Axes are matched from the right, "
        "so (T, d_model) fits as it is.",
    ),
    Misconception(
        "pairwise_dots",
        wrong=lambda q, k: q @ k.reshape(*k.shape[:-2], k.size(-1), k.size(-2)),
        hint="reshape does not transpose: it deals the same numbers out again in reading order, "
        "so each dot product mixes several keys. Swap the last two axes of k instead.",
    ),
    Misconception(
        "pairwise_dots",
        wrong=lambda q, k: (q * k).sum(-1),
        hint="You matched query t with key t alone. Every query meets every key, T x S numbers, "
        "or no position could look at another: that is a matrix product.",
    ),
    Misconception(
        "fold_batch_time",
        wrong=lambda x: x.transpose(0, 1).flatten(0, 1),
        hint="Your rows go through the batch first: row 1 is position 0 of the second sequence. "
        "Folded targets are in the order sequence by sequence, so each loss would be "
        "measured against another sequence's target.",
    ),
    Misconception(
        "shift_targets",
        wrong=lambda tokens: (tokens[:, :-1], tokens[:, :-1]),
        hint="Inputs and targets are the same tokens: the model would learn to copy what it reads. "
        "The target at position t is the token at t + 1.",
    ),
    Misconception(
        "shift_targets",
        wrong=lambda tokens: (tokens, tokens.roll(-1, dims=1)),
        hint="roll wraps around: your last target is the first token of the sequence, which does "
        "not follow the last one in the text. T + 1 tokens hold only T pairs of input and target.",
    ),
    Misconception(
        "shift_targets",
        wrong=lambda tokens: (tokens[:, 1:], tokens[:, :-1]),
        hint="Your targets are one step behind the inputs: this model would learn to write "
        "backwards. The target at position t is the token at t + 1.",
    ),
    Misconception(
        "pick_scores",
        wrong=lambda logits, targets: logits.gather(-1, targets.unsqueeze(-1)),
        hint="The axis that gather needed is still there: (B, T, 1). Added to a (B, T) tensor it "
        "would broadcast to (B, T, T) without an error. Squeeze it away.",
    ),
    Misconception(
        "pick_scores",
        wrong=lambda logits, targets: (
            logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        ),
        hint="You returned log-probabilities; the scores are the logits as they come. "
        "Normalizing here would normalize twice once the loss does it too.",
    ),
    Misconception(
        "Linear",
        wrong=LinearStoredAsUsed,
        hint="Your weight is (d_in, d_out). It computes the same, but PyTorch stores "
        "(d_out, d_in), one row per output, and a saved nn.Linear would not load into yours.",
    ),
    Misconception(
        "Linear",
        wrong=LinearOfUnitNormals,
        hint="Your weights start with variance 1, so the outputs grow with sqrt(d_in), and again "
        "with every layer. Draw them uniformly from +-1 / sqrt(d_in).",
    ),
    Misconception(
        "Linear",
        wrong=LinearWithoutParameters,
        hint="Your tensors are not registered: an optimizer that asks for `parameters()` gets none "
        "and trains nothing, and they are missing from the state dict. Wrap them in nn.Parameter.",
    ),
    Misconception(
        "sgd_step",
        wrong=climb,
        hint="You stepped along the gradient, which is the way up: the loss would grow. "
        "Subtract it.",
    ),
    Misconception(
        "sgd_step",
        wrong=rebind,
        hint="`param = param - ...` makes a new tensor and gives it the old name; the model still "
        "holds the old one, unchanged. Write into it in place.",
    ),
]
