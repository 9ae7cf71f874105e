"""A training step on a graphics card: milliseconds, tokens a second, FLOP/s and peak memory.

`python 09_capstone/benchmarks/gpu_steps.py`. Peer and preset `gpu`, as they train: compiled
where that is possible, and in the precision that the card is best at.
"""

import time
from dataclasses import replace
from statistics import median

import torch
from peer import RECIPES, Peer
from table import print_table
from training_speed import flops_per_token, prepare

from tiny_transformer.engineering.config import PRESETS, RunConfig
from tiny_transformer.tiny_lm.modern import build

model, training = RECIPES["gpu"]
contenders = {
    "peer, nanoGPT's recipe": (Peer, RunConfig(model=model, train=training)),
    "ours, preset gpu": (build, PRESETS["gpu"]),
}
rows = []
for name, (kind, config) in contenders.items():
    torch.cuda.reset_peak_memory_stats()
    step = prepare(kind, replace(config, device="cuda"))
    seconds = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            step()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / 10)
    tokens = config.train.batch_size * config.model.max_len
    speed = tokens / median(seconds)
    rows.append(
        [name, f"{median(seconds) * 1e3:.1f}", f"{speed:,.0f}"]
        + [f"{flops_per_token(config.model) * speed / 1e12:.1f}"]
        + [f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}"]
    )
    del step
    torch.compiler.reset()
print_table(["model", "ms/step", "tokens/s", "TFLOP/s", "peak MiB"], rows)
