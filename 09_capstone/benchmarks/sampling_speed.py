"""Sampling speed: new tokens a second with and without the cache, alone and in a batch.

`python 09_capstone/benchmarks/sampling_speed.py`. Fills the context of nanoGPT's GPU shape from
one token. The contenders take turns; the table shows medians.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import tyro
from peer import NANOGPT_GPU, Peer
from table import print_table

from tiny_transformer.sampling.reference import generate
from tiny_transformer.tiny_lm.reference import TinyTransformerLM


def main(rounds: int = 3) -> None:
    ours, peer = TinyTransformerLM(NANOGPT_GPU).eval(), Peer(NANOGPT_GPU).eval()
    new = NANOGPT_GPU.max_len - 1

    def peer_generate(batch_size: int, use_cache: bool) -> None:
        peer.gpt2.generate(
            torch.zeros(batch_size, 1, dtype=torch.long),
            attention_mask=torch.ones(batch_size, 1, dtype=torch.long),
            min_new_tokens=new,
            max_new_tokens=new,
            do_sample=True,
            top_k=0,
            use_cache=use_cache,
            pad_token_id=0,
        )

    def our_generate(batch_size: int, use_cache: bool) -> None:
        generate(ours, torch.zeros(batch_size, 1, dtype=torch.long), new, use_cache=use_cache)

    contenders: dict[str, tuple[Callable, int, bool]] = {
        "peer, no cache": (peer_generate, 1, False),
        "peer, cache": (peer_generate, 1, True),
        "ours, no cache": (our_generate, 1, False),
        "ours, cache": (our_generate, 1, True),
        "peer, cache, batch of 32": (peer_generate, 32, True),
        "ours, cache, batch of 32": (our_generate, 32, True),
    }
    speeds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (run, batch_size, use_cache) in contenders.items():
            start = time.perf_counter()
            run(batch_size, use_cache)
            speeds[name].append(batch_size * new / (time.perf_counter() - start))
    base = median(speeds["peer, no cache"])
    rows = [[name, f"{median(s):,.0f}", f"{median(s) / base:.1f}"] for name, s in speeds.items()]
    print_table(["model", "tokens/s", "times the peer without cache"], rows)


if __name__ == "__main__":
    tyro.cli(main)
