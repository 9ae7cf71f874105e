"""Wrong turns that learners take in module 05, and what to say to each."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.setup.grading.doors import takes
from tiny_transformer.tiny_lm import reference
from tiny_transformer.tiny_lm.reference import Cache, ModelConfig

SMALL = ModelConfig(vocab_size=11, max_len=7, d_model=12, n_layers=3, n_heads=2, d_ff=20)
ROPE = replace(SMALL, positions="rope")
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def filled(model: nn.Module) -> nn.Module:
    """The same numbers for the same names, whatever order they were made in."""
    with torch.no_grad():
        for seed, (_, p) in enumerate(sorted(model.named_parameters())):
            generator = torch.Generator().manual_seed(seed)
            p.copy_(torch.randn(p.shape, generator=generator) / p.size(-1) ** 0.5)
    return model


@probe("count_parameters")
def with_each_kind_of_positions(count_parameters: Callable) -> Any:
    configs = SMALL, ROPE, replace(SMALL, positions="sinusoidal")
    return [torch.tensor([int(count_parameters(config)) for config in configs])]


@probe("init_weights")
def a_wide_model(init_weights: Callable) -> Any:
    model = reference.TinyTransformerLM(
        ModelConfig(vocab_size=64, max_len=64, d_model=64, n_layers=3, d_ff=256)
    )
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    init_weights(model)
    block = model.blocks[1]
    return {
        "biases are 0": not any(p.any() for n, p in model.named_parameters() if "bias" in n),
        "the norms are the identity": bool((block.ln_1.weight == model.ln_f.weight).all())
        and (model.ln_f.weight.eq(1).all().item()),
        "up has standard deviation 0.02": is_about(block.feed_forward.up.weight, 0.02),
        "q_proj has standard deviation 0.02": is_about(block.attention.q_proj.weight, 0.02),
        "the token table has standard deviation 0.02": is_about(model.head.weight, 0.02),
        "positions have standard deviation 0.02": is_about(model.embedding.position.weight, 0.02),
        "out_proj does not start as large as the others": not is_about(
            block.attention.out_proj.weight, 0.02
        ),
        "out_proj does not start smaller by sqrt(n_layers)": not is_about(
            block.attention.out_proj.weight, 0.02 / 3**0.5
        ),
        "out_proj starts smaller by sqrt(2 n_layers)": is_about(
            block.attention.out_proj.weight, 0.02 / 6**0.5
        ),
        "down starts smaller by sqrt(2 n_layers)": is_about(
            block.feed_forward.down.weight, 0.02 / 6**0.5
        ),
        "weights are normal, with tails": block.feed_forward.up.weight.abs().max().item() > 0.05,
        "weights are centered on 0": abs(model.head.weight.mean().item()) < 0.002,
    }


def is_about(weight: Tensor, std: float) -> bool:
    return abs(weight.std().item() / std - 1) < 0.1


@probe("TinyTransformerLM", B=2, T=5, vocab_size=11, d_model=12)
def models_with_and_without_a_cache(TinyTransformerLM: Callable) -> Any:
    fresh = TinyTransformerLM(SMALL)
    learned, rope = filled(TinyTransformerLM(SMALL)), filled(TinyTransformerLM(ROPE))
    count = sum(p.numel() for p in learned.parameters())
    facts = {
        "the head shares the token table": learned.head.weight is learned.embedding.token.weight,
        "it has all the parameters of its config": count == reference.count_parameters(SMALL),
        "it starts with small weights": fresh.head.weight.std().item() < 0.03,
        "text longer than the context is a ValueError": refuses(learned, TOKENS.repeat(1, 2)),
    }
    return [learned(TOKENS), rope(TOKENS), facts, of_a_cache(rope), of_a_cache(learned)]


class Notes:
    """A cache as plain as can be, which notes what `length` was when a layer appended."""

    def __init__(self):
        self.length, self.kept, self.lengths = 0, {}, []

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.lengths.append(self.length)
        for old_k, old_v in self.kept.get(layer, []):
            k = torch.cat((old_k[:, :, : self.length], k), dim=2)
            v = torch.cat((old_v[:, :, : self.length], v), dim=2)
        self.kept[layer] = [(k, v)]
        return k, v


def of_a_cache(model: nn.Module) -> dict[str, bool]:
    """What holds of a model that uses a cache; all of it where the cache is left alone."""
    notes, at_once = Notes(), model(TOKENS)
    logits = [at_once]
    if takes(model, "cache"):
        with suppress(NotImplementedError):  # where a learner has marked what is to come
            logits = [model(TOKENS[:, :end], notes) for end in (3, 5)]
            at_once = model(TOKENS, Notes())
    used = bool(notes.lengths) or notes.length > 0
    return {
        "all blocks find the `length` that the cache had": notes.lengths[:3] in ([0] * 3, []),
        "a cache that has read nothing changes no logits": torch.allclose(
            at_once, model(TOKENS), rtol=1e-4, atol=1e-5
        ),
        "afterwards the cache's `length` is the number of tokens": not used or notes.length == 5,
        "after a cache the last logits are what they are without": torch.allclose(
            logits[-1][:, -1], model(TOKENS)[:, -1], rtol=1e-4, atol=1e-5
        ),
        "with a cache the new tokens alone are computed": (
            not used or notes.length == 0 or logits[-1].size(1) == 2
        ),
    }


def refuses(function: Callable, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except ValueError:
        return True
    except (IndexError, RuntimeError):
        return False
    return False


@probe("next_token_distribution", B=2, T=5, vocab_size=11)
def of_a_model_in_training(next_token_distribution: Callable) -> Any:
    model = filled(reference.TinyTransformerLM(replace(SMALL, dropout=0.5))).train()
    chances = next_token_distribution(model, TOKENS)
    facts = {
        "the model is left in training mode": model.training,
        "no graph is built": not chances.requires_grad,
    }
    return [chances.detach(), facts]


def without_the_last_norm(config: ModelConfig) -> int:
    return reference.count_parameters(config) - 2 * config.d_model


def with_a_head_of_its_own(config: ModelConfig) -> int:
    return reference.count_parameters(config) + config.vocab_size * config.d_model


def without_biases(config: ModelConfig) -> int:
    biases = 5 * config.d_model + config.d_ff
    return reference.count_parameters(config) - config.n_layers * biases


def with_positions_always(config: ModelConfig) -> int:
    return reference.count_parameters(replace(config, positions="learned"))


def all_alike(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif p.dim() == 1:
            nn.init.ones_(p)
        else:
            nn.init.normal_(p, std=0.02)


def by_the_layers_alone(model: nn.Module) -> None:
    all_alike(model)
    for name, p in model.named_parameters():
        if name.endswith(("out_proj.weight", "down.weight")):
            nn.init.normal_(p, std=0.02 / len(model.blocks) ** 0.5)


def linear_layers_alone(model: nn.Module) -> None:
    tables = {name: p.clone() for name, p in model.named_parameters() if "embedding" in name}
    reference.init_weights(model)
    for name, before in tables.items():
        model.get_parameter(name).data = before


def norms_too(model: nn.Module) -> None:
    reference.init_weights(model)
    for name, p in model.named_parameters():
        if p.dim() == 1 and name.endswith("weight"):
            nn.init.normal_(p, std=0.02)


class HasNoLastNorm(reference.TinyTransformerLM):
    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.ln_f.forward = lambda x: x


class ReturnsProbabilities(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).softmax(dim=-1)


class ReturnsTheLastLogits(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens)[:, -1]


class RepeatsOneBlock(reference.TinyTransformerLM):
    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.blocks = nn.ModuleList([self.blocks[0]] * config.n_layers)


class UsesOneBlock(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor) -> Tensor:
        blocks, self.blocks = self.blocks, self.blocks[:1]
        logits = super().forward(tokens)
        self.blocks = blocks
        return logits


class NeverTies(reference.TinyTransformerLM):
    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.head.weight = nn.Parameter(self.head.weight.clone())


class ForgetsToTurn(reference.TinyTransformerLM):
    def __init__(self, config: ModelConfig):
        super().__init__(config)
        if config.positions == "rope":
            self.cos.fill_(1.0)
            self.sin.fill_(0.0)


class MovesOnInEveryBlock(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        return super().forward(tokens, cache and MovedOnByAppend(cache, tokens.size(1)))


class MovedOnByAppend:
    def __init__(self, cache: Cache, T: int):
        self.cache, self.T, self.length = cache, T, cache.length

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        everything = self.cache.append(layer, k, v)
        self.cache.length = self.T
        return everything


class NeverMovesOn(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        length = None if cache is None else cache.length
        logits = super().forward(tokens, cache)
        if cache is not None:
            cache.length = length
        return logits


class TurnsNewTokensFrom0(reference.TinyTransformerLM):
    def rotation(self, start: int, end: int) -> Callable[[Tensor], Tensor] | None:
        return super().rotation(0, end - start)


class PlacesNewTokensAt0(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        whole, self.embedding.forward = self.embedding.forward, self.from_0
        try:
            return super().forward(tokens, cache)
        finally:
            self.embedding.forward = whole

    def from_0(self, tokens: Tensor, start: int = 0) -> Tensor:
        return type(self.embedding).forward(self.embedding, tokens[:, start:])


class TurnsNothingUnderACache(reference.TinyTransformerLM):
    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        self.cached = cache is not None
        return super().forward(tokens, cache)

    def rotation(self, start: int, end: int) -> Callable[[Tensor], Tensor] | None:
        return None if self.cached else super().rotation(start, end)


class KeepsTheFirstWeights(reference.TinyTransformerLM):
    def __init__(self, config: ModelConfig):
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()


def at_the_first_position(model: nn.Module, tokens: Tensor) -> Tensor:
    return chances_of(model, tokens)[:, 0]


def as_scores(model: nn.Module, tokens: Tensor) -> Tensor:
    return chances_of(model, tokens)[:, -1].log()


def over_the_batch(model: nn.Module, tokens: Tensor) -> Tensor:
    return chances_of(model, tokens)[:, -1].log().softmax(dim=0)


@torch.no_grad()
def chances_of(model: nn.Module, tokens: Tensor) -> Tensor:
    was_training = model.training
    logits = model.eval()(tokens)
    model.train(was_training)
    return logits.softmax(dim=-1)


@torch.no_grad()
def with_dropout(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens)[:, -1].softmax(dim=-1)


@torch.no_grad()
def and_stay_quiet(model: nn.Module, tokens: Tensor) -> Tensor:
    return model.eval()(tokens)[:, -1].softmax(dim=-1)


MISCONCEPTIONS = [
    Misconception(
        "count_parameters",
        wrong=without_the_last_norm,
        hint="You have forgotten ln_f, the norm after the last block. Every block brings two, and "
        "the model one more.",
    ),
    Misconception(
        "count_parameters",
        wrong=with_a_head_of_its_own,
        hint="You count the head although it is tied. It then is the token table, the same memory, "
        "and nothing more to learn.",
    ),
    Misconception(
        "count_parameters",
        wrong=without_biases,
        hint="The biases of the linear layers are missing: four in attention, two in the "
        "feed-forward network, one number for each output.",
    ),
    Misconception(
        "count_parameters",
        wrong=with_positions_always,
        hint="You count a table of positions always. Sinusoidal and rotary positions are computed, "
        "so the model learns none.",
    ),
    Misconception(
        "init_weights",
        wrong=all_alike,
        hint="out_proj and down start as large as the others. 2 n_layers of them add to the "
        "residual stream, whose variance would grow with depth.",
    ),
    Misconception(
        "init_weights",
        wrong=by_the_layers_alone,
        hint="You scale by sqrt(n_layers). Each block adds to the stream twice, once from "
        "attention and once from the feed-forward network.",
    ),
    Misconception(
        "init_weights",
        wrong=linear_layers_alone,
        hint="The tables of tokens and positions are left as they were. They start from N(0, 0.02) "
        "too; a tied head with large weights begins far above ln(vocab_size).",
    ),
    Misconception(
        "init_weights",
        wrong=norms_too,
        hint="You drew the scales of the norms as well. They must start at 1: near 0 they shut "
        "every half of every block.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=HasNoLastNorm,
        hint="ln_f is never applied. In a Pre-LN model the stream grows from block to block, and "
        "the head needs it normalized.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=ReturnsProbabilities,
        hint="You return probabilities. The model returns logits: the loss takes their softmax "
        "itself, and a softmax of a softmax hardly learns.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=ReturnsTheLastLogits,
        hint="You return the last position alone. Training needs the logits of all T positions, "
        "each of which predicts its next token.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=RepeatsOneBlock,
        hint="Your list holds one block n_layers times, so all layers share their weights. Make a "
        "new block for each.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=UsesOneBlock,
        hint="Only the first block is applied. The others get no gradient, and the model is as "
        "shallow as one layer.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=NeverTies,
        hint="The head's weight must be the token table itself, not a copy: a copy drifts apart "
        "from it in training, and has to be learned twice.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=ForgetsToTurn,
        hint='With "rope" the blocks get no rotation, and nothing else tells the model the order '
        "of its tokens.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=TurnsNewTokensFrom0,
        hint="With a cache you turn the new tokens as if they stood at the beginning. The first of "
        "them is at position `cache.length`, and its distance to the keys in the cache counts "
        "from there.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=PlacesNewTokensAt0,
        hint="With a cache you embed the new tokens as if they stood at the beginning. The first "
        "of them is at position `cache.length`, which the embedding has to be told.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=TurnsNothingUnderACache,
        hint='With "rope" and a cache the blocks get no rotation, so the model loses the order of '
        "its tokens as soon as it writes with one. Queries and keys are turned in either case.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=MovesOnInEveryBlock,
        hint="You move `cache.length` on while the blocks are at work, so the second one appends "
        "behind a gap. All blocks append the same tokens; it moves on once, after the last.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=NeverMovesOn,
        hint="`cache.length` stays where it was, so the cache does not know what it has read, and "
        "every token is computed again.",
    ),
    Misconception(
        "TinyTransformerLM",
        wrong=KeepsTheFirstWeights,
        hint="init_weights is not called, or called before the layers are there: PyTorch's own "
        "starting weights are several times larger, and so is the first loss.",
    ),
    Misconception(
        "next_token_distribution",
        wrong=at_the_first_position,
        hint="You took the first position. The token that comes next is predicted at the last one, "
        "which has read them all.",
    ),
    Misconception(
        "next_token_distribution",
        wrong=as_scores,
        hint="You return logarithms. Probabilities are not negative and sum to 1.",
    ),
    Misconception(
        "next_token_distribution",
        wrong=over_the_batch,
        hint="Your softmax runs over the batch, so that the sequences compete for a token. It "
        "belongs to the last axis, over the vocabulary.",
    ),
    Misconception(
        "next_token_distribution",
        wrong=with_dropout,
        hint="Dropout is at work, so the same text gets another distribution each time. Put the "
        "model into eval mode, and back afterwards.",
    ),
    Misconception(
        "next_token_distribution",
        wrong=and_stay_quiet,
        hint="The model is left in eval mode. If it was training, dropout would rest from now on "
        "without anyone noticing: put it back as it was.",
    ),
]
