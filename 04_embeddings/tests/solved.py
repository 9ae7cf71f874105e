"""One learner's answers to the exercises of module 04, which its tests must accept."""

import torch
from torch import Tensor, nn


class CharTokenizer:
    def __init__(self, text: str):
        if len(text) == 0:
            raise ValueError("text has no characters")
        self.alphabet = "".join(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        numbers = {c: i for i, c in enumerate(self.alphabet)}
        for c in text:
            if c not in numbers:
                raise ValueError(f"text has {c!r}, which the vocabulary has not")
        return [numbers[c] for c in text]

    def decode(self, tokens: list[int] | Tensor) -> str:
        return "".join(self.alphabet[int(token)] for token in tokens)


class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens]


def sinusoidal_positions(T: int, d_model: int) -> Tensor:
    table = torch.zeros(T, d_model)
    t = torch.arange(T).float()[:, None]
    i = torch.arange(0, d_model, 2).float()
    table[:, 0::2] = torch.sin(t / 10000 ** (i / d_model))
    table[:, 1::2] = torch.cos(t / 10000 ** (i / d_model))
    return table


class LearnedPositions(nn.Module):
    def __init__(self, max_len: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_len, d_model))

    def forward(self, positions: Tensor) -> Tensor:
        return self.weight[positions]


class TransformerEmbedding(nn.Module):
    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        max_len: int,
        dropout: float = 0.0,
        positions: str = "learned",
    ):
        super().__init__()
        if positions not in ("learned", "sinusoidal", "rope"):
            raise ValueError(f"positions={positions!r} is unknown")
        self.kind = positions
        self.token = TokenEmbedding(vocab_size, d_model)
        if positions == "learned":
            self.position = LearnedPositions(max_len, d_model)
        if positions == "sinusoidal":
            table = sinusoidal_positions(max_len, d_model)
            self.register_buffer("table", table, persistent=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        T = tokens.shape[1]
        where = torch.arange(T, device=tokens.device)[start:]
        x = self.token(tokens[:, start:])
        if self.kind == "learned":
            x = x + self.position(where)
        elif self.kind == "sinusoidal":
            x = x + self.table[where]
        return self.drop(x)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"x has an odd width, {width}")
    half = width // 2
    frequencies = 10000 ** (-2 * torch.arange(half, device=x.device) / width)
    angles = torch.outer(positions.float(), frequencies)
    cos, sin = torch.cos(angles).to(x.dtype), torch.sin(angles).to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
