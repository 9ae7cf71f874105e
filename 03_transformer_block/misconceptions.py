"""Wrong turns that learners take in module 03, and what to say to each."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.setup.grading.doors import calls
from tiny_transformer.transformer_block import reference


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    """The same numbers for the same names, whatever order they were made in."""
    with torch.no_grad():
        for seed, (_, p) in enumerate(sorted(module.named_parameters())):
            p.copy_(some(*p.shape, seed=seed))
    return module


@probe("gelu", B=2, T=5, d_model=12)
def small_and_large_numbers(gelu: Callable) -> Any:
    return gelu(2 * some(2, 5, 12))


@probe("LayerNorm", B=2, T=5, d_model=12)
def plain_and_tiny_features_after_layer_norm(LayerNorm: Callable) -> Any:
    return normalized(LayerNorm)


@probe("RMSNorm", B=2, T=5, d_model=12)
def plain_and_tiny_features_after_rms_norm(RMSNorm: Callable) -> Any:
    return normalized(RMSNorm)


def normalized(norm: Callable) -> Any:
    fresh, used = norm(12), filled(norm(12))
    x = some(2, 5, 12) + 1
    # Tiny numbers show where eps is added.
    return [fresh(x), used(x), used(0.003 * x)]


@probe("FeedForward", B=2, T=5, d_model=12, d_ff=20)
def known_weights(FeedForward: Callable) -> Any:
    return filled(FeedForward(12, 20))(some(2, 5, 12))


@probe("TransformerBlock", B=2, T=5, d_model=12, n_heads=3, d_ff=20)
def a_block_of_known_weights(TransformerBlock: Callable) -> Any:
    block, x = filled(TransformerBlock(12, 3, 20)), some(2, 5, 12)
    out = block(x)
    turned = out  # what should come if `rotate` is unused, and if both queries and keys turn
    if calls(block, "rotate", torch.neg, x):
        turned = block(x, rotate=torch.neg)
    return [out, turned]


class UsesTheSampleVariance(reference.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        spread = torch.sqrt(x.var(dim=-1, keepdim=True) + self.eps)
        return (x - x.mean(dim=-1, keepdim=True)) / spread * self.weight + self.bias


class NormalizesOverPositions(reference.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        spread = torch.sqrt(x.var(dim=-2, keepdim=True, correction=0) + self.eps)
        return (x - x.mean(dim=-2, keepdim=True)) / spread * self.weight + self.bias


class AddsEpsToTheDeviation(reference.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        spread = x.std(dim=-1, keepdim=True, correction=0) + self.eps
        return (x - x.mean(dim=-1, keepdim=True)) / spread * self.weight + self.bias


class ForgetsToScaleAndShift(reference.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, eps=self.eps)


class SubtractsTheMean(reference.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, eps=self.eps)


class DividesByTheLength(reference.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(x.square().sum(dim=-1, keepdim=True) + self.eps) * self.weight


class AddsEpsToTheRoot(reference.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        root = x.square().mean(dim=-1, keepdim=True).sqrt()
        return x / (root + self.eps) * self.weight


class UsesRelu(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.up(x).relu()))


class UsesTheExactGelu(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(F.gelu(self.up(x))))


class HasNothingBetween(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.up(x)))


class ActivatesAtTheEnd(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(reference.gelu(self.down(reference.gelu(self.up(x)))))


class ActivatesAfterDown(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(reference.gelu(self.down(self.up(x))))


class ActivatesBeforeUp(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.up(reference.gelu(x))))


class AddsItsInput(reference.FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class PostNorm(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = self.ln_1(x + self.attention(x))
        return self.ln_2(x + self.feed_forward(x))


class HasNoResiduals(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.ln_2(self.attention(self.ln_1(x))))


class AddsToTheNormalizedCopy(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = normed + self.attention(normed)
        normed = self.ln_2(x)
        return normed + self.feed_forward(normed)


class ReadsTheStreamBare(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        return x + self.feed_forward(x)


class UsesOneNormTwice(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        return x + self.feed_forward(self.ln_1(x))


class FeedsForwardFirst(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.feed_forward(self.ln_2(x))
        return x + self.attention(self.ln_1(x))


class TurnsTheStream(reference.TransformerBlock):
    def forward(
        self,
        x: Tensor,
        rotate: Callable[[Tensor], Tensor] | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        normed = self.ln_1(x) if rotate is None else rotate(self.ln_1(x))
        x = x + self.attention(normed, remember=remember)
        return x + self.feed_forward(self.ln_2(x))


class RunsBothHalvesSideBySide(reference.TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.ln_1(x)) + self.feed_forward(self.ln_2(x))


MISCONCEPTIONS = [
    Misconception(
        "gelu",
        wrong=lambda x: F.gelu(x),
        hint="This is the exact GELU, with erf. The exercise asks for the tanh form, which GPT-2 "
        "has: with the other its weights would give slightly other numbers in every layer.",
    ),
    Misconception(
        "gelu",
        wrong=lambda x: x * torch.sigmoid(1.702 * x),
        hint="This is the sigmoid approximation of GELU, off by up to 0.02. The exercise asks for "
        "the tanh form.",
    ),
    Misconception(
        "gelu",
        wrong=lambda x: 0.5 * x * (1 + torch.tanh(2 / math.pi * (x + 0.044715 * x**3))),
        hint="The factor inside the tanh is the square root of 2 / pi. Without the root the gate "
        "opens too slowly.",
    ),
    Misconception(
        "LayerNorm",
        wrong=UsesTheSampleVariance,
        hint="You divide by d_model - 1 in the variance, PyTorch's default for var and std. These "
        "are all the features there are, not a sample: divide by d_model, as every LayerNorm does.",
    ),
    Misconception(
        "LayerNorm",
        wrong=NormalizesOverPositions,
        hint="You normalize over the positions. Each position must be normalized by itself, over "
        "its features: otherwise the future changes the past.",
    ),
    Misconception(
        "LayerNorm",
        wrong=AddsEpsToTheDeviation,
        hint="You add eps to the standard deviation; it belongs to the variance, under the root. "
        "The difference shows where the features hardly vary, which eps is there for.",
    ),
    Misconception(
        "LayerNorm",
        wrong=ForgetsToScaleAndShift,
        hint="`weight` and `bias` are never applied. They let the model choose scale and offset of "
        "each feature, and without them get no gradient.",
    ),
    Misconception(
        "RMSNorm",
        wrong=SubtractsTheMean,
        hint="You subtract the mean, as LayerNorm does. RMSNorm only divides: leaving the mean "
        "alone is what makes it cheaper.",
    ),
    Misconception(
        "RMSNorm",
        wrong=DividesByTheLength,
        hint="You divide by the vector's length, the root of the sum of squares. Take the mean: "
        "each feature should come out about 1 in size, not 1 / sqrt(d_model).",
    ),
    Misconception(
        "RMSNorm",
        wrong=AddsEpsToTheRoot,
        hint="You add eps to the root; it belongs under it, to the mean square. The difference "
        "shows where x is tiny, which eps is there for.",
    ),
    Misconception(
        "FeedForward",
        wrong=UsesRelu,
        hint="You used ReLU between the layers. The exercise asks for GELU, which also lets a "
        "gradient through where the input is negative.",
    ),
    Misconception(
        "FeedForward",
        wrong=UsesTheExactGelu,
        hint="Between the layers stands the exact GELU, with erf, which nn.GELU() and F.gelu give. "
        "The exercise asks for the tanh form: your own `gelu`, or approximate='tanh'.",
    ),
    Misconception(
        "FeedForward",
        wrong=HasNothingBetween,
        hint="There is nothing between up and down, and two linear layers in a row are one linear "
        "layer: d_ff would be wasted. Put the GELU between them.",
    ),
    Misconception(
        "FeedForward",
        wrong=ActivatesAtTheEnd,
        hint="You applied GELU to the output too. What is added to the residual stream must be "
        "free to be negative; the activation belongs between the layers only.",
    ),
    Misconception(
        "FeedForward",
        wrong=ActivatesAfterDown,
        hint="Your GELU comes after `down`: up and down, with nothing between, are one linear "
        "layer, and what is added to the stream is never far below 0. Put it between them.",
    ),
    Misconception(
        "FeedForward",
        wrong=ActivatesBeforeUp,
        hint="Your GELU comes before `up`: up and down, with nothing between, are one linear "
        "layer. Put it between them.",
    ),
    Misconception(
        "FeedForward",
        wrong=AddsItsInput,
        hint="You add the input to the output. The residual is the block's affair, which adds what "
        "the network gives to the stream: here it would be added twice.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=PostNorm,
        hint="This is Post-LN, the order of 2017: the norm stands in the residual path, and deep "
        "models then need a careful warm-up. Normalize what each half reads, not the sum.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=HasNoResiduals,
        hint="Nothing is added back: each half replaces the stream, which leaves no straight path "
        "for the gradient, and a deep stack hardly learns.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=AddsToTheNormalizedCopy,
        hint="You add each result to the normalized copy. The stream itself must go through "
        "unchanged; normalize only what attention and FFN read.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=ReadsTheStreamBare,
        hint="The feed-forward network reads the stream without ln_2. The stream grows with depth, "
        "and what reads it must be shielded from that.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=UsesOneNormTwice,
        hint="Both halves read through ln_1, and ln_2 is never used. Each half needs a scale and "
        "an offset of its own.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=RunsBothHalvesSideBySide,
        hint="Both halves read the same stream, side by side. Here the feed-forward network comes "
        "second and reads what attention has just gathered.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=FeedsForwardFirst,
        hint="The feed-forward network comes first. Attention does: the network then works on what "
        "it has gathered.",
    ),
    Misconception(
        "TransformerBlock",
        wrong=TurnsTheStream,
        hint="You turn what attention reads. `rotate` is for queries and keys, head by head: hand "
        "it on to attention, which has them. Now the values turn too.",
    ),
]
