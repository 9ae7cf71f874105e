"""Optional arguments of the exercises, and whether your code does what they ask.

A door is left alone at first: attention works without `rotate`. A run that needs one goes through
yours if, with the same weights, the same comes out as from the reference.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.capstone.reference import build_model
from tiny_transformer.embeddings.reference import POSITIONS, TransformerEmbedding, rotate
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.speed import choose_arithmetic
from tiny_transformer.multihead.reference import MultiHeadAttention
from tiny_transformer.sampling.reference import KVCache, generate
from tiny_transformer.setup.device import choose_device
from tiny_transformer.setup.grading.doors import takes
from tiny_transformer.setup.grading.families import explain
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import train_step
from tiny_transformer.transformer_block.reference import TransformerBlock

ATTENTION, BLOCK = (8, 2), (8, 2, 16)  # what their constructors are given
SHAPE = ModelConfig(vocab_size=7, max_len=6, d_model=8, n_layers=2, n_heads=2, d_ff=16)


@dataclass(frozen=True)
class Door:
    """An optional argument of an exercise, and a trial that uses it, or does without."""

    part: Any  # the reference
    argument: str
    trial: Callable[[Any, bool], Any]

    def closed(self, yours: Any) -> str | None:
        """Why no run can go through yours; None if it can."""
        if not takes(yours, self.argument):
            return f"does not take `{self.argument}`"
        try:
            used = outcome(self.trial, yours, True)
        except NotImplementedError:
            return f"does not use `{self.argument}`"
        except Exception as error:
            return f"fails with `{self.argument}`: {type(error).__name__}: {error}"
        if explain(used, outcome(self.trial, yours, False), {}) is None:
            return f"does not use `{self.argument}`"
        if explain(used, outcome(self.trial, self.part, True), {}):
            return f"gives something else with `{self.argument}` than the reference"
        return None


def outcome(trial: Callable[[Any, bool], Any], part: Any, use: bool) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        return trial(part, use)


def of_model(config: ModelConfig) -> list[Door]:
    """What the model of this configuration asks of its parts."""
    doors = [Door(build_model, "config", partial(build_with, config))]
    if config.positions == "rope":
        return [*doors, TURNING, HANDING_ON_THE_TURN]
    return [*doors, TURNING] if config.qk_norm else doors


def of_training(config: RunConfig) -> list[Door]:
    """What training with these settings asks of the parts."""
    doors = of_model(config.model)
    arithmetic = choose_arithmetic(config, choose_device(config.device))
    if config.train.accumulate > 1:
        doors += [ACCUMULATING]
    if arithmetic.bf16:
        doors += [IN_BFLOAT16]
    if arithmetic.fp16:
        doors += [SCALING]
    return doors


def build_with(config: ModelConfig, build_model: Any, use: bool) -> list[str]:
    names = {name: getattr(SHAPE, name) for name in ("max_len", "d_model", "n_heads", "n_layers")}
    other = replace(SHAPE, vocab_size=99, dropout=0.5)
    model, _ = build_model(replace(config, **names) if use else other, "to be")
    return [str(model.config), *model.state_dict()]


def with_fixed_weights(module: nn.Module) -> nn.Module:
    torch.default_generator.manual_seed(1)
    for _, parameter in sorted(module.named_parameters()):
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def turn(x: Tensor) -> Tensor:
    return rotate(x, torch.arange(3, 3 + x.size(-2)))


def after_two_others(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    past = torch.randn(2, *k.shape[:2], 2, k.size(-1), generator=torch.Generator().manual_seed(2))
    return torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)


def attend(sizes: tuple[int, ...], layer: Any, use: bool, **door: Any) -> Tensor:
    layer = with_fixed_weights(layer(*sizes))
    return layer(torch.randn(2, 3, 8), **door if use else {})


def embed(embedding: Any, use: bool) -> list[Tensor]:
    tokens, door = torch.randint(7, (2, 6)), {"start": 2} if use else {}
    return [
        with_fixed_weights(embedding(7, 8, 6, positions=positions))(tokens, **door)
        for positions in POSITIONS
    ]


def read_twice(model: Any, use: bool) -> Tensor:
    layer, tokens = with_fixed_weights(model(SHAPE)), torch.randint(7, (2, 6))
    if not use:
        return layer(tokens)
    cache = KVCache(SHAPE, 2)
    layer(tokens[:, :3], cache=cache)
    return layer(tokens, cache=cache)


def continue_two(generate: Any, use: bool) -> Tensor:
    model, tokens = with_fixed_weights(TinyTransformerLM(SHAPE)), torch.randint(7, (2, 4))
    door = {"lengths": torch.tensor([2, 4])} if use else {}
    text = generate(model, tokens, 8, temperature=0, **door)
    text[0, 10:] = 0  # behind its end a row may hold anything
    return text


class Cached(TinyTransformerLM):
    """A model that notes whether it was ever given a cache."""

    given = False

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        self.given |= cache is not None
        return super().forward(tokens, cache)


def continue_one(generate: Any, use: bool) -> list[Tensor]:
    model = with_fixed_weights(Cached(SHAPE))
    text = generate(model, torch.randint(7, (2, 4)), 8, temperature=0, use_cache=use)
    return [text, torch.tensor(model.given)]


class Listener(nn.Module):
    """A model that notes how many rows it was given, and in what its products are computed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 7))
        self.heard: list[Tensor] = []

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.weight[tokens] @ self.weight
        self.heard.append(torch.tensor([len(tokens), torch.finfo(scores.dtype).bits]))
        return scores


def step(train_step: Any, use: bool, **door: Any) -> list[Tensor]:
    model, batch = Listener(), torch.randint(7, (2, 4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.enable_grad():
        loss = train_step(model, optimizer, *batch, 1.0, **door if use else {})
    return [*model.heard, loss, model.weight.detach()]


def scaled_step(train_step: Any, use: bool) -> list[Tensor]:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    results = step(train_step, use, scaler=scaler)
    return [*results, torch.tensor(scaler.state_dict()["_growth_tracker"])]  # steps it has seen


TURNING = Door(MultiHeadAttention, "rotate", partial(attend, ATTENTION, rotate=turn))
HANDING_ON_THE_TURN = Door(TransformerBlock, "rotate", partial(attend, BLOCK, rotate=turn))
ACCUMULATING = Door(train_step, "accumulate", partial(step, accumulate=2))
IN_BFLOAT16 = Door(train_step, "bf16", partial(step, bf16=True))
SCALING = Door(train_step, "scaler", scaled_step)
LENGTHS = Door(generate, "lengths", continue_two)
CACHED = [
    Door(MultiHeadAttention, "remember", partial(attend, ATTENTION, remember=after_two_others)),
    Door(TransformerBlock, "remember", partial(attend, BLOCK, remember=after_two_others)),
    Door(TransformerEmbedding, "start", embed),
    Door(TinyTransformerLM, "cache", read_twice),
    Door(generate, "use_cache", continue_one),
]
