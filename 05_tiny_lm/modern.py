"""What came after GPT-2: each change exchanges parts of a classic model, and no lesson knows of it.

The order of things: classic parts with their first weights, `modernize`, weights that are loaded,
optimizer, `torch.compile`, processes. Shapes: B batch, T positions, d_model width of the residual
stream, d_head width of one head.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.tiny_lm.reference import (
    ModelConfig,
    TinyTransformerLM,
    count_parameters,
)
from tiny_transformer.transformer_block.reference import RMSNorm

Rotation = Callable[[Tensor], Tensor] | None


def build(config: ModelConfig) -> TinyTransformerLM:
    """The model of any configuration, with its first weights."""
    model = TinyTransformerLM(config.classic)
    modernize(model, config)
    return model


@torch.no_grad()
def modernize(model: nn.Module, config: ModelConfig) -> None:
    """Put the parts that `config` asks for in the place of a classic model's, in the model itself.

    All parts are known by their names alone: embedding, blocks (ln_1, attention, ln_2,
    feed_forward), ln_f and head. What stays keeps its name, its place and, but for `zero_init`,
    its weights; only what is new is initialized.

    Raises:
        ValueError: if the model is modern already, or of another shape.
    """
    if model.config != model.config.classic:
        raise ValueError("the model is modern already; build another one")
    if model.config != config.classic:
        raise ValueError(f"the model is of {model.config}, not of {config.classic}")
    model.config = config

    def placed(part: nn.Module) -> nn.Module:
        like = model.head.weight
        if any((p.device, p.dtype) != (like.device, like.dtype) for p in part.parameters()):
            part.to(like)
        return part.train(model.training)

    if config.norm == "rms":
        for block in model.blocks:
            block.ln_1 = placed(RMSNorm(config.d_model))
            block.ln_2 = placed(RMSNorm(config.d_model))
        model.ln_f = placed(RMSNorm(config.d_model))
    if not config.bias:  # LayerNorm keeps its own
        for layer in model.blocks.modules():
            if isinstance(layer, nn.Linear):
                layer.bias = None
    for block in model.blocks:
        if config.activation == "relu2":
            block.feed_forward = placed(SquaredReLU(block.feed_forward, config.dropout))
        if config.qk_norm:
            put_before(QKNorm, block.attention)
    if config.ngrams:
        ngrams = placed(NGrams(config.vocab_size, config.ngrams, config.d_model))
        insert_after_embedding(model, "ngrams", ngrams)
    if config.token_shift:
        shift = placed(TokenShift(config.d_model))
        insert_after_embedding(model, "shift", shift)
        put_before(Shifted, model.embedding)
        vars(model.embedding)["shift"] = shift  # not as a part: its weight has one name
    if config.ngrams:
        put_before(WithNGrams, model.embedding)
        vars(model.embedding)["ngrams"] = ngrams
    if not config.tie_weights:
        model.head.weight = nn.Parameter(torch.empty_like(model.head.weight))
        nn.init.normal_(model.head.weight, std=0.02)
    if config.zero_init:
        start_silent(model)


class SquaredReLU(nn.Module):
    """A feed-forward network's layers with a squared ReLU between, which a search found there.

    (..., d_model) -> (..., d_model), after So et al. 2021.
    """

    def __init__(self, classic: nn.Module, dropout: float):
        super().__init__()
        self.up, self.down = classic.up, classic.down
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(F.relu(self.up(x)).square()))


class QKNorm(nn.Module):
    """Put before an attention: its queries and keys have a root mean square of 1 when they turn.

    That bounds every score by sqrt(d_head) (Henry et al. 2020).
    """

    def forward(self, x: Tensor, rotate: Rotation = None, **options: Any) -> Any:
        return super().forward(x, rotate=partial(norm_and_rotate, rotate), **options)


def norm_and_rotate(rotate: Rotation, x: Tensor) -> Tensor:
    x = F.rms_norm(x, x.shape[-1:])
    return x if rotate is None else rotate(x)


class TokenShift(nn.Module):
    """Adds to each token's vector a learned share of the vector before it, feature by feature.

    x (B, T, d_model) -> (B, T, d_model), so that the first block reads pairs of tokens and need not
    attend for them. After RWKV's token shift (Peng et al. 2023, section 3.1). Starts as nothing.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
        return x + self.share * before


class Shifted(nn.Module):
    """Put before an embedding: its vectors are shifted, after its dropout."""

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        if start == 0:
            return self.shift(super().forward(tokens))
        return self.shift(super().forward(tokens, start - 1))[:, 1:]


class NGrams(nn.Module):
    """Vectors for the last two, three and four tokens, which no block has to find out first.

    tokens (B, T) -> (B, T, d_model). There are more n-grams than rows, and some share one, by the
    remainder of their number (Pagnoni et al. 2024, section 3.2.1). Starts as nothing.
    """

    def __init__(self, vocab_size: int, rows: int, d_model: int):
        super().__init__()
        self.vocab_size = vocab_size
        self.tables = nn.ModuleList(nn.Embedding(rows, d_model) for _ in range(3))
        for table in self.tables:
            nn.init.zeros_(table.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        x, number, before = 0.0, tokens, tokens
        for table in self.tables:
            before = F.pad(before[:, :-1], (1, 0))
            number = number * self.vocab_size + before
            x = x + table(number % table.num_embeddings)
        return 3 * x  # a row is read seldom, so whatever it learns counts for more


class WithNGrams(nn.Module):
    """Put before an embedding: adds to each vector what is known of its last tokens."""

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        return super().forward(tokens, start) + self.ngrams(tokens)[:, start:]


def put_before(change: type[nn.Module], part: nn.Module) -> None:
    """Let `part` be of a class that asks `change` first, whose `super()` is what the part was."""
    part.__class__ = type(change.__name__, (change, type(part)), {})


def insert_after_embedding(model: nn.Module, name: str, part: nn.Module) -> None:
    """Add a part in second place: an optimizer's state finds its parameters by their order."""
    others = [(n, p) for n, p in model.named_children() if n != "embedding"]
    for other, _ in others:
        delattr(model, other)
    for other, module in [(name, part), *others]:
        setattr(model, other, module)


def start_silent(model: nn.Module) -> None:
    """Zero what adds to the residual stream: at first the model reads one token alone.

    Every block starts as the identity (Zhang et al. 2019, Fixup). A head of its own starts at zero
    too, so that all tokens are equally likely, and the table, which then has no scores to give,
    larger: what the blocks add should not drown it at once.
    """
    for block in model.blocks:
        for last in (block.attention.out_proj, block.feed_forward.down):
            last.weight.zero_()
    if not model.config.tie_weights:
        model.head.weight.zero_()
        nn.init.normal_(model.embedding.token.weight, std=0.3)


def count_modern_parameters(config: ModelConfig) -> int:
    """How many numbers the model of any configuration learns, without building it."""
    d, count = config.d_model, count_parameters(config.classic)
    if config.norm == "rms":
        count -= (2 * config.n_layers + 1) * d
    if not config.bias:
        count -= config.n_layers * (5 * d + config.d_ff)
    if not config.tie_weights:
        count += config.vocab_size * d
    if config.token_shift:
        count += d
    return count + 3 * config.ngrams * d
