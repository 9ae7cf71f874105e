"""The capstone from your own exercises: each takes the place of the reference that it solves.

Your code needs only what the exercises ask for. Where the reference takes more, such as the
`rotate` of attention, yours is fitted with it from the outside; sampling does without a cache.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings.reference import TransformerEmbedding
from tiny_transformer.multihead.reference import MultiHeadAttention, merge_heads, split_heads
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.grading.diagnosis import diagnose, why_broken
from tiny_transformer.setup.grading.progress import Exercise, folders, read_exercises
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import AdamW, TrainConfig, make_optimizer, train_step
from tiny_transformer.transformer_block.reference import FeedForward, TransformerBlock

ROOT = Path(__file__).resolve().parents[1]
Swaps = dict[Any, Any]  # what stands in the course's modules, and what shall stand there instead


@dataclass(frozen=True)
class Part:
    """An exercise, the reference's solution and yours."""

    exercise: Exercise
    ours: Any
    yours: Any
    started: bool


@contextmanager
def your_parts() -> Iterator[str]:
    """Put each exercise that is started in the place of its reference; yields a table of them.

    Raises:
        ValueError: with the diagnosis of the first exercise that is wrong, before anything starts.
    """
    parts = find_parts()
    swaps = {part.ours: fitted(part.ours, part.yours) for part in parts if part.started}
    if AdamW in swaps:
        swaps[make_optimizer] = optimizer_of(swaps[AdamW])
    swaps[generate] = without_cache(swaps.get(generate, generate))
    model = swaps.get(TinyTransformerLM, TinyTransformerLM)
    swaps[TinyTransformerLM] = fitted_model(model, dict(swaps))
    # What is started may call what is not, in the same file.
    swaps |= {part.yours: part.ours for part in parts if not part.started}
    with swapped(swaps):
        yield table(parts)


def find_parts() -> list[Part]:
    parts = []
    for folder in folders(ROOT):
        topic, file = folder.split("_", 1)[1], f"{folder}/exercises.py"
        reference = importlib.import_module(f"tiny_transformer.{topic}.reference")
        try:
            exercises = importlib.import_module(f"tiny_transformer.{topic}.exercises")
        except Exception as error:
            raise ValueError(why_broken(error, ROOT, file)) from error
        for exercise in read_exercises(ROOT, folder, {}):
            yours = getattr(exercises, exercise.name)
            started = not exercise.stub and is_right(topic, exercise, yours)
            parts.append(Part(exercise, getattr(reference, exercise.name), yours, started))
    return parts


def is_right(topic: str, exercise: Exercise, yours: Callable) -> bool:
    """Whether it does what it should on plain input; False where it is not started to the end.

    Raises:
        ValueError: with the diagnosis of what it does instead.
    """
    try:
        problem = diagnose(topic, exercise.name, yours)
    except NotImplementedError:
        return False
    except Exception as error:
        problem = f"{exercise.name} raises {type(error).__name__}: {error}"
    if problem:
        where = f"{exercise.file}:{exercise.line}"
        raise ValueError(f"{where}: {exercise.name} is not right yet.\n{problem}")
    return True


def table(parts: list[Part]) -> str:
    lines = []
    for file, group in groupby(parts, lambda part: part.exercise.file):
        group = list(group)
        for whose, started in (("yours", True), ("reference", False)):
            names = ", ".join(part.exercise.name for part in group if part.started is started)
            if names:
                lines.append(f"{file.split('/')[0]:22}{whose:11}{names}")
    return "\n".join(lines)


@contextmanager
def swapped(swaps: Swaps) -> Iterator[None]:
    """Meanwhile every module of the course has the new thing under each name of the old one."""
    changes = [
        (module, name, value)
        for module in list(sys.modules.values())
        if module.__name__.startswith("tiny_transformer.") and module.__name__ != __name__
        for name, value in vars(module).items()
        if inspect.isroutine(value) or inspect.isclass(value)
        if value in swaps
    ]
    for module, name, value in changes:
        setattr(module, name, swaps[value])
    try:
        yield
    finally:
        for module, name, value in changes:
            setattr(module, name, value)


def fitted(ours: Any, yours: Any) -> Any:
    """Yours, able to take what the reference takes beyond what the exercise asks for."""
    fits = {
        MultiHeadAttention: fitted_attention,
        FeedForward: fitted_feed_forward,
        TransformerBlock: fitted_block,
        TransformerEmbedding: fitted_embedding,
        train_step: fitted_train_step,
    }
    return fits[ours](yours) if ours in fits else yours


def fitted_attention(yours: type[nn.Module]) -> type[nn.Module]:
    class Fitted(yours):
        def __init__(
            self,
            d_model: int,
            n_heads: int,
            dropout: float = 0.0,
            causal: bool = True,
            bias: bool = True,
            qk_norm: bool = False,
        ):
            refuse(qk_norm=qk_norm)
            super().__init__(d_model, n_heads, dropout, causal)
            self.fitted_heads = n_heads
            if not bias:
                drop_biases(self)

        def forward(
            self,
            x: Tensor,
            return_weights: bool = False,
            rotate: Callable[[Tensor], Tensor] | None = None,
            remember: None = None,
        ) -> Tensor | tuple[Tensor, Tensor]:
            if rotate is None:
                return super().forward(x, return_weights)

            def turn(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
                return merge_heads(rotate(split_heads(output, self.fitted_heads)))

            hooks = [layer.register_forward_hook(turn) for layer in (self.q_proj, self.k_proj)]
            try:
                return super().forward(x, return_weights)
            finally:
                for hook in hooks:
                    hook.remove()

    return Fitted


def fitted_feed_forward(yours: type[nn.Module]) -> type[nn.Module]:
    class Fitted(yours):
        def __init__(
            self,
            d_model: int,
            d_ff: int,
            dropout: float = 0.0,
            bias: bool = True,
            activation: str = "gelu",
        ):
            refuse(activation=activation != "gelu")
            super().__init__(d_model, d_ff, dropout)
            if not bias:
                drop_biases(self)

    return Fitted


def fitted_block(yours: type[nn.Module]) -> type[nn.Module]:
    class Fitted(yours):
        def __init__(
            self,
            d_model: int,
            n_heads: int,
            d_ff: int,
            dropout: float = 0.0,
            norm: Callable[[int], nn.Module] | None = None,
            bias: bool = True,
            qk_norm: bool = False,
            activation: str = "gelu",
        ):
            refuse(qk_norm=qk_norm, activation=activation != "gelu")
            super().__init__(d_model, n_heads, d_ff, dropout)
            if norm is not None:
                self.ln_1, self.ln_2 = norm(d_model), norm(d_model)
            if not bias:
                drop_biases(self)

        def forward(
            self,
            x: Tensor,
            rotate: Callable[[Tensor], Tensor] | None = None,
            remember: None = None,
        ) -> Tensor:
            def hand_over(layer: nn.Module, inputs: tuple, options: dict) -> tuple[tuple, dict]:
                return inputs, {**options, "rotate": rotate}

            hook = self.attention.register_forward_pre_hook(hand_over, with_kwargs=True)
            try:
                return super().forward(x)
            finally:
                hook.remove()

    return Fitted


def refuse(**switches: bool) -> None:
    for name in (name for name, on in switches.items() if on):
        raise ValueError(f"your blocks do without {name}: leave it as it is")


def fitted_embedding(yours: type[nn.Module]) -> type[nn.Module]:
    class Fitted(yours):
        def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
            return super().forward(tokens)

    return Fitted


def fitted_train_step(yours: Callable) -> Callable:
    def fitted(
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        inputs: Tensor,
        targets: Tensor,
        max_norm: float,
        accumulate: int = 1,
        bf16: bool = False,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Tensor:
        if accumulate > 1 or bf16 or scaler is not None:
            raise ValueError(
                "your train_step takes whole batches in float32: leave out the option "
                "accumulate, bf16 or fp16"
            )
        return yours(model, optimizer, inputs, targets, max_norm)

    return fitted


def fitted_model(base: type[nn.Module], swaps: Swaps) -> type[nn.Module]:
    """With the reference's first weights, so that your run and its run can be compared."""

    class Fitted(base):
        def __init__(self, config: ModelConfig):
            with torch.random.fork_rng(devices=[]):
                super().__init__(config)
            with swapped({new: old for old, new in swaps.items()}):
                weights = TinyTransformerLM(config).state_dict()
            names = self.state_dict().keys()
            if names != weights.keys():
                raise ValueError(
                    "your model's weights have other names than the reference's: it lacks "
                    f"{sorted(weights.keys() - names)} and has {sorted(names - weights.keys())}"
                )
            self.load_state_dict(weights)

        def forward(self, tokens: Tensor, cache: None = None) -> Tensor:
            return super().forward(tokens)

    return Fitted


def drop_biases(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.bias = None


def optimizer_of(yours: Callable) -> Callable:
    def make(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in make_optimizer(model, config).param_groups
        ]
        return yours(groups, config.max_lr, config.betas)

    return make


def without_cache(yours: Callable) -> Callable:
    def generate(*args: Any, **options: Any) -> Tensor:
        return yours(*args, **options, use_cache=False)

    return generate
