"""Wrong turns that learners take in module 02, and what to say to each."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.attention.reference import causal_mask, scaled_dot_product_attention
from tiny_transformer.multihead import reference
from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.setup.grading.doors import calls

Rotate = Callable[[Tensor], Tensor] | None
Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
merge_heads, split_heads = reference.merge_heads, reference.split_heads


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@probe("split_heads", B=2, T=5, n_heads=3, d_head=4, d_model=12)
def three_heads_of_four_features(split_heads: Callable) -> Any:
    return split_heads(some(2, 5, 12), 3)


@probe("merge_heads", B=2, T=5, n_heads=3, d_head=4, d_model=12)
def heads_that_were_split(merge_heads: Callable) -> Any:
    return merge_heads(some(2, 3, 5, 4))


@probe("MultiHeadAttention", B=2, T=5, n_heads=3, d_head=4, d_model=12)
def known_weights_masked_and_open(MultiHeadAttention: Callable) -> Any:
    layers = [MultiHeadAttention(12, 3), MultiHeadAttention(12, 3, causal=False)]
    noisy = MultiHeadAttention(12, 3, dropout=0.5)
    x = some(2, 5, 12)
    for layer in (*layers, noisy):
        fill(layer)
    outputs = [layer(x, return_weights=True) for layer in layers]
    facts = {
        "out is the same with and without the weights": same(layers[0](x), outputs[0][0]),
        "in training dropout changes the result": not same(noisy(x), noisy(x)),
        "outside training dropout rests": same(noisy.eval()(x), outputs[0][0]),
    }
    return [*outputs, facts, *doors(layers[0], x)]


def doors(layer: nn.Module, x: Tensor) -> list[Any]:
    """What comes through `rotate` and `remember`; what should come, where they are unused.

    A layer is compared with itself, so that another mistake is not told again.
    """
    turned = layer(x, return_weights=True)
    tail, kept = (
        turned[0][:, 2:],
        (split_heads(layer.k_proj(x), 3), split_heads(layer.v_proj(x), 3)),
    )
    rotates = calls(layer, "rotate", torch.neg, x, return_weights=True)
    if rotates:  # minus times minus: the scores stay
        turned = layer(x, return_weights=True, rotate=torch.neg)
    if calls(layer, "remember", lambda k, v: (k, v), x):
        k, v = given_to_remember(layer, x[:, :2])
        tail = layer(x[:, 2:], remember=lambda *new: joined((k, v), new))
        kept = given_to_remember(layer, x)
        if rotates:
            k, v = given_to_remember(layer, x, rotate=torch.neg)
            kept = -k, v
    return [turned, tail, kept]


def joined(past: tuple, new: tuple) -> tuple[Tensor, Tensor]:
    return torch.cat((past[0], new[0]), dim=2), torch.cat((past[1], new[1]), dim=2)


def given_to_remember(layer: nn.Module, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    given = []
    layer(x, remember=lambda k, v: given.extend((k, v)) or (k, v), **options)
    return given[0], given[1]


def fill(module: nn.Module) -> None:
    """The same numbers for the same names, whatever order they were made in."""
    with torch.no_grad():
        for seed, (_, p) in enumerate(sorted(module.named_parameters())):
            p.copy_(some(*p.shape, seed=seed) / p.size(-1) ** 0.5)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


@probe("attention_entropy", B=2, n_heads=3, T=5, S=7)
def rows_with_and_without_zeros(attention_entropy: Callable) -> Any:
    hidden = torch.zeros(7).index_fill(0, torch.tensor([5, 6]), -math.inf)
    return [
        attention_entropy(some(2, 3, 5, 7).softmax(-1)),
        attention_entropy((some(2, 3, 5, 7) + hidden).softmax(-1)),
    ]


class ScalesByTheModel(reference.MultiHeadAttention):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        q, k, v = self.heads_of(x)
        return self.finish(q / math.sqrt(self.n_heads), k, v, return_weights)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        return tuple(split_heads(project(x), self.n_heads) for project in projections)

    def finish(self, q: Tensor, k: Tensor, v: Tensor, return_weights: bool) -> Any:
        heads, weights = self.attend_explicitly(q, k, v)
        out = self.dropout(self.out_proj(merge_heads(heads)))
        return (out, weights) if return_weights else out


class ScalesTwice(ScalesByTheModel):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        q, k, v = self.heads_of(x)
        return self.finish(q / math.sqrt(q.size(-1)), k, v, return_weights)


class NeverScales(ScalesByTheModel):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        q, k, v = self.heads_of(x)
        return self.finish(q * math.sqrt(q.size(-1)), k, v, return_weights)


class LeavesOutTheLastProjection(ScalesByTheModel):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        heads, weights = self.attend_explicitly(*self.heads_of(x))
        out = self.dropout(merge_heads(heads))
        return (out, weights) if return_weights else out


class NeverMasks(reference.MultiHeadAttention):
    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__(d_model, n_heads, dropout, causal=False)


class AlwaysMasks(reference.MultiHeadAttention):
    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__(d_model, n_heads, dropout, causal=True)


class AveragesTheHeads(reference.MultiHeadAttention):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        out, weights = super().forward(x, return_weights=True)
        return (out, weights.mean(dim=1)) if return_weights else out


class AttendsBeforeItSplits(ScalesByTheModel):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        q, k, v = (merge_heads(heads)[:, None] for heads in self.heads_of(x))  # one wide head
        out, weights = self.finish(q, k, v, return_weights=True)
        return (out, weights.expand(-1, self.n_heads, -1, -1)) if return_weights else out


class DropsOutAlways(ScalesByTheModel):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        heads, weights = self.attend_explicitly(*self.heads_of(x))
        out = self.out_proj(merge_heads(heads))
        out = nn.functional.dropout(out, self.dropout.p)  # training=True is its default
        return (out, weights) if return_weights else out


class ForgetsDropout(reference.MultiHeadAttention):
    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__(d_model, n_heads, 0.0, causal)


class TurnsInAnotherWay(ScalesByTheModel):
    """A layer whose `turned` is a bug's own."""

    def forward(
        self,
        x: Tensor,
        return_weights: bool = False,
        rotate: Rotate = None,
        remember: Remember = None,
    ) -> Any:
        q, k, v = self.heads_of(x)
        if rotate is not None:
            q, k, v = self.turned(rotate, q, k, v)
        if remember is not None:
            k, v = remember(k, v)
        return self.finish(q, k, v, return_weights)


class ReshapesTheHeads(TurnsInAnotherWay):
    def turned(self, rotate: Callable, q: Tensor, k: Tensor, v: Tensor) -> Any:
        return rotate(q), rotate(k), v

    def finish(self, q: Tensor, k: Tensor, v: Tensor, return_weights: bool) -> Any:
        heads, weights = self.attend_explicitly(q, k, v)
        out = self.dropout(self.out_proj(heads.reshape(len(q), q.size(2), -1)))
        return (out, weights) if return_weights else out


class ReshapesTheHeadsWithoutDoors(ReshapesTheHeads):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        return super().forward(x, return_weights)


class TurnsTheValuesToo(TurnsInAnotherWay):
    def turned(self, rotate: Callable, q: Tensor, k: Tensor, v: Tensor) -> Any:
        return rotate(q), rotate(k), rotate(v)


class TurnsTheQueriesAlone(TurnsInAnotherWay):
    def turned(self, rotate: Callable, q: Tensor, k: Tensor, v: Tensor) -> Any:
        return rotate(q), k, v


class ExchangesWhatItTurns(TurnsInAnotherWay):
    def turned(self, rotate: Callable, q: Tensor, k: Tensor, v: Tensor) -> Any:
        return rotate(k), rotate(q), v


class RemembersKeysUnturned(ScalesByTheModel):
    def forward(
        self,
        x: Tensor,
        return_weights: bool = False,
        rotate: Rotate = None,
        remember: Remember = None,
    ) -> Any:
        q, k, v = self.heads_of(x)
        if remember is not None:
            k, v = remember(k, v)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        return self.finish(q, k, v, return_weights)


class RemembersAndDoesNotLook(reference.MultiHeadAttention):
    def forward(
        self,
        x: Tensor,
        return_weights: bool = False,
        rotate: Rotate = None,
        remember: Remember = None,
    ) -> Any:
        def forget(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            remember(k, v)
            return k, v

        return super().forward(x, return_weights, rotate, remember and forget)


class AlignsTheMaskWithTheFirstKey(reference.MultiHeadAttention):
    def attend_explicitly(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        mask = causal_mask(k.size(-2), k.device)[: q.size(-2)] if self.causal else None
        _, weights = scaled_dot_product_attention(q, k, v, mask)
        return self.dropout(weights) @ v, weights

    def attend_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend_explicitly(q, k, v)[0]


class SpreadsOverTheHeads(reference.MultiHeadAttention):
    axis = 1

    def attend_explicitly(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        T, S = q.size(-2), k.size(-2)
        scores = q @ k.mT / math.sqrt(q.size(-1))
        if self.causal:
            scores = scores.masked_fill(~causal_mask(S, q.device)[S - T :], -math.inf)
        weights = scores.softmax(self.axis)
        return self.dropout(weights) @ v, weights

    def attend_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend_explicitly(q, k, v)[0]


class SpreadsOverTheQueries(SpreadsOverTheHeads):
    axis = 2


class SpreadsOverTheQueriesWithoutDoors(SpreadsOverTheQueries):
    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        return super().forward(x, return_weights)


MISCONCEPTIONS = [
    Misconception(
        "split_heads",
        wrong=lambda x, n_heads: x.reshape(len(x), n_heads, x.size(1), -1),
        hint="You reshaped (B, T, d_model) to (B, n_heads, T, d_head) in one go, which cuts the "
        "numbers up in memory order: a head then mixes positions. Split the last axis first, then "
        "move the heads to the front.",
    ),
    Misconception(
        "split_heads",
        wrong=lambda x, n_heads: x.unflatten(-1, (-1, n_heads)).movedim(-1, 1),
        hint="Your head h takes every n_heads-th feature; it should take the h-th slice of "
        "neighbors. Weights trained elsewhere would be dealt out to the wrong heads.",
    ),
    Misconception(
        "split_heads",
        wrong=lambda x, n_heads: torch.stack(x.split(n_heads, dim=-1), dim=1),
        hint="Each of your heads is n_heads features wide. n_heads is how many there are; each is "
        "d_model / n_heads wide. (`split` asks for the width of a piece, `chunk` for how many.)",
    ),
    Misconception(
        "merge_heads",
        wrong=lambda x: x.reshape(len(x), x.size(2), -1),
        hint="The shape is right and the features are not: reshaping without moving the head axis "
        "back behind T mixes positions, so that a token reads what others said.",
    ),
    Misconception(
        "merge_heads",
        wrong=lambda x: x.permute(0, 2, 3, 1).flatten(2),
        hint="You interleave the heads feature by feature. `split_heads` gives head h the h-th "
        "slice, so merging must lay the slices side by side, or the two do not undo each other.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=ScalesByTheModel,
        hint="Your scores are divided by sqrt(d_model): each head's dot product has only d_head "
        "terms, so they come out too small and the weights too even. Scale by the head's width.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=SpreadsOverTheHeads,
        hint="Your softmax runs over the heads (dim=1), so heads compete, and where all are masked "
        "it is NaN. Each query of each head spreads its attention over the keys: dim=-1.",
    ),
    *(
        Misconception(
            "MultiHeadAttention",
            wrong=wrong,
            hint="Your softmax runs over the queries (dim=-2), so queries compete for a key. Each "
            "query spreads its attention over the keys: dim=-1.",
        )
        for wrong in (SpreadsOverTheQueries, SpreadsOverTheQueriesWithoutDoors)
    ),
    *(
        Misconception(
            "MultiHeadAttention",
            wrong=wrong,
            hint="You reshape the heads' results without moving the heads back behind T: out_proj "
            "then reads what other positions found. `merge_heads` does both.",
        )
        for wrong in (ReshapesTheHeads, ReshapesTheHeadsWithoutDoors)
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=ScalesTwice,
        hint="Your scores are divided by sqrt(d_head) twice. `scaled_dot_product_attention` scales "
        "them: give it queries and keys as they were split.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=NeverScales,
        hint="Your scores are not scaled: a sum of d_head products grows with sqrt(d_head), and "
        "the softmax saturates. Divide by sqrt(d_head).",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=LeavesOutTheLastProjection,
        hint="Your out_proj is never used. Without it no head's finding can be combined with "
        "another's, and its weights get no gradient.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=NeverMasks,
        hint="With `causal` a position still sees the future. In training the model would copy the "
        "token it must predict, and be lost when it has to write.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=AlwaysMasks,
        hint="You mask even with causal=False, where every position may attend to all: an encoder "
        "built of this could not look ahead.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=AveragesTheHeads,
        hint="You return the average of the heads' weights. Heads look for different things; keep "
        "one (T, T) map for each, or the average hides what they see.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=AttendsBeforeItSplits,
        hint="You attend with the full width, as one head: all heads see one map. Split queries, "
        "keys and values first: only then can each head attend to something of its own.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=DropsOutAlways,
        hint="Your dropout works outside training too, so the same text gets other results each "
        "time. F.dropout does not know the mode by itself; nn.Dropout does.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=ForgetsDropout,
        hint="`dropout` has no effect: results in training are the same every time. A model that "
        "is never disturbed learns a small text by heart.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=TurnsTheValuesToo,
        hint="`rotate` turns your values too. Queries and keys turn, so that a score knows the "
        "distance; a value is what is handed over, and should arrive as it was sent.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=TurnsTheQueriesAlone,
        hint="`rotate` turns your queries and leaves the keys. A score then depends on where the "
        "query stands; only if both turn does it depend on the distance between the two.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=ExchangesWhatItTurns,
        hint="With `rotate` your queries and keys are exchanged: what comes of turning the queries "
        "should be the queries again, and of the keys the keys.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=RemembersKeysUnturned,
        hint="You give `remember` the keys as they were before `rotate`. Turned afterwards, the "
        "old ones would turn again at each step, by the angles of positions that are not theirs.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=RemembersAndDoesNotLook,
        hint="You call `remember` and attend to the new keys and values alone. What it returns "
        "holds the past too, and the queries should look at all of it.",
    ),
    Misconception(
        "MultiHeadAttention",
        wrong=AlignsTheMaskWithTheFirstKey,
        hint="With remembered keys your mask lines the first query up with the first key. The T "
        "new queries are the last T of S positions, so they may see all that came before.",
    ),
    Misconception(
        "attention_entropy",
        wrong=lambda weights: -(weights * weights.log()).sum(dim=-1),
        hint="0 times ln 0 is NaN in floating point, and every causal row but the last has "
        "zeros. It must count as 0, its limit: torch has functions that know it.",
    ),
    Misconception(
        "attention_entropy",
        wrong=lambda weights: -torch.xlogy(weights, weights).sum(dim=-1) / math.log(2),
        hint="You measure in bits (log2); the course counts in nats, like the loss: natural "
        "logarithm. Otherwise ln(S) is not the most that a row can have.",
    ),
    Misconception(
        "attention_entropy",
        wrong=lambda weights: -torch.xlogy(weights, weights).mean(dim=-1),
        hint="You averaged over the keys. An entropy is a sum over the outcomes; dividing by their "
        "number makes wide rows look narrow.",
    ),
    Misconception(
        "attention_entropy",
        wrong=lambda weights: -torch.xlogy(weights, weights).sum(dim=-2),
        hint="You sum over the queries (dim=-2). Each query has an entropy of its own, a sum over "
        "the keys: dim=-1.",
    ),
]
