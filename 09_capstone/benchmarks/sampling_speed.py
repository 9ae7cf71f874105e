"""Sampling speed: new tokens a second with and without the cache, packed, ahead, and in a batch.

`python 09_capstone/benchmarks/sampling_speed.py --run RUN`. Fills the context from one token, in
the shape of the run's model; without a run it is nanoGPT's GPU shape with random weights, whose
text no draft can guess. The contenders take turns; the table shows medians.
"""

import time
from pathlib import Path
from statistics import median

import torch
import tyro
from peer import NANOGPT_GPU, Peer
from table import print_table

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.speed import packed
from tiny_transformer.sampling.reference import generate
from tiny_transformer.sampling.speculative import NGramDraft, generate_ahead
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import TinyTransformerLM


def main(run: Path | None = None, temperature: float = 1.0, rounds: int = 5) -> None:
    if run:
        ours, tokenizer = load_run(run)
    else:
        ours = build(NANOGPT_GPU).eval()
    config = ours.config
    peer, ours_packed, new = Peer(config).eval(), packed(ours), config.max_len - 1

    def peer_generates(batch_size: int, use_cache: bool) -> None:
        peer.gpt2.generate(
            torch.zeros(batch_size, 1, dtype=torch.long),
            attention_mask=torch.ones(batch_size, 1, dtype=torch.long),
            min_new_tokens=new,
            max_new_tokens=new,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            use_cache=use_cache,
            pad_token_id=0,
        )

    def we_generate(model: TinyTransformerLM, batch_size: int, use_cache: bool = True) -> None:
        start = torch.zeros(batch_size, 1, dtype=torch.long)
        generate(model, start, new, temperature, use_cache=use_cache)

    contenders = {
        "peer, no cache": (1, lambda: peer_generates(1, use_cache=False)),
        "peer, cache": (1, lambda: peer_generates(1, use_cache=True)),
        "ours, no cache": (1, lambda: we_generate(ours, 1, use_cache=False)),
        "ours, cache": (1, lambda: we_generate(ours, 1)),
        "ours, packed": (1, lambda: we_generate(ours_packed, 1)),
        "peer, cache, batch of 32": (32, lambda: peer_generates(32, use_cache=True)),
        "ours, cache, batch of 32": (32, lambda: we_generate(ours, 32)),
        "ours, packed, batch of 32": (32, lambda: we_generate(ours_packed, 32)),
    }
    if run:
        draft = NGramDraft(torch.tensor(tokenizer.encode(load_text())), config.vocab_size)

        def ahead(model: TinyTransformerLM) -> None:
            generate_ahead(model, torch.zeros(1, 1, dtype=torch.long), new, draft, temperature)

        contenders["ours, ahead"] = (1, lambda: ahead(ours))
        contenders["ours, packed, ahead"] = (1, lambda: ahead(ours_packed))
    speeds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (batch_size, go) in contenders.items():
            began = time.perf_counter()
            go()
            speeds[name].append(batch_size * new / (time.perf_counter() - began))
    base = median(speeds["peer, cache"])
    rows = [[name, f"{median(s):,.0f}", f"{median(s) / base:.1f}"] for name, s in speeds.items()]
    print_table(["model", "tokens/s", "times the peer with its cache"], rows)


if __name__ == "__main__":
    tyro.cli(main)
