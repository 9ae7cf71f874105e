"""Training: batches, the loss, the optimizer, the schedule, and the loop that joins them.

Shapes: B batch, T positions (the block size), vocab_size characters. Losses are in nats.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tiny_transformer.setup.limits import LARGEST_FLOAT, check_number
from tiny_transformer.tiny_lm.reference import in_evaluation
from tiny_transformer.training.eager import EagerAdamW

WHOLE = slice(None)
GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are nanoGPT's published recipe for two laptop cores.

    Raises:
        ValueError: names the field whose value cannot train.
    """

    batch_size: int = 12  # sequences in one optimizer step
    accumulate: int = 1  # forward and backward passes that the batch is split into
    max_steps: int = 2000  # optimizer steps in all
    warmup_steps: int = 100  # in which the learning rate rises to max_lr
    max_lr: float = 1e-3  # the highest learning rate
    min_lr: float = 1e-4  # the learning rate of the end
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW's: how long its averages remember
    weight_decay: float = 0.1  # of matrices; biases and norms have none
    ngram_decay: float | None = None  # of the n-grams' tables; None: as other matrices
    max_norm: float = 1.0  # gradients longer than this are shortened to it
    schedule: Literal["cosine", "wsd"] = "cosine"  # wsd: warm up, stay, decay
    decay_fraction: float = 0.6  # of the steps, in which "wsd" goes down to min_lr
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the blocks' matrices
    muon_lr: float = 0.02  # for the blocks' matrices; the rest keeps AdamW and max_lr
    order: Literal["random", "even"] = "random"  # in which windows of the text are read

    def __post_init__(self):
        for name in ("batch_size", "accumulate"):
            check_number(name, getattr(self, name), least=1, whole=True)
        for name in ("max_norm", "muon_lr"):
            check_number(name, getattr(self, name), above=0, most=LARGEST_FLOAT)
        check_schedule(self.warmup_steps, self.max_steps, self.max_lr, self.min_lr)
        check_number("decay_fraction", self.decay_fraction, above=0, most=1)
        check_number("weight_decay", self.weight_decay, least=0, most=LARGEST_FLOAT)
        if self.ngram_decay is not None:
            check_number("ngram_decay", self.ngram_decay, least=0, most=LARGEST_FLOAT)
        check_betas(self.betas)
        for name, choices in (
            ("schedule", ("cosine", "wsd")),
            ("optimizer", ("adamw", "muon")),
            ("order", ("random", "even")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {choices}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is {self.accumulate}; it must divide batch_size, {self.batch_size}"
            )


def training_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tokens: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    start: int = 0,
    bf16: bool = False,
    share: slice = WHOLE,
    scaler: torch.amp.GradScaler | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The loop: train on `tokens` (N,) and yield (steps done, loss) after each step.

    Everything random comes from `generator` and, for dropout, from PyTorch's own state: a run whose
    states are saved after step n and restored goes on with `start=n` as if nothing had happened.
    `share` says which sequences of a batch to train on, where several processes share it, and a
    `scaler` makes the steps float16, see `train_step`.
    """
    device = next(model.parameters()).device
    for step in range(start, config.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config) * group.get("lr_scale", 1.0)
        shape = config.batch_size, model.config.max_len
        if config.order == "even":
            batch = even_batch(tokens, *shape, step)
        else:
            batch = get_batch(tokens, *shape, generator)
        # A long text stays where it lies, in a type smaller than F.embedding takes.
        inputs, targets = (part[share].to(device, torch.long) for part in batch)
        loss = train_step(
            model, optimizer, inputs, targets, config.max_norm, config.accumulate, bf16, scaler
        )
        yield step + 1, loss


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
    """One step down the gradient of the loss on inputs, targets (B, T). Returns the loss, ().

    `accumulate` splits the batch into that many passes whose gradients add up to the same
    step in a fraction of the memory. `bf16` computes the forward pass in bfloat16 where safe, a
    `scaler` in float16: it multiplies the loss, so that small gradients do not become 0, and
    leaves a step out where large ones overflow (Micikevicius et al. 2018, section 3.2).
    """
    kind = inputs.device.type
    half, dtype = (bf16, torch.bfloat16) if scaler is None else (True, torch.float16)
    scaler = scaler or torch.amp.GradScaler(kind, enabled=False)  # one that does nothing
    model.train()
    optimizer.zero_grad()
    total = torch.zeros((), device=inputs.device)
    for x, y in zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True):
        with torch.autocast(kind, dtype, enabled=half):
            logits = model(x)
        loss = cross_entropy(logits.float(), y) * (len(y) / len(targets))
        scaler.scale(loss).backward()
        total += loss.detach()
    scaler.unscale_(optimizer)
    clip_gradients(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    return total


@torch.no_grad()
def evaluate(model: nn.Module, tokens: Tensor, bf16: bool = False, at_once: int = 4096) -> float:
    """Mean loss on `tokens` (N,), all but the first predicted once, in windows of the context.

    The model reads about `at_once` tokens in a pass.
    """
    if len(tokens) < 2:
        raise ValueError(f"tokens has {len(tokens)} tokens; a loss needs at least 2")
    if tokens.dim() != 1:
        raise ValueError(f"tokens is {tuple(tokens.shape)}; it must be (N,)")
    T, targets, total = model.config.max_len, tokens[1:], 0.0
    rows = max(1, at_once // T)
    # Filled up to whole windows; what the model says about the filling is cut off again.
    windows = nn.functional.pad(tokens[:-1], (0, -len(targets) % T)).view(-1, T)
    with in_evaluation(model):
        for x, y in zip(windows.split(rows), targets.split(rows * T), strict=True):
            x, y = x.long(), y.long()
            with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
                logits = model(x).flatten(0, 1)[: len(y)]  # (B T, vocab_size)
            total += cross_entropy(logits.float(), y).item() * len(y)
    return total / len(targets)


def split_corpus(tokens: Tensor, val_fraction: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cut (N,) tokens into training and validation, the last `val_fraction` of them.

    The cut is in time, not shuffled: neighboring windows overlap, and would leak.
    """
    check_number("val_fraction", val_fraction, above=0, below=1)
    cut = int(len(tokens) * (1 - val_fraction))
    return tokens[:cut], tokens[cut:]


def get_batch(
    tokens: Tensor, batch_size: int, block_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random windows of (N,) tokens: inputs and targets (B, T), targets one step later.

    Every window is equally likely; a text of no more than `block_size` tokens has none.
    """
    windows = count_windows(tokens, batch_size, block_size)
    starts = torch.randint(windows, (batch_size, 1), generator=generator)
    return windows_at(starts, tokens, block_size)


def even_batch(
    tokens: Tensor, batch_size: int, block_size: int, step: int
) -> tuple[Tensor, Tensor]:
    """The batch of `step` = 0, 1, ... if windows come not at random but spread over the text.

    Window i starts at the fractional part of i times the golden ratio, with the text's length as 1:
    always in one of the widest gaps that the windows before have left (Knuth 1998, section 6.4).
    """
    windows = count_windows(tokens, batch_size, block_size)
    i = torch.arange(step * batch_size, (step + 1) * batch_size, dtype=torch.float64).unsqueeze(1)
    starts = (i * GOLDEN_RATIO % 1 * windows).long()
    return windows_at(starts, tokens, block_size)


def count_windows(tokens: Tensor, batch_size: int, block_size: int) -> int:
    if tokens.dim() != 1:
        raise ValueError(f"tokens is {tuple(tokens.shape)}; it must be (N,)")
    check_number("batch_size", batch_size, least=1, whole=True)
    check_number("block_size", block_size, least=1, whole=True)
    if (N := len(tokens)) <= block_size:
        raise ValueError(f"tokens has {N}; block_size {block_size} needs {block_size + 1} or more")
    return N - block_size


def windows_at(starts: Tensor, tokens: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """starts (B, 1) in tokens (N,) -> inputs and targets (B, T)."""
    windows = tokens[(starts + torch.arange(block_size + 1)).to(tokens.device)]
    return windows[:, :-1], windows[:, 1:]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -ln p(target): logits (..., vocab_size), targets (...) -> ().

    The log of the softmax is taken as log-sum-exp, which neither overflows nor takes ln 0.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"targets are {[*targets.shape]}; logits need {[*logits.shape[:-1]]}")
    if not targets.numel():
        raise ValueError("targets is empty; a mean loss needs at least one")
    scores = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return (logits.logsumexp(dim=-1) - scores).mean()


def perplexity(loss: Tensor | float) -> float:
    """exp(loss): among how many equally likely tokens the model seems to choose."""
    return math.exp(loss)


def warmup_cosine(
    step: int, warmup_steps: int, max_steps: int, max_lr: float, min_lr: float
) -> float:
    """The learning rate of `step` = 0, 1, ...: a line up to max_lr, half a cosine down to min_lr.

    Starts at max_lr / (warmup_steps + 1), reaches max_lr at `warmup_steps` and min_lr at
    `max_steps`, and stays there (Loshchilov and Hutter 2017).
    """
    check_schedule(warmup_steps, max_steps, max_lr, min_lr)
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def warmup_stable_decay(
    step: int,
    warmup_steps: int,
    max_steps: int,
    max_lr: float,
    min_lr: float,
    decay_fraction: float = 0.6,
) -> float:
    """The learning rate of `step`: a line up to max_lr, a plateau, a line down to min_lr.

    The line down takes the last `decay_fraction` of the steps (Hu et al. 2024, MiniCPM).
    """
    check_schedule(warmup_steps, max_steps, max_lr, min_lr)
    check_number("decay_fraction", decay_fraction, above=0, most=1)
    rising = max_lr * min(1.0, (step + 1) / (warmup_steps + 1))
    left = max(0.0, min(1.0, (max_steps - step) / (decay_fraction * max_steps)))
    return min(rising, min_lr + (max_lr - min_lr) * left)


def check_schedule(warmup_steps: int, max_steps: int, max_lr: float, min_lr: float) -> None:
    check_number("warmup_steps", warmup_steps, least=0, whole=True)
    check_number("max_steps", max_steps, least=1, whole=True)
    check_number("max_lr", max_lr, above=0, most=LARGEST_FLOAT)
    check_number("min_lr", min_lr, least=0)
    if min_lr > max_lr:
        raise ValueError(f"min_lr is {min_lr}; it must be at most max_lr, which is {max_lr}")


def learning_rate(step: int, config: TrainConfig) -> float:
    recipe = config.warmup_steps, config.max_steps, config.max_lr, config.min_lr
    if config.schedule == "wsd":
        return warmup_stable_decay(step, *recipe, config.decay_fraction)
    return warmup_cosine(step, *recipe)


def clip_gradients(params: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten all gradients by one factor so that together they are at most `max_norm` long.

    Returns the length before. The direction of the step stays (Pascanu et al. 2013).
    """
    if not max_norm > 0:  # inf is right: nothing is shortened, and the length returned
        raise ValueError(f"max_norm is {max_norm}; it must be above 0")
    if not (params := list(params)):
        raise ValueError("params is empty; a generator, like model.parameters(), is so once read")
    gradients = [p.grad for p in params if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return norm


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            check_number(name, value, least=0)
        check_betas(betas)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            self.update(group)

    def update(self, group: dict) -> None:
        lr, (beta_1, beta_2) = group["lr"], group["betas"]
        for p in (p for p in group["params"] if p.grad is not None):
            state = self.state[p]
            if not state:
                state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - beta_1)
            state["square"].lerp_(p.grad.square(), 1 - beta_2)
            # Both averages start at 0; dividing by 1 - beta^t makes up for it.
            mean = state["mean"] / (1 - beta_1 ** state["step"])
            square = state["square"] / (1 - beta_2 ** state["step"])
            p.mul_(1 - lr * group["weight_decay"])
            p.sub_(lr * mean / (square.sqrt() + group["eps"]))


def check_betas(betas: tuple[float, float]) -> None:
    if len(betas) != 2:
        raise ValueError(f"betas is {betas}; it must be two numbers")
    for beta in betas:
        check_number("betas", beta, least=0, below=1)


# muon.py needs AdamW, so it comes after it; not inside `make_optimizer`, since AdamW may be yours
# by the time that is called (--mine); not by `from`, which fails where muon.py is imported first.
import tiny_transformer.training.muon as muon  # noqa: E402


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """PyTorch's fused AdamW, equal to ours and faster; only matrices decay, not biases or norms.

    Where the recipe says so, Muon for the matrices inside the blocks, and another weight decay for
    the tables of n-grams.
    """
    matrices = {name: p for name, p in model.named_parameters() if p.dim() >= 2}
    others = [p for p in model.parameters() if p.dim() < 2]

    def taken(part: str) -> list[nn.Parameter]:
        return [matrices.pop(name) for name in [*matrices] if name.startswith(part)]

    decay, apart = config.weight_decay, []
    if config.optimizer == "muon":
        scale = config.muon_lr / config.max_lr
        inner = dict(params=taken("blocks."), momentum=0.95, lr_scale=scale, weight_decay=decay)
        apart.append(inner)
    if config.ngram_decay is not None and (tables := taken("ngrams.")):
        # A row is read seldom, and would keep what it learned by heart from one place of the text.
        apart.append(dict(params=tables, weight_decay=config.ngram_decay))
    groups = [
        dict(params=[*matrices.values()], weight_decay=decay),
        dict(params=others, weight_decay=0.0),
        *apart,
    ]
    if config.optimizer == "muon":
        return muon.Muon(groups, config.max_lr, config.betas, weight_decay=0.0)
    return fused_adamw(groups, config.max_lr, config.betas)


def fused_adamw(groups: list[dict], lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    return EagerAdamW(groups, lr, betas, weight_decay=0.0, fused=True)
