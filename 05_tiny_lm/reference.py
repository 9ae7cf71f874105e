"""The whole language model: token ids in, a score for every possible next token out.

Shapes: B batch, T positions, d_model width of the residual stream, vocab_size characters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings.reference import (
    POSITIONS,
    ExactTables,
    TokenShift,
    TransformerEmbedding,
    apply_rotary,
    rotary_table,
)
from tiny_transformer.setup.limits import check_number
from tiny_transformer.transformer_block.reference import LayerNorm, RMSNorm, TransformerBlock

if TYPE_CHECKING:
    from tiny_transformer.sampling.reference import KVCache

NORMS = ("layer", "rms")
ACTIVATIONS = ("gelu", "relu2")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. The defaults are the classic one, GPT-2's, at laptop size.

    Raises:
        ValueError: names the field whose value makes no model.
    """

    vocab_size: int = 65
    max_len: int = 64  # the context: how many tokens the model reads at once
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    d_ff: int = 512
    dropout: float = 0.0
    norm: Literal["layer", "rms"] = "layer"
    positions: Literal["learned", "sinusoidal", "rope"] = "learned"
    bias: bool = True
    tie_weights: bool = True  # the head reuses the token table (Press and Wolf 2017)
    qk_norm: bool = False  # queries and keys of RMS 1, before they turn (Henry et al. 2020)
    activation: Literal["gelu", "relu2"] = "gelu"
    token_shift: bool = False  # each vector gets a share of the one before (Peng et al. 2023)
    zero_init: bool = False  # every block starts as the identity (Zhang et al. 2019, Fixup)

    def __post_init__(self):
        for name in ("vocab_size", "max_len", "d_model", "n_layers", "n_heads", "d_ff"):
            check_number(name, getattr(self, name), least=1, whole=True)
        if self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads is {self.n_heads}; it must divide d_model, which is {self.d_model}"
            )
        check_number("dropout", self.dropout, least=0, below=1)
        for name, choices in (
            ("norm", NORMS),
            ("positions", POSITIONS),
            ("activation", ACTIVATIONS),
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


class TinyTransformerLM(ExactTables):
    """A decoder-only transformer: tokens (B, T) -> logits (B, T, vocab_size).

    The logits at position t score the token at t + 1. With the default configuration this is
    GPT-2 (Radford et al. 2019).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        norm = LayerNorm if config.norm == "layer" else RMSNorm
        self.embedding = TransformerEmbedding(
            config.vocab_size, config.d_model, config.max_len, config.dropout, config.positions
        )
        self.shift = TokenShift(config.d_model) if config.token_shift else None
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.d_model,
                config.n_heads,
                config.d_ff,
                config.dropout,
                norm,
                config.bias,
                config.qk_norm,
                config.activation,
            )
            for _ in range(config.n_layers)
        )
        self.ln_f = norm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_weights:
            self.head.weight = self.embedding.token.weight
        if config.positions == "rope":
            cos, sin = rotary_table(torch.arange(config.max_len), config.d_head)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        init_weights(self)
        if config.zero_init:
            start_silent(self)

    def forward(self, tokens: Tensor, cache: "KVCache | None" = None) -> Tensor:
        """tokens (B, T) -> logits (B, T, vocab_size).

        With a `cache` (module 07) the tokens continue the ones it has already seen.

        Raises:
            ValueError: if the sequence is longer than the context, `config.max_len`.
        """
        if tokens.dim() != 2:
            raise ValueError(f"tokens is {tuple(tokens.shape)}; it must be (B, T)")
        start = 0 if cache is None else cache.length
        end = start + tokens.size(1)
        if end > self.config.max_len:
            raise ValueError(
                f"tokens reach position {end}; the context, max_len, is {self.config.max_len}"
            )
        rotate = None
        if self.config.positions == "rope":
            rotate = partial(apply_rotary, cos=self.cos[start:end], sin=self.sin[start:end])
        x = self.embedding(tokens, start)
        if self.shift is not None:
            x = self.shift(x, self.vector_before(tokens, cache))
        for layer, block in enumerate(self.blocks):
            remember = None if cache is None else partial(cache.append, layer)
            x = block(x, rotate, remember)
        if cache is not None:
            cache.length = end
        return self.head(self.ln_f(x))

    def vector_before(self, tokens: Tensor, cache: "KVCache | None") -> Tensor | None:
        """(B, 1, d_model): the token before the first of `tokens`, if the cache has read one."""
        if cache is None:
            return None
        start, read = cache.length, cache.tokens
        cache.tokens = torch.cat((read[:, :start], tokens), dim=1)
        return self.embedding(read[:, start - 1 : start], start - 1) if start else None


def init_weights(model: nn.Module) -> None:
    """Start as GPT-2 does: weights from N(0, 0.02), biases and shares 0, norms the identity.

    The projections that add to the residual stream are scaled down by sqrt(2 n_layers), since
    that many of them add up (Radford et al. 2019, section 2.3).
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "share")):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 1:
            nn.init.ones_(parameter)
        elif name.endswith(("out_proj.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.02 / (2 * len(model.blocks)) ** 0.5)
        else:
            nn.init.normal_(parameter, std=0.02)


@torch.no_grad()
def start_silent(model: nn.Module) -> None:
    """Zero what adds to the residual stream: at first the model reads one token alone.

    A head of its own starts at zero too, so that all tokens are equally likely, and the table,
    which then has no scores to give, larger: what the blocks add should not drown it at once.
    """
    for block in model.blocks:
        block.attention.out_proj.weight.zero_()
        block.feed_forward.down.weight.zero_()
    if not model.config.tie_weights:
        model.head.weight.zero_()
        nn.init.normal_(model.embedding.token.weight, std=0.3)


def count_parameters(config: ModelConfig) -> int:
    """How many numbers a model of this shape learns, without building it."""
    d, bias = config.d_model, int(config.bias)
    norm = 2 * d if config.norm == "layer" else d
    attention = 4 * (d * d + bias * d)
    feed_forward = 2 * d * config.d_ff + bias * (config.d_ff + d)
    block = 2 * norm + attention + feed_forward
    table = config.vocab_size * d
    positions = config.max_len * d if config.positions == "learned" else 0
    head = 0 if config.tie_weights else table
    shift = d if config.token_shift else 0
    return table + positions + shift + config.n_layers * block + norm + head


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
