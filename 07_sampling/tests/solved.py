"""One learner's answers to the exercises of module 07, which its tests must accept."""

import torch
from torch import Tensor, nn

from tiny_transformer.tiny_lm.reference import ModelConfig


def greedy(logits: Tensor) -> Tensor:
    return torch.max(logits, dim=-1).indices


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} is not above 0")
    return logits / temperature


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    if k < 1:
        raise ValueError(f"k={k} is below 1")
    k = min(k, logits.shape[-1])
    smallest_kept = torch.sort(logits, dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where(logits >= smallest_kept, logits, -torch.inf)


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    if not 0 < p <= 1:
        raise ValueError(f"p={p} is not above 0 and at most 1")
    if p == 1:
        return logits.clone()
    ordered, order = torch.sort(logits, dim=-1, descending=True)
    chances = ordered.softmax(-1)
    before = chances.cumsum(-1) - chances
    dropped_sorted = before >= p
    dropped_sorted[..., 0] = False
    dropped = torch.zeros_like(dropped_sorted).scatter(-1, order, dropped_sorted)
    return logits.masked_fill(dropped, float("-inf"))


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    if temperature == 0:
        return greedy(logits)
    scores = apply_temperature(logits, temperature)
    if top_k is not None:
        scores = top_k_filter(scores, top_k)
    if top_p is not None:
        scores = top_p_filter(scores, top_p)
    return torch.multinomial(torch.softmax(scores, -1), num_samples=1, generator=generator)[:, 0]


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
    B, T = tokens.shape
    ends = [T] * B if lengths is None else lengths.tolist()
    text = tokens.new_zeros(B, T + max_new_tokens)
    text[:, :T] = tokens
    context = model.config.max_len
    step = context - context // 2
    start, cache = 0, None
    training = model.training
    model.eval()
    with torch.no_grad():
        for now in range(min(ends), T + max_new_tokens):
            while now - start > context:
                start += step
                cache = None
            if use_cache:
                if cache is None:
                    cache = KVCache(model.config, B, tokens.device)
                logits = model(text[:, start:now], cache)
            else:
                logits = model(text[:, start:now])
            new = sample(logits[:, -1], temperature, top_k, top_p, generator)
            for row, end in enumerate(ends):
                if now >= end:
                    text[row, now] = new[row]
    model.train(training)
    return text


class KVCache:
    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        device: torch.device | str | None = None,
    ):
        self.length = 0
        self.stored = [None] * config.n_layers

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.stored[layer] is not None:
            old_k, old_v = self.stored[layer]
            k = torch.cat([old_k[:, :, : self.length], k], dim=2)
            v = torch.cat([old_v[:, :, : self.length], v], dim=2)
        self.stored[layer] = (k, v)
        return k, v
