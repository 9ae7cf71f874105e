"""One learner's answers to the exercises of module 07, which its tests must accept."""

import torch
from torch import Tensor, nn

from tiny_transformer.tiny_lm.reference import ModelConfig


def greedy(logits: Tensor) -> Tensor:
    return torch.max(logits, dim=-1).indices


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    if temperature <= 0:
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
) -> Tensor:
    if tokens.shape[1] == 0:
        raise ValueError("the prompt is empty")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is negative")
    context = model.config.max_len
    step = max(1, context // 2)
    training = model.training
    model.eval()
    with torch.no_grad():
        start, cache = 0, None
        if use_cache:
            cache = KVCache(model.config, tokens.shape[0], tokens.device)
        for _ in range(max_new_tokens):
            T = tokens.shape[1]
            while T - start > context:
                start += step
                if use_cache:
                    cache = KVCache(model.config, tokens.shape[0], tokens.device)
            logits = model(tokens[:, start:], cache)
            new = sample(logits[:, -1], temperature, top_k, top_p, generator)
            tokens = torch.cat([tokens, new[:, None]], dim=1)
    model.train(training)
    return tokens


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
