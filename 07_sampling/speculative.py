"""Speculative decoding: guess several tokens, check them in one pass, keep those that are right.

Reading the weights is most of what a pass costs, and a pass over five tokens reads them as often as
a pass over one. Shapes: T positions; there is one text here, not a batch.
"""

from collections.abc import Callable
from functools import lru_cache

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

GUESSES = 4  # in a pass; a fifth in a row is seldom right, and costs as much as the others
LONGEST = 4  # tokens by which the next one is guessed
TRUST = 8.0  # how often a context must be seen to count as much as the next shorter one

Choose = Callable[[Tensor], Tensor]


@torch.no_grad()
def generate_ahead(
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    draft: Callable[[Tensor, int, Choose], Tensor],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`generate` for one prompt: (1, T) -> (1, T + max_new_tokens), the same tokens, sooner.

    `draft(text, n, choose)` guesses at most n tokens after the text, (T,) -> (n,). One pass gives
    the logits after each of them, and every token is then drawn from its logits as always. As long
    as what is drawn is what was guessed, the next logits count too. A wrong guess costs time, never
    text (Leviathan, Kalman and Matias 2023, section 2.3).

    `choose` draws a token from a draft's logits, (vocab_size,) -> (1,), by the dice that will be
    thrown when its turn comes: two models that nearly agree then nearly always draw the same
    (Daliri, Musco and Suresh 2024). In 16 bits a pass over several tokens may round otherwise than
    passes over one.
    """
    if len(tokens) != 1:
        raise ValueError(f"tokens has {len(tokens)} prompts; guessing ahead works on one")
    check_request(tokens, max_new_tokens)
    check_strategy(temperature, top_k, top_p)
    max_len = model.config.max_len
    end, window = tokens.size(1), -1
    if generator is None:
        generator = torch.Generator(tokens.device).manual_seed(torch.randint(2**62, ()).item())
    foreseen = torch.Generator(tokens.device)

    def choose(logits: Tensor) -> Tensor:
        return sample(logits.unsqueeze(0), temperature, top_k, top_p, foreseen)

    total = end + max_new_tokens
    tokens = torch.cat((tokens, tokens.new_zeros(1, max_new_tokens)), dim=1)
    with in_evaluation(model):
        while end < total:
            start = window_start(end, max_len)
            if start > window:
                window, cache = start, KVCache(model.config, 1, tokens.device)
            # Guesses stay inside the window, and one token is always drawn after the last of them.
            room = min(GUESSES, start + max_len - end, total - end - 1)
            foreseen.set_state(generator.get_state())
            guesses = draft(tokens[0, :end], room, choose)
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
    """Guesses by how often each token followed the last 4 in a text (N,), the last 3, 2, 1 and any.

    Of two contexts the longer one counts the more the oftener it was seen (MacKay and Peto 1995).
    Where so many different tokens make a number too large for 64 bits, it looks at fewer of them.
    """

    def __init__(self, text: Tensor, vocab_size: int):
        self.vocab_size = vocab_size
        self.chances = lru_cache(2**22 // vocab_size)(self.chances)  # 16 MB of them
        self.seen = []  # n tokens and their follower as one number, and how often that was met
        numbers = torch.zeros(len(text), dtype=torch.long)
        for n in range(LONGEST + 1):
            if vocab_size ** (n + 1) >= 2**63 or n >= len(text):
                break
            numbers = numbers[: len(text) - n] * vocab_size + text[n:].cpu()
            self.seen.append(numbers.unique(return_counts=True))

    def __call__(self, text: Tensor, n: int, choose: Choose) -> Tensor:
        """text (T,) -> n guesses."""
        recent = text[-LONGEST:].tolist()
        known = len(recent)
        for _ in range(n):
            logits = self.chances(*recent[-LONGEST:]).log().to(text.device)
            recent.append(choose(logits).item())
        return text.new_tensor(recent[known:])

    def chances(self, *recent: int) -> Tensor:
        """Of each token after these, (vocab_size,)."""
        if recent:
            chances = self.chances(*recent[1:])
        else:
            chances = torch.full((self.vocab_size,), 1 / self.vocab_size)
        if len(recent) >= len(self.seen):
            return chances
        first = 0  # of the numbers that begin with these tokens
        for token in recent:
            first = (first + token) * self.vocab_size
        numbers, counts = self.seen[len(recent)]
        bounds = torch.tensor([first, first + self.vocab_size])
        here = slice(*torch.searchsorted(numbers, bounds).tolist())
        followed = torch.zeros(self.vocab_size)
        followed[numbers[here] - first] = counts[here].float()
        return (followed + TRUST * chances) / (followed.sum() + TRUST)
