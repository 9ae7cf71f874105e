"""Your turn: embeddings. Replace each `raise NotImplementedError`, then run `pytest 04_embeddings`.

The order is the order of `theory.md`. Each exercise may use the ones above it.
Each is graded on its good habits too (`00_setup/theory.md`): the input left as it was, any dtype,
device and memory layout, the graph kept.
Shapes: B batch, T positions, d_model width of the residual stream, d_head width of one head.
"""

import torch
from torch import Tensor, nn


class CharTokenizer:
    """★ One id for each distinct character of `text`, in sorted order.

    White space is characters too. `vocab_size` says how many there are. A text without characters
    is a ValueError.

    >>> tokenizer = CharTokenizer("hello")
    >>> tokenizer.vocab_size, tokenizer.encode("hole")
    (4, [1, 3, 2, 0])
    >>> tokenizer.decode([1, 0])
    'he'
    """

    def __init__(self, text: str):
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """The ids of the characters of `text`, [] for ""; one outside the vocabulary is a
        ValueError that says which."""
        raise NotImplementedError

    def decode(self, tokens: list[int] | Tensor) -> str:
        """The text whose ids are `tokens`, a list or a tensor (T,); what other ids do is up to
        you."""
        raise NotImplementedError


class TokenEmbedding(nn.Module):
    """★ A table with one learned vector for each id: tokens (B, T) -> (B, T, d_model).

    Name the table `weight` (vocab_size, d_model); it starts random.
    """

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        raise NotImplementedError

    def forward(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


def sinusoidal_positions(T: int, d_model: int) -> Tensor:
    """★★ (T, d_model): sines in the even features, cosines in the odd, from fast to slow waves.

    At position t = 0, 1, ... features 2i and 2i + 1 are sine and cosine of
    t / 10000^(2i / d_model) (Vaswani et al. 2017, section 3.5). d_model is even.

    >>> sinusoidal_positions(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    raise NotImplementedError


class LearnedPositions(nn.Module):
    """★ A table with one learned vector for each position: positions (T,) -> (T, d_model).

    Name the table `weight` (max_len, d_model); it starts random.
    """

    def __init__(self, max_len: int, d_model: int):
        super().__init__()
        raise NotImplementedError

    def forward(self, positions: Tensor) -> Tensor:
        raise NotImplementedError


class TransformerEmbedding(nn.Module):
    """★★ What the first block reads: token vectors plus position vectors, then dropout.

    tokens (B, T) -> (B, T, d_model), T at most max_len. Name the parts `token` and, where they are
    learned, `position`. `positions` is "learned", "sinusoidal" or "rope"; to build it with anything
    else is a ValueError. "rope" adds nothing here. The waves of "sinusoidal" are not saved and are
    no parameters, not even frozen ones, since module 05 draws all parameters anew.
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
        raise NotImplementedError

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, T) -> (B, T - start, d_model): the vectors from position `start` on.

        You may leave `start` alone at first: it is for module 07, where a cache stands for what
        comes before. A token keeps its place: the first vector is that of position `start`, which
        is less than T.
        """
        raise NotImplementedError


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """★★★ Turn each feature pair of x by its position times the pair's frequency (RoPE).

    x (..., T, d_head), positions (T,) -> (..., T, d_head). Pair i is features i and
    i + d_head / 2 (the half-split convention), and turns counter-clockwise by the angle
    position / 10000^(2i / d_head) (Su et al. 2021, section 3.2). The result has x's dtype; the
    angles are float32 at least, since bfloat16 rounds position 257. An odd width is a ValueError.

    >>> rotate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """
    raise NotImplementedError
