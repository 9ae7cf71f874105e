"""The whole language model: token ids in, a score for every possible next token out.

Shapes: B batch, T positions, d_model width of the residual stream, vocab_size characters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings.reference import (
    POSITIONS,
    ExactTables,
    TransformerEmbedding,
    apply_rotary,
    rotary_table,
)
from tiny_transformer.setup.limits import check_number
from tiny_transformer.transformer_block.reference import LayerNorm, TransformerBlock

SWITCHES = ("bias", "tie_weights", "qk_norm", "token_shift", "zero_init")
MODERN = ("norm", "activation", "ngrams", *SWITCHES)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. The defaults are the classic one, GPT-2's, at laptop size.

    Raises:
        ValueError: names the field whose value makes no model.
    """

    vocab_size: int = 65  # how many tokens there are; a run takes that of its text
    max_len: int = 64  # the context: how many tokens the model reads at once
    d_model: int = 128  # numbers that describe one position
    n_layers: int = 4  # blocks
    n_heads: int = 4  # attention heads of each block; they share d_model
    d_ff: int = 512  # width inside the feed-forward network
    dropout: float = 0.0  # the share of numbers that each training step leaves out
    positions: Literal["learned", "sinusoidal", "rope"] = "learned"  # how the order is told

    # What came after GPT-2, or differs from it: `modern.py` puts it in.
    norm: Literal["layer", "rms"] = "layer"  # LayerNorm or RMSNorm
    bias: bool = True  # of the LayerNorms and of the blocks' linear layers
    tie_weights: bool = True  # the head shares the table of the token embedding
    qk_norm: bool = False  # queries and keys are normalized
    activation: Literal["gelu", "relu2"] = "gelu"  # inside the feed-forward network
    token_shift: bool = False  # each token's vector gets a share of the one before it
    ngrams: int = 0  # rows of each table that is read by the last two, three and four tokens
    zero_init: bool = False  # every block starts as the identity

    def __post_init__(self):
        for name in ("vocab_size", "max_len", "d_model", "n_layers", "n_heads", "d_ff"):
            check_number(name, getattr(self, name), least=1, whole=True)
        if self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads is {self.n_heads}; it must divide d_model, which is {self.d_model}"
            )
        check_number("dropout", self.dropout, least=0, below=1)
        check_number("ngrams", self.ngrams, least=0, whole=True)
        for name, choices in (
            ("norm", ("layer", "rms")),
            ("positions", POSITIONS),
            ("activation", ("gelu", "relu2")),
            *((switch, (True, False)) for switch in SWITCHES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {choices}")
        if self.positions == "rope" and self.d_head % 2:
            raise ValueError(
                f"n_heads is {self.n_heads}, so each is {self.d_head} wide; "
                "rope needs an even head width"
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model is {self.d_model}; sinusoidal positions need an even width")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def classic(self) -> "ModelConfig":
        """The same shape without what `modern.py` puts in."""
        return replace(self, **{name: getattr(ModelConfig, name) for name in MODERN})


class Cache(Protocol):
    """What remembers the keys and values of the tokens that have been read (module 07)."""

    length: int  # how many tokens those are

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


class TinyTransformerLM(ExactTables):
    """A decoder-only transformer: tokens (B, T) -> logits (B, T, vocab_size).

    The logits at position t score the token at t + 1. This is GPT-2 (Radford et al. 2019), with a
    choice of positions; the head shares its weights with the token table (Press and Wolf 2017).

    Raises:
        ValueError: if the configuration asks for what is not GPT-2's; `build` of `modern.py` makes
            any model.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        check_classic(config)
        self.config = config
        self.embedding = TransformerEmbedding(
            config.vocab_size, config.d_model, config.max_len, config.dropout, config.positions
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(config.d_model, config.n_heads, config.d_ff, config.dropout)
            for _ in range(config.n_layers)
        )
        self.ln_f = LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight = self.embedding.token.weight
        if config.positions == "rope":
            cos, sin = rotary_table(torch.arange(config.max_len), config.d_head)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        init_weights(self)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """tokens (B, T) -> logits (B, T, vocab_size).

        Of what a `cache` has read, the first `cache.length` tokens, nothing is computed again: the
        logits are those of the others, (B, T - cache.length, vocab_size).

        Raises:
            ValueError: if tokens are not (B, T), are more than the context, `config.max_len`, or
                have all been read by the cache.
        """
        if tokens.dim() != 2:
            raise ValueError(f"tokens is {tuple(tokens.shape)}; it must be (B, T)")
        T, start = tokens.size(1), 0 if cache is None else cache.length
        if T > self.config.max_len:
            raise ValueError(
                f"tokens reach position {T}; the context, max_len, is {self.config.max_len}"
            )
        if cache is not None and start >= T:
            raise ValueError(
                f"tokens has {T} positions; the cache has read {start}, so none is new"
            )
        x = self.embedding(tokens, start)
        rotate = self.rotation(start, T)
        for layer, block in enumerate(self.blocks):
            remember = None if cache is None else partial(cache.append, layer)
            x = block(x, rotate=rotate, remember=remember)
        if cache is not None:
            cache.length = T
        return self.head(self.ln_f(x))

    def rotation(self, start: int, end: int) -> Callable[[Tensor], Tensor] | None:
        """What turns the queries and keys at positions `start` to `end` - 1, if anything does."""
        if self.config.positions != "rope":
            return None
        return partial(apply_rotary, cos=self.cos[start:end], sin=self.sin[start:end])


def check_classic(config: ModelConfig) -> None:
    for name in MODERN:
        value, classic = getattr(config, name), getattr(ModelConfig, name)
        if value != classic:
            raise ValueError(
                f"{name} is {value!r}; GPT-2 has {classic!r}, and `modern.py` makes the others"
            )


def init_weights(model: nn.Module) -> None:
    """Start as GPT-2 does: weights from N(0, 0.02), biases 0, norms the identity.

    The projections that add to the residual stream are scaled down by sqrt(2 n_layers), since
    that many of them add up (Radford et al. 2019, section 2.3).
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 1:
            nn.init.ones_(parameter)
        elif name.endswith(("out_proj.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.02 / (2 * len(model.blocks)) ** 0.5)
        else:
            nn.init.normal_(parameter, std=0.02)


def count_parameters(config: ModelConfig) -> int:
    """How many numbers a classic model of this shape learns, without building it."""
    check_classic(config)
    d = config.d_model
    norm = 2 * d
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * config.d_ff + config.d_ff + d
    block = 2 * norm + attention + feed_forward
    positions = config.max_len * d if config.positions == "learned" else 0
    return config.vocab_size * d + positions + config.n_layers * block + norm


@torch.no_grad()
def next_token_distribution(model: nn.Module, tokens: Tensor) -> Tensor:
    """tokens (B, T) -> (B, vocab_size): the probability of every token to come next."""
    with in_evaluation(model):
        return model(tokens)[:, -1].softmax(dim=-1)


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Meanwhile dropout rests. Each part then is in the mode it was in, even after an error."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
