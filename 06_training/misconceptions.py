"""Wrong turns that learners take in module 06, and what to say to each."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.setup.grading.doors import takes
from tiny_transformer.training import reference


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@probe("split_corpus")
def sizes_order_and_completeness(split_corpus: Callable) -> Any:
    train_tokens, val_tokens = split_corpus(torch.arange(50))
    both = torch.cat((train_tokens, val_tokens))
    return {
        "the two parts together are the corpus": both.sort().values.tolist() == list(range(50)),
        "the tokens stay in their order": all(
            part.diff().eq(1).all() for part in (train_tokens, val_tokens)
        ),
        "how many of 50 tokens validate": len(val_tokens),
    }


@probe("get_batch", B=200, T=4)
def windows_of_counted_tokens(get_batch: Callable) -> Any:
    inputs, targets = get_batch(torch.arange(12), 200, 4, torch.Generator().manual_seed(0))
    again, _ = get_batch(torch.arange(12), 200, 4, torch.Generator().manual_seed(0))
    return [
        targets - inputs,
        inputs - inputs[:, :1],
        {
            "a generator of the same seed draws the same windows": again.equal(inputs),
            "the first tokens of windows from 12 tokens": inputs[:, 0].unique().tolist(),
        },
    ]


@probe("cross_entropy", B=2, T=3, vocab_size=5)
def plain_and_huge_scores(cross_entropy: Callable) -> Any:
    plain = cross_entropy(some(2, 3, 5), torch.tensor([[0, 1, 2], [4, 3, 0]]))
    huge = torch.tensor([[1e4, 1e4, -1e4]])
    losses = [cross_entropy(huge, torch.tensor([target])) for target in (0, 2)]
    finite = all(loss.isfinite() for loss in losses)
    return [plain, {"huge scores give a finite loss": finite}]


@probe("perplexity")
def of_a_loss_and_of_none(perplexity: Callable) -> Tensor:
    return torch.tensor([float(perplexity(loss)) for loss in (1.5, 0.0)])


@probe("warmup_cosine", step=24)
def a_short_schedule_and_beyond(warmup_cosine: Callable) -> Tensor:
    return torch.tensor([float(warmup_cosine(step, 4, 20, 1.0, 0.1)) for step in range(24)])


@probe("clip_gradients", n=4)
def a_long_and_a_short_gradient(clip_gradients: Callable) -> list[Tensor]:
    params = [nn.Parameter(torch.zeros(4)) for _ in range(2)]
    for p, length in zip(params, (10.0, 0.5), strict=True):
        p.grad = length * nn.functional.normalize(some(4), dim=0)
    clip_gradients(params, 1.0)
    return [p.grad for p in params]


@probe("AdamW", n=6)
def five_steps_with_decay(AdamW: Callable) -> list[Tensor]:
    weight = nn.Parameter(some(6))
    optimizer = AdamW([weight], lr=0.1, betas=(0.8, 0.99), eps=1e-8, weight_decay=0.5)
    for gradient in some(5, 6):
        weight.grad = gradient
        optimizer.step()
    return [weight]


@probe("train_step")
def two_steps_of_a_table_of_scores(train_step: Callable) -> Any:
    model = nn.Embedding.from_pretrained(some(4, 4), freeze=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inputs, targets = torch.tensor([[[0, 1, 2], [3, 2, 0]], [[1, 2, 3], [2, 0, 1]]])
    losses = [float(train_step(model, optimizer, inputs, targets, 0.1)) for _ in range(2)]
    facts = {"the losses of two steps": torch.tensor(losses), "the weights": model.weight}
    return facts | what_options_leave_as_it_is(train_step)


def what_options_leave_as_it_is(train_step: Callable) -> dict[str, bool]:
    """All of it holds too where the options are left alone."""

    def step(max_norm: float, **option: Any) -> tuple[Tensor, Tensor]:
        table = nn.Embedding.from_pretrained(some(4, 4), freeze=False)
        model = nn.Sequential(table, nn.Linear(4, 4, bias=False))
        nn.init.eye_(model[1].weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        batch = torch.tensor([[[0, 1, 2], [3, 2, 0]], [[1, 2, 3], [2, 0, 1]]])
        given = {name: value for name, value in option.items() if takes(train_step, name)}
        try:
            loss = train_step(model, optimizer, *batch, max_norm, **given)
        except NotImplementedError:  # where a learner has marked what is to come
            loss = train_step(model, optimizer, *batch, max_norm)
        return torch.as_tensor(loss), table.weight.detach() - some(4, 4)

    def alike(step: Tensor, other: Tensor) -> bool:  # but for the rounding of 16 bits
        return ((step - other).norm() < 0.05 * other.norm()).item()

    (_, plain), (_, clipped) = step(100.0), step(0.1)
    (_, in_parts), (_, scaled) = step(100.0, accumulate=2), step(0.1, scaler=GradScaler("cpu"))
    rounded, _ = step(100.0, bf16=True)
    return {
        "a batch in two parts moves the weights as it does at once": alike(in_parts, plain),
        "with a scaler the step is as long as without": alike(scaled, clipped),
        "with bf16 the loss is float32": rounded.dtype == torch.float32,
    }


def exp_then_log(logits: Tensor, targets: Tensor) -> Tensor:
    exp = logits.exp()
    chances = exp / exp.sum(dim=-1, keepdim=True)
    return -chances.gather(-1, targets.unsqueeze(-1)).log().mean()


def warmup_from_nothing(
    step: int, warmup_steps: int, max_steps: int, max_lr: float, min_lr: float
) -> float:
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    return reference.warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr)


def cosine_from_the_first_step(
    step: int, warmup_steps: int, max_steps: int, max_lr: float, min_lr: float
) -> float:
    if step < warmup_steps:
        return reference.warmup_cosine(step, warmup_steps, max_steps, max_lr, min_lr)
    progress = min(1.0, step / max_steps)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def clip_each(params: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    with_gradient = [p for p in params if p.grad is not None]
    return torch.stack([reference.clip_gradients([p], max_norm) for p in with_gradient]).norm()


class DecaysThroughTheGradient(reference.AdamW):
    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, betas, eps, weight_decay=0.0)
        self.decay = weight_decay

    @torch.no_grad()
    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad = p.grad + self.decay * p
        super().step()


class TrustsTheFirstAverages(reference.AdamW):
    @torch.no_grad()
    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            if p.grad is not None and not self.state[p]:  # so late, the correction is 1
                self.state[p].update(
                    step=10**9, mean=torch.zeros_like(p), square=torch.zeros_like(p)
                )
        super().step()


def add_to_the_old_gradients(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
) -> Tensor:
    model.train()
    loss = reference.cross_entropy(model(inputs), targets)
    loss.backward()
    reference.clip_gradients(model.parameters(), max_norm)
    optimizer.step()
    return loss.detach()


def clip_after_the_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
) -> Tensor:
    loss = reference.train_step(model, optimizer, inputs, targets, math.inf)
    reference.clip_gradients(model.parameters(), max_norm)
    return loss


def add_up_the_means(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
    accumulate: int = 1,
) -> Tensor:
    model.train()
    optimizer.zero_grad()
    for x, y in zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True):
        loss = reference.cross_entropy(model(x), y)
        loss.backward()
    reference.clip_gradients(model.parameters(), max_norm)
    optimizer.step()
    return loss.detach()


def clip_what_is_scaled(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
    scaler: GradScaler | None = None,
) -> Tensor:
    if scaler is None:
        return reference.train_step(model, optimizer, inputs, targets, max_norm)
    model.train()
    optimizer.zero_grad()
    with torch.autocast(inputs.device.type, torch.float16):
        logits = model(inputs)
    loss = reference.cross_entropy(logits.float(), targets)
    scaler.scale(loss).backward()
    reference.clip_gradients(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


def with_a_rounded_loss(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
    bf16: bool = False,
) -> Tensor:
    model.train()
    optimizer.zero_grad()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        loss = reference.cross_entropy(model(inputs), targets)
    loss.backward()
    reference.clip_gradients(model.parameters(), max_norm)
    optimizer.step()
    return loss.detach()


MISCONCEPTIONS = [
    Misconception(
        "split_corpus",
        wrong=lambda tokens, val_fraction=0.1: reference.split_corpus(
            tokens[torch.randperm(len(tokens))], val_fraction
        ),
        hint="You shuffled the tokens, and with them went the text: what is left is letters in "
        "random order, with nothing to learn but how frequent each is. Cut the text in two as it "
        "stands.",
    ),
    Misconception(
        "get_batch",
        wrong=lambda *args: reference.get_batch(*args)[:1] * 2,
        hint="Your targets are the inputs: the model would learn to copy what it reads, and its "
        "loss would fall to 0 at once. The target at each position is the token one step later.",
    ),
    Misconception(
        "get_batch",
        wrong=lambda tokens, batch_size, block_size, generator: reference.get_batch(
            tokens, batch_size, block_size, torch.default_generator
        ),
        hint="You drew from PyTorch's global random state, not from `generator`. Whatever else "
        "draws from it, dropout for one, would change your batches, and a run that is resumed "
        "could not go on with the ones it was about to see.",
    ),
    Misconception(
        "cross_entropy",
        wrong=lambda logits, targets: reference.cross_entropy(logits.softmax(dim=-1), targets),
        hint="You took the softmax of a softmax: the loss wants logits and normalizes them itself. "
        "Probabilities lie between 0 and 1, so even a model that is sure and right would be "
        "charged for doubt, and would hardly learn.",
    ),
    Misconception(
        "cross_entropy",
        wrong=exp_then_log,
        hint="Your loss is inf or NaN where scores lie far apart: exp overflows, or a probability "
        "is rounded to 0 before its logarithm is taken. One such target ruins every weight; "
        "compute the log-probability without going through the probability.",
    ),
    Misconception(
        "perplexity",
        wrong=lambda loss: 2 ** float(loss),
        hint="2 ** loss undoes a loss in bits, and ours is in nats, from the natural logarithm. "
        "A guess among 65 characters would look like one among 18.",
    ),
    Misconception(
        "perplexity",
        wrong=lambda loss: math.exp(float(loss) / math.log(2)),
        hint="You turn the loss into bits, loss / ln 2, and then take e to that power. The loss is "
        "in nats, which is what e takes: exp(loss). A guess among 65 characters would look like "
        "one among 412.",
    ),
    Misconception(
        "warmup_cosine",
        wrong=warmup_from_nothing,
        hint="Your first rate is 0: the step is computed and paid for, and moves nothing. The "
        "line starts one notch up, at max_lr / (warmup_steps + 1).",
    ),
    Misconception(
        "warmup_cosine",
        wrong=cosine_from_the_first_step,
        hint="Your cosine counts from step 0, so it has already come down a bit when the warm-up "
        "hands over, and max_lr is never reached. Progress is 0 at `warmup_steps`, 1 at "
        "`max_steps`.",
    ),
    Misconception(
        "clip_gradients",
        wrong=clip_each,
        hint="You clipped each parameter's gradient by its own length. Long ones shrink and short "
        "ones do not, so the step points elsewhere than downhill: take the length of all together "
        "and one factor.",
    ),
    Misconception(
        "clip_gradients",
        wrong=lambda params, max_norm: nn.utils.clip_grad_value_(params, max_norm),
        hint="You cut off each number at max_norm. The largest ones come out alike and the rest "
        "untouched, which turns the step away from the gradient: one factor for all keeps its "
        "direction.",
    ),
    Misconception(
        "AdamW",
        wrong=DecaysThroughTheGradient,
        hint="Your decay is part of the gradient, which is Adam with L2. There it is divided by "
        "the root of the average square too, so weights with large gradients hardly decay; the W "
        "of AdamW shrinks the weight itself, apart from the gradient.",
    ),
    Misconception(
        "AdamW",
        wrong=TrustsTheFirstAverages,
        hint="Both averages start at 0 and stay too small for many steps, the squares longest, so "
        "your early steps are too long, up to six times with PyTorch's betas. Correct each for its "
        "start: that is what the count of steps is for.",
    ),
    Misconception(
        "train_step",
        wrong=add_to_the_old_gradients,
        hint="backward() adds to the gradients that are there, and those of earlier batches still "
        "are. Each step would follow the sum of all batches so far; forget them first.",
    ),
    Misconception(
        "train_step",
        wrong=clip_after_the_step,
        hint="The optimizer used the gradients at full length. Clipping protects the weights from "
        "one wild batch only if it comes before the step, when the backward pass is done.",
    ),
    Misconception(
        "train_step",
        wrong=add_up_the_means,
        hint="With `accumulate` you add up the mean losses of the parts, so the gradients are "
        "those of the batch times the number of parts. Each part is only a share of the mean.",
    ),
    Misconception(
        "train_step",
        wrong=clip_what_is_scaled,
        hint="With a scaler you clip gradients that are still thousands of times too long. They "
        "come out of it at `max_norm`, are divided afterwards, and hardly move a weight: unscale "
        "first.",
    ),
    Misconception(
        "train_step",
        wrong=with_a_rounded_loss,
        hint="With `bf16` the loss itself is computed in 8 bits, where 4.17 and 4.19 are one "
        "number. Leave autocast after the forward pass, and take the loss of the logits as "
        "float32.",
    ),
]
