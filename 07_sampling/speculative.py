"""Speculative decoding: guess several tokens, check them in one pass, keep those that are right.

Reading the weights is most of what a pass costs, and a pass over four tokens reads them as often as
a pass over one. Shapes: T positions; there is one text here, not a batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tiny_transformer.sampling.reference import (
    KVCache,
    check_request,
    check_strategy,
    sample,
    window_start,
)
from tiny_transformer.tiny_lm.reference import in_evaluation

GUESSES = 3  # in a pass; the fourth in a row is seldom right, and costs as much as the others


@torch.no_grad()
def generate_ahead(
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    draft: Callable[[Tensor, int], Tensor],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`generate` for one prompt: (1, T) -> (1, T + max_new_tokens), the same tokens, sooner.

    `draft(text, n)` guesses at most n tokens after the text, (T,) -> (n,). One pass gives the
    logits after each of them, and every token is then drawn from its logits as always. As long as
    what is drawn is what was guessed, the next logits count too. A wrong guess costs time, never
    text (Leviathan, Kalman and Matias 2023, section 2.3, for a draft that is sure of itself). In 16
    bits a pass over several tokens may round otherwise than passes over one.
    """
    if len(tokens) != 1:
        raise ValueError(f"tokens has {len(tokens)} prompts; guessing ahead works on one")
    check_request(tokens, max_new_tokens)
    check_strategy(temperature, top_k, top_p)
    max_len = model.config.max_len
    end, window = tokens.size(1), -1
    total = end + max_new_tokens
    tokens = torch.cat((tokens, tokens.new_zeros(1, max_new_tokens)), dim=1)
    with in_evaluation(model):
        while end < total:
            start = window_start(end, max_len)
            if start > window:
                window, cache = start, KVCache(model.config, 1, tokens.device)
            # Guesses stay inside the window, and one token is always drawn after the last of them.
            guesses = draft(tokens[0, :end], min(GUESSES, start + max_len - end, total - end - 1))
            guessed = end + len(guesses)
            tokens[0, end:guessed] = guesses
            logits = model(tokens[:, start:guessed], cache)[0, end - 1 - guessed :]
            for scores in logits.split(1):
                choice = sample(scores, temperature, top_k, top_p, generator)
                right = torch.equal(choice, tokens[:, end])
                tokens[:, end] = choice
                end += 1
                if not right:
                    break
            cache.length = end - 1 - start  # forget the guesses that were wrong
    return tokens


class NGramDraft:
    """Guesses what followed most often in a text (N,): after the last 5 tokens, else 3, else 1.

    Where so many different tokens make a number too large for 64 bits, it looks at fewer of them.
    """

    def __init__(self, text: Tensor):
        self.base = int(text.max()) + 1
        self.followers = {}
        for n in (5, 3, 1):
            if n >= len(text) or self.base ** (n + 1) > 2**63:
                continue
            # n tokens and their follower as one number, whose last digit is the follower.
            digits = self.base ** torch.arange(n, -1, -1)
            grams, counts = (text.unfold(0, n + 1, 1) * digits).sum(-1).unique(return_counts=True)
            grams = grams[counts.argsort()]  # a dict keeps the last of equal keys: the commonest
            self.followers[n] = dict(
                zip((grams // self.base).tolist(), (grams % self.base).tolist(), strict=True)
            )

    def __call__(self, text: Tensor, n: int) -> Tensor:
        """text (T,) -> at most n guesses; fewer where the text leads to what was never seen."""
        recent = text[-5:].tolist()
        known = len(recent)
        while len(recent) < known + n and (follower := self.follower(recent)) is not None:
            recent.append(follower)
        return text.new_tensor(recent[known:])

    def follower(self, recent: list[int]) -> int | None:
        for n, followers in self.followers.items():
            key = 0
            for token in recent[-n:]:
                key = key * self.base + token
            if len(recent) >= n and key in followers:
                return followers[key]
        return None
