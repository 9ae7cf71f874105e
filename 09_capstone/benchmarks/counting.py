"""What counting alone reaches: `python 09_capstone/benchmarks/counting.py`.

How often each character followed the last n ones in the training text, mixed with what shorter
contexts say, as if that had been seen `trust` times (MacKay and Peto 1995).
"""

import time

import torch
import tyro
from table import print_table
from torch import Tensor

from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.training.reference import split_corpus


def main(longest: int = 7, trust: float = 8.0) -> None:
    """Print the loss on the validation split by the length of the context.

    Args:
        longest: the longest context, in characters.
        trust: how many observations the shorter contexts are worth.
    """
    text = load_text()
    tokenizer = CharTokenizer(text)
    size = tokenizer.vocab_size
    began = time.perf_counter()
    splits = split_corpus(torch.tensor(tokenizer.encode(text)))
    (train, val), contexts = (
        splits,
        [torch.zeros(len(s) - longest, dtype=torch.long) for s in splits],
    )
    chances = torch.full((len(val) - longest,), 1 / size)
    rows = []
    for n in range(longest + 1):
        if n:  # one character more, as a longer number
            contexts = [
                c * size + s[longest - n : -n] for c, s in zip(contexts, splits, strict=True)
            ]
        seen, now = contexts
        together = times(seen * size + train[longest:], now * size + val[longest:])
        chances = (together + trust * chances) / (times(seen, now) + trust)
        rows.append([f"{n}", f"{-chances.log().mean():.4f}"])
    print_table(["characters before", "loss in nats"], rows)
    print(f"\n{time.perf_counter() - began:.1f} s")


def times(those: Tensor, these: Tensor) -> Tensor:
    """How often each of `these` is among `those`."""
    values, counts = those.unique(return_counts=True)
    at = torch.searchsorted(values, these).clamp(max=len(values) - 1)
    return counts[at] * (values[at] == these)


if __name__ == "__main__":
    tyro.cli(main)
