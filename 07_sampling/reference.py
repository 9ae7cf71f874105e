"""Sampling: from scores to a choice, from choices to text, and the cache that makes it fast.

Shapes: B batch, T positions, vocab_size characters; logits are (..., vocab_size).
"""

import math

import torch
from torch import Tensor, nn

from tiny_transformer.tiny_lm.reference import ModelConfig


@torch.no_grad()
def generate(
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    lengths: Tensor | None = None,
) -> Tensor:
    """Continue a batch of prompts: tokens (B, T) -> (B, T + max_new_tokens).

    With and without the cache the tokens are the same; dropout rests. Once the text outgrows the
    context, the window moves on by half a context at a time, so that the cache is refilled seldom.
    Where it starts depends on the position alone: a prompt fares alike alone and in a batch.

    Prompts of several lengths are padded on the right with any ids, and `lengths` (B,) says
    where each ends; the first `lengths[b] + max_new_tokens` tokens of row b are its text.
    """
    B, T = tokens.shape
    if lengths is None:
        lengths = torch.full((B,), T)
    check_request(int(lengths.min()), max_new_tokens)
    if lengths.max() > T:
        raise ValueError(f"lengths has {int(lengths.max())}; tokens has {T} positions")
    lengths = lengths.to(tokens.device)
    was_training = model.training
    model.eval()
    cache, window, seen = None, -1, 0
    tokens = torch.cat((tokens, tokens.new_zeros(B, max_new_tokens)), dim=1)
    for end in range(int(lengths.min()), T + max_new_tokens):
        start = window_start(end, model.config.max_len)
        if start > window:
            window = seen = start
            cache = KVCache(model.config, B, tokens.device) if use_cache else None
        logits = model(tokens[:, seen:end], cache)[:, -1]  # (B, vocab_size)
        if use_cache:
            seen = end
        choice = sample(logits, temperature, top_k, top_p, generator)
        tokens[:, end] = torch.where(end < lengths, tokens[:, end], choice)
    model.train(was_training)
    return tokens


def check_request(shortest: int, max_new_tokens: int) -> None:
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; it must not be negative")
    if shortest < 1:
        raise ValueError("a prompt is empty; the model needs at least one token to continue")


def window_start(end: int, max_len: int) -> int:
    """Where the window that predicts the token at `end` starts: moved on by half a context."""
    half = max(1, max_len // 2)
    return max(0, math.ceil((end - max_len) / half) * half)


class KVCache:
    """The keys and values of every token read so far, so that each is computed once.

    Attention reads the past only through its keys and values, and those never change. Room for
    the whole context is reserved at once: (n_layers, B, n_heads, max_len, d_head), twice. Their
    ids, (B, length), are noted only by a model with a token shift, which looks back one token.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        shape = (config.n_layers, batch_size, config.n_heads, config.max_len, config.d_head)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.tokens = torch.empty((batch_size, 0), dtype=torch.long, device=device)
        self.length = 0  # tokens read so far; the model moves it on once all layers have appended

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """New k, v (B, n_heads, T, d_head) of `layer` -> all of them, (B, n_heads, S, d_head)."""
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a token for each row: logits (B, vocab_size) -> (B,). Temperature 0 is `greedy`.

    The temperature comes first, then top_k, then top_p of what is left.
    """
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row: (..., vocab_size) -> (...)."""
    return logits.argmax(dim=-1)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution: divide by the temperature."""
    if not temperature > 0:
        raise ValueError(
            f"temperature is {temperature}; it must be above 0 (greedy() is the limit)"
        )
    return logits / temperature


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Keep the k highest scores of each row and set the others to -inf (Fan et al. 2018).

    A k above vocab_size keeps everything; scores that tie with the k-th stay.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    kth = logits.topk(min(k, logits.size(-1)), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens that together have probability p, the others get -inf.

    The nucleus of Holtzman et al. 2020: wide where the model is unsure, narrow where it knows.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}; it must be above 0 and at most 1")
    if p == 1:
        return logits  # rounding below would cut off the tail
    descending, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    before = descending.cumsum(dim=-1) - descending  # the mass of all likelier tokens
    outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(outside, -math.inf)
