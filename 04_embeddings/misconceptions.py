"""Wrong turns that learners take in module 04, and what to say to each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings import reference
from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.setup.grading.doors import heeds

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5]])


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    """The same numbers for the same names, whatever order they were made in."""
    with torch.no_grad():
        for seed, (_, p) in enumerate(sorted(module.named_parameters())):
            p.copy_(some(*p.shape, seed=seed))
    return module


@probe("CharTokenizer")
def there_and_back_again(CharTokenizer: Callable) -> Any:
    tokenizer = CharTokenizer("to be, or not to be")
    return [
        tokenizer.vocab_size,
        list(tokenizer.encode("not")),
        tokenizer.decode(tokenizer.encode("rebot")),
        tokenizer.decode(torch.tensor([0, 2, 1])),
        f"for a character outside the vocabulary: {outcome(tokenizer.encode, 'tax')}",
    ]


def outcome(function: Callable, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ValueError:
        return "ValueError"


@probe("TokenEmbedding", B=2, T=5, vocab_size=9, d_model=6)
def rows_of_a_known_table(TokenEmbedding: Callable) -> Any:
    return filled(TokenEmbedding(9, 6))(TOKENS)


@probe("sinusoidal_positions", T=5, d_model=6)
def five_positions(sinusoidal_positions: Callable) -> Any:
    return sinusoidal_positions(5, 6)


@probe("LearnedPositions", T=4, max_len=7, d_model=6)
def positions_in_the_middle(LearnedPositions: Callable) -> Any:
    return filled(LearnedPositions(7, 6))(torch.tensor([4, 2, 3, 5]))


@probe("TransformerEmbedding", B=2, T=5, max_len=7, vocab_size=9, d_model=6)
def three_kinds_of_positions(TransformerEmbedding: Callable) -> Any:
    kinds = {
        kind: filled(TransformerEmbedding(9, 6, 7, positions=kind)) for kind in reference.POSITIONS
    }
    sinusoidal = kinds["sinusoidal"]
    noisy = TransformerEmbedding(9, 6, 7, dropout=0.5)
    starts = heeds(kinds["learned"], "start", 2, TOKENS)
    return [
        *(embedding(TOKENS) for embedding in kinds.values()),
        *(
            embedding(TOKENS, start=2) if starts else embedding(TOKENS)[:, 2:]
            for embedding in kinds.values()
        ),
        {
            "sinusoidal positions learn nothing": len(list(sinusoidal.parameters())) == 1,
            "in training dropout zeroes features": bool((noisy(TOKENS) == 0).any()),
        },
    ]


@probe("rotate", B=2, T=5, d_head=6)
def positions_that_do_not_start_at_zero(rotate: Callable) -> Any:
    return rotate(some(2, 5, 6), torch.tensor([3, 4, 9, 5, 6]))


class CountsAsTheyCome(reference.CharTokenizer):
    def __init__(self, text: str):
        super().__init__(text)
        self.characters = list(dict.fromkeys(text))
        self.ids = {character: i for i, character in enumerate(self.characters)}


class SkipsTheUnknown(reference.CharTokenizer):
    def encode(self, text: str) -> list[int]:
        return [self.ids[character] for character in text if character in self.ids]


class TakesTheUnknownForTheFirst(reference.CharTokenizer):
    def encode(self, text: str) -> list[int]:
        return [self.ids.get(character, 0) for character in text]


class ScalesTheRows(reference.TokenEmbedding):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * self.weight.size(1) ** 0.5


def sines_then_cosines(T: int, d_model: int) -> Tensor:
    cos, sin = reference.rotary_table(torch.arange(T), d_model)
    return torch.cat((sin, cos), dim=1)


def cosines_first(T: int, d_model: int) -> Tensor:
    cos, sin = reference.rotary_table(torch.arange(T), d_model)
    return torch.stack((cos, sin), dim=-1).flatten(1)


def from_position_one(T: int, d_model: int) -> Tensor:
    cos, sin = reference.rotary_table(torch.arange(1, T + 1), d_model)
    return torch.stack((sin, cos), dim=-1).flatten(1)


def half_the_exponent(T: int, d_model: int) -> Tensor:
    angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(d_model // 2) / d_model)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def whole_exponents(T: int, d_model: int) -> Tensor:
    angles = torch.arange(T)[:, None] / 10000.0 ** (torch.arange(0, d_model, 2) // d_model)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class LooksUpColumns(reference.LearnedPositions):
    def forward(self, positions: Tensor) -> Tensor:
        return self.weight[:, positions]


class CountsForItself(reference.LearnedPositions):
    def forward(self, positions: Tensor) -> Tensor:
        return self.weight[: len(positions)]


class ForgetsWhereTokensStand(reference.TransformerEmbedding):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.token(tokens))


class MultipliesByPositions(reference.TransformerEmbedding):
    def forward(self, tokens: Tensor) -> Tensor:
        x, plain = super().forward(tokens), self.token(tokens)
        return x if torch.equal(x, plain) else plain * (x - plain)


class LearnsTheWaves(reference.TransformerEmbedding):
    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        max_len: int,
        dropout: float = 0.0,
        positions: str = "learned",
    ):
        learned = "learned" if positions == "sinusoidal" else positions
        super().__init__(vocab_size, d_model, max_len, dropout, learned)
        if positions == "sinusoidal":
            self.position.weight.data = reference.sinusoidal_positions(max_len, d_model)


class AddsWavesToRope(reference.TransformerEmbedding):
    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        max_len: int,
        dropout: float = 0.0,
        positions: str = "learned",
    ):
        waves = "sinusoidal" if positions == "rope" else positions
        super().__init__(vocab_size, d_model, max_len, dropout, waves)


class CountsTheRestFromZero(reference.TransformerEmbedding):
    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        return super().forward(tokens[:, start:])


class TakesAllTokensForNew(reference.TransformerEmbedding):
    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        before = tokens[:, :1].expand(-1, start)
        return super().forward(torch.cat((before, tokens), dim=1), start)


def turn_neighbors(x: Tensor, positions: Tensor) -> Tensor:
    cos, sin = reference.rotary_table(positions, x.size(-1))
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def turn_without_pairs(x: Tensor, positions: Tensor) -> Tensor:
    cos, sin = reference.rotary_table(positions, x.size(-1))
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, a * sin + b * cos), dim=-1)


def turn_by_what_is_turned(x: Tensor, positions: Tensor) -> Tensor:
    cos, sin = reference.rotary_table(positions, x.size(-1))
    a, b = x.chunk(2, dim=-1)
    a = a * cos - b * sin
    return torch.cat((a, a * sin + b * cos), dim=-1)


MISCONCEPTIONS = [
    Misconception(
        "CharTokenizer",
        wrong=CountsAsTheyCome,
        hint="Your ids follow the order in which characters first appear. Sort them: otherwise two "
        "texts with the same characters give different ids, and a saved model speaks gibberish.",
    ),
    Misconception(
        "CharTokenizer",
        wrong=SkipsTheUnknown,
        hint="A character outside the vocabulary is left out in silence: decoding then gives "
        "another text than the one that was encoded. Say which character it was.",
    ),
    Misconception(
        "CharTokenizer",
        wrong=TakesTheUnknownForTheFirst,
        hint="A character outside the vocabulary becomes id 0, which belongs to another character. "
        "The model would read what nobody wrote; raise a ValueError that names it.",
    ),
    Misconception(
        "TokenEmbedding",
        wrong=ScalesTheRows,
        hint="You multiply the vectors by sqrt(d_model), as the paper of 2017 does. Here the table "
        "is used as it is; scaled, it would drown the positions that are added to it.",
    ),
    Misconception(
        "sinusoidal_positions",
        wrong=sines_then_cosines,
        hint="All sines come first, then all cosines. They should alternate: feature 2i is the "
        "sine and 2i + 1 the cosine of the same angle, side by side as the pair that turns.",
    ),
    Misconception(
        "sinusoidal_positions",
        wrong=cosines_first,
        hint="Sine and cosine have changed places: even features are sines, so that position 0 "
        "reads 0, 1, 0, 1.",
    ),
    Misconception(
        "sinusoidal_positions",
        wrong=from_position_one,
        hint="Your positions start at 1. They start at 0, like every index: row t is position t.",
    ),
    Misconception(
        "sinusoidal_positions",
        wrong=half_the_exponent,
        hint="Your waves run as if the exponent were half of 2i / d_model, or 10000 were 100. The "
        "slowest is then nearly a hundred times too fast, and distant positions look alike.",
    ),
    Misconception(
        "sinusoidal_positions",
        wrong=whole_exponents,
        hint="All your waves have the same speed: `//` rounds 2i / d_model down to 0 for every "
        "pair, so no exponent is left. Divide with `/`.",
    ),
    Misconception(
        "LearnedPositions",
        wrong=LooksUpColumns,
        hint="`weight[:, positions]` picks features of every row. The table has a row for each "
        "position: the positions index its first axis.",
    ),
    Misconception(
        "LearnedPositions",
        wrong=CountsForItself,
        hint="You take the first rows, whichever positions are asked for. When text is continued "
        "from a cache, its positions do not start at 0.",
    ),
    Misconception(
        "TransformerEmbedding",
        wrong=ForgetsWhereTokensStand,
        hint="Positions are never added. Attention by itself does not see order: the model would "
        "read a bag of characters.",
    ),
    Misconception(
        "TransformerEmbedding",
        wrong=MultipliesByPositions,
        hint="You multiply tokens and positions. They are added: the model can then read either "
        "from the sum, and a position near 0 does not wipe its token out.",
    ),
    Misconception(
        "TransformerEmbedding",
        wrong=LearnsTheWaves,
        hint="Your sinusoidal table is a parameter: it would be drawn anew when a model starts, "
        "and trained if it can learn. Keep it as a buffer, which moves with the model.",
    ),
    Misconception(
        "TransformerEmbedding",
        wrong=AddsWavesToRope,
        hint='With "rope" nothing is added here: queries and keys are turned inside attention '
        "instead. Now the model is told its positions twice, once absolutely.",
    ),
    Misconception(
        "TransformerEmbedding",
        wrong=CountsTheRestFromZero,
        hint="With `start` your positions count from 0 again. The tokens from `start` on keep the "
        "places they have in the whole: the first of them stands at position `start`.",
    ),
    Misconception(
        "TransformerEmbedding",
        wrong=TakesAllTokensForNew,
        hint="You take `tokens` for the new ones and move them to position `start`. They are the "
        "whole window, from position 0 on: leave out the first `start`, and keep the places.",
    ),
    Misconception(
        "rotate",
        wrong=turn_neighbors,
        hint="You pair neighbors, features 2i and 2i + 1. The half-split convention pairs i with "
        "i + d_head / 2; weights trained with one make no sense under the other.",
    ),
    Misconception(
        "rotate",
        wrong=lambda x, positions: reference.rotate(x, -positions),
        hint="You turn clockwise: a sign of the sine is wrong. Distances would come out mirrored, "
        "and so would not fit the weights of models that turn the other way.",
    ),
    Misconception(
        "rotate",
        wrong=turn_without_pairs,
        hint="Both halves have a plus. A rotation has one minus: without it lengths change, and "
        "the product of query and key depends on more than their distance.",
    ),
    Misconception(
        "rotate",
        wrong=lambda x, positions: reference.rotate(x, torch.arange(x.size(-2))),
        hint="You count positions from 0 and ignore the argument. A cached key would be turned by "
        "another angle than the query that looks for it.",
    ),
    Misconception(
        "rotate",
        wrong=lambda x, positions: reference.rotate(x, positions - positions[0]),
        hint="You count positions from the first that is given. A token keeps the place that it "
        "has in the text: [5] turns by 5 times the frequency, not by 0.",
    ),
    Misconception(
        "rotate",
        wrong=lambda x, positions: reference.rotate(x, positions + 1),
        hint="You turn by one position too many: position 0 turns by no angle, position 1 by one "
        "time the frequency.",
    ),
    Misconception(
        "rotate",
        wrong=turn_by_what_is_turned,
        hint="The second half is made from the first one as it is after its turn. Both need the "
        "old numbers: keep the first half until the second is computed.",
    ),
]
