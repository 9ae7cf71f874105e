"""Sampling: from scores to a choice, from choices to text, and the cache that makes it fast.

Shapes: B batch, T positions, vocab_size characters; logits are (..., vocab_size).
"""

import math

import torch
from torch import Tensor, nn

from tiny_transformer.setup.limits import check_number
from tiny_transformer.tiny_lm.reference import ModelConfig, in_evaluation

COLD = 0.01  # below it the likeliest token is all but certain


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
    check_request(tokens, max_new_tokens, lengths)
    check_strategy(temperature, top_k, top_p)
    B, T = tokens.shape
    lengths = torch.full((B,), T) if lengths is None else lengths
    shortest, lengths = int(lengths.min()), lengths.to(tokens.device)
    cache, window = None, -1
    tokens = torch.cat((tokens, tokens.new_zeros(B, max_new_tokens)), dim=1)
    with in_evaluation(model):
        for end in range(shortest, T + max_new_tokens):
            start = window_start(end, model.config.max_len)
            if use_cache and start > window:
                window, cache = start, KVCache(model.config, B, tokens.device)
            logits = model(tokens[:, start:end], cache)[:, -1]  # (B, vocab_size)
            choice = sample(logits, temperature, top_k, top_p, generator)
            tokens[:, end] = torch.where(end < lengths, tokens[:, end], choice)
    return tokens


def check_request(tokens: Tensor, max_new_tokens: int, lengths: Tensor | None = None) -> None:
    if tokens.dim() != 2 or not len(tokens):
        raise ValueError(f"tokens is {tuple(tokens.shape)}; it must be (B, T), a row for a prompt")
    check_number("max_new_tokens", max_new_tokens, least=0, whole=True)
    B, T = tokens.shape
    if lengths is not None and (lengths.shape != (B,) or lengths.is_floating_point()):
        raise ValueError(f"lengths is {lengths.tolist()}; it must have {B} whole numbers")
    shortest, longest = (T, T) if lengths is None else map(int, lengths.aminmax())
    if shortest < 1:
        raise ValueError("a prompt is empty; the model needs at least one token to continue")
    if longest > T:
        raise ValueError(f"lengths has {longest}; tokens has {T} positions")


def window_start(end: int, max_len: int) -> int:
    """Where the window that predicts the token at `end` starts: moved on by half a context."""
    half = max(1, max_len // 2)
    return max(0, math.ceil((end - max_len) / half) * half)


class KVCache:
    """The keys and values of every token read so far, so that each is computed once.

    Attention reads the past only through its keys and values, and those never change. Room for
    the whole context is reserved at once: (n_layers, B, n_heads, max_len, d_head), twice, and
    takes the dtype of what is appended.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        device: torch.device | str | None = None,
    ):
        shape = (config.n_layers, batch_size, config.n_heads, config.max_len, config.d_head)
        self.keys = torch.empty(shape, device=device)
        self.values = torch.empty(shape, device=device)
        self.length = 0  # tokens read so far; the model moves it on once all layers have appended

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """New k, v (B, n_heads, T, d_head) of `layer` -> all of them, (B, n_heads, S, d_head)."""
        end = self.length + k.size(2)
        self.keys, self.values = self.keys.to(k), self.values.to(v)  # themselves, but once
        keys, values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        if k.shape != (room := keys[:, :, self.length :].shape):
            raise ValueError(f"k is {tuple(k.shape)}; the cache has room for {tuple(room)}")
        keys[:, :, self.length :] = k
        values[:, :, self.length :] = v
        return keys, values


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a token for each row: logits (B, vocab_size) -> (B,). Temperature 0 is `greedy`.

    The temperature comes first, then top_k, then top_p of what is left.

    Raises:
        ValueError: names the number that is out of bounds, or says that a row has NaN.
    """
    check_strategy(temperature, top_k, top_p)
    if not logits.amax(dim=-1).isfinite().all():
        raise ValueError("logits has a row whose highest score is nan or inf; none can be drawn")
    if temperature == 0:
        return greedy(logits)
    logits = apply_temperature(logits.float(), temperature)  # chances of 8 bits would not add up
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def check_strategy(temperature: float, top_k: int | None, top_p: float | None) -> None:
    check_number("temperature", temperature, least=0)
    if top_k is not None:
        check_number("top_k", top_k, least=1, whole=True)
    if top_p is not None:
        check_number("top_p", top_p, above=0, most=1)


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row: (..., vocab_size) -> (...)."""
    return logits.argmax(dim=-1)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution: divide by the temperature.

    Towards 0 it becomes `greedy`.
    """
    check_number("temperature", temperature, above=0)
    if temperature < COLD:  # what is divided may overflow; the softmax ignores a constant shift
        logits = logits - logits.amax(dim=-1, keepdim=True)
        temperature = max(temperature, torch.finfo(logits.dtype).tiny)
    return logits / temperature


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Keep the k highest scores of each row and set the others to -inf (Fan et al. 2018).

    A k above vocab_size keeps everything; scores that tie with the k-th stay.
    """
    check_number("k", k, least=1, whole=True)
    kth = logits.topk(min(k, logits.size(-1)), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens that together have probability p, the others get -inf.

    The nucleus of Holtzman et al. 2020: wide where the model is unsure, narrow where it knows.
    """
    check_number("p", p, above=0, most=1)
    if p == 1:
        return logits.clone()  # rounding below would cut off the tail
    descending, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    before = descending.cumsum(dim=-1) - descending  # the mass of all likelier tokens
    p = max(p, torch.finfo(before.dtype).tiny)  # which is not 0 for the likeliest either
    outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(outside, -math.inf)
