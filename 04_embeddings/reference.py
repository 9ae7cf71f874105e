"""From text to vectors: characters become ids, ids become vectors, and each vector its position.

Shapes: B batch, T positions, d_model width of the residual stream, d_head width of one head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITIONS = ("learned", "sinusoidal", "rope")


class CharTokenizer:
    """One id for each distinct character of `text`, in sorted order."""

    def __init__(self, text: str):
        if not text:
            raise ValueError("text is empty; a vocabulary needs at least one character")
        self.characters = sorted(set(text))
        self.ids = {character: i for i, character in enumerate(self.characters)}

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """The ids of the characters of `text`.

        Raises:
            ValueError: names the first character that is not in the vocabulary.
        """
        try:
            return [self.ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise ValueError(
                f"text has {character!r} at position {text.index(character)}, which is not one of "
                f"the {self.vocab_size} characters of the vocabulary: {''.join(self.characters)!r}"
            ) from None

    def decode(self, tokens: list[int] | Tensor) -> str:
        """The text whose ids are `tokens`, a list or a tensor (T,): the inverse of `encode`.

        Raises:
            ValueError: names the first id that no character has.
        """
        tokens = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        for token in tokens:
            if not 0 <= token < self.vocab_size:  # Python would count -1 from the end
                raise ValueError(f"tokens has {token}; ids are 0 to {self.vocab_size - 1}")
        return "".join(self.characters[token] for token in tokens)


class TokenEmbedding(nn.Module):
    """A table with one learned vector for each id: tokens (B, T) -> (B, T, d_model)."""

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)  # self.weight[tokens], with a faster gradient


def sinusoidal_positions(T: int, d_model: int) -> Tensor:
    """(T, d_model): sines in the even features, cosines in the odd, from fast to slow waves.

    Feature pair i turns with wavelength 2 pi 10000^(2i / d_model) (Vaswani et al. 2017,
    section 3.5). Shifting by a fixed distance is a rotation of each pair.
    """
    cos, sin = rotary_table(torch.arange(T), d_model)
    return torch.stack((sin, cos), dim=-1).flatten(1)


class LearnedPositions(nn.Module):
    """A table with one learned vector for each position: positions (T,) -> (T, d_model)."""

    def __init__(self, max_len: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_len, d_model))

    def forward(self, positions: Tensor) -> Tensor:
        return F.embedding(positions, self.weight)


class ExactTables(nn.Module):
    """A module whose buffers are computed, not learned: they move with it and stay float32.

    What .bfloat16() had rounded, .float() would not bring back.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        tables = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # what .to(), .half(), .cuda() and their like call
        for name, table in tables.items():
            setattr(self, name, table.to(getattr(self, name).device))
        return self


class TransformerEmbedding(ExactTables):
    """What the first block reads: token vectors plus position vectors.

    tokens (B, T) -> (B, T, d_model). `positions` is "learned", "sinusoidal", or "rope", which
    adds nothing here because it turns queries and keys inside attention instead.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        max_len: int,
        dropout: float = 0.0,
        positions: str = "learned",
    ):
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"positions is {positions!r}; it must be one of {POSITIONS}")
        self.token = TokenEmbedding(vocab_size, d_model)
        self.position = None
        if positions == "learned":
            self.position = LearnedPositions(max_len, d_model)
        waves = sinusoidal_positions(max_len, d_model) if positions == "sinusoidal" else None
        self.register_buffer("waves", waves, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, T) -> (B, T - start, d_model): the vectors from position `start` on."""
        if start and not 0 < start < tokens.size(1):
            raise ValueError(f"start is {start}; tokens has {tokens.size(1)} positions")
        x = self.token(tokens[:, start:])
        positions = torch.arange(start, tokens.size(1), device=tokens.device)
        if self.position is not None:
            x = x + self.position(positions)
        if self.waves is not None:
            # A slice would run past max_len without a word, and float32 widens what is narrower.
            x = (x + F.embedding(positions, self.waves)).to(x.dtype)
        return self.dropout(x)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turn each feature pair of x by its position times the pair's frequency (RoPE).

    x (..., T, d_head), positions (T,) -> (..., T, d_head). Pair i is features i and
    i + d_head / 2 (the half-split convention), and turns by positions / 10000^(2i / d_head).
    The product of a query and a key then depends on their distance alone (Su et al. 2021).
    """
    if positions.shape != x.shape[-2:-1]:
        raise ValueError(f"positions is {tuple(positions.shape)}; x has {x.size(-2)} positions")
    return apply_rotary(x, *rotary_table(positions, x.size(-1)))


def rotary_table(positions: Tensor, d_head: int) -> tuple[Tensor, Tensor]:
    """positions (T,) -> cos and sin of every pair's angle, each (T, d_head / 2)."""
    if d_head % 2:
        raise ValueError(f"the width is {d_head}; rotating needs pairs of features, an even width")
    pair = torch.arange(d_head // 2, device=positions.device)
    angles = positions[:, None] * 10000.0 ** (-2 * pair / d_head)
    return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` with its table made beforehand: x (..., T, d_head), cos and sin (T, d_head / 2)."""
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return turned.to(x.dtype)  # the table is float32, which bfloat16 queries must not become
