"""What the size of the text costs: seconds to the first step, milliseconds a step, and memory.

`python 09_capstone/benchmarks/scale.py`. The texts, Shakespeare over and over with one character
in a hundred changed, go to a temporary folder, and take twice their size there. The steps of all
sizes take turns, so that a slow minute hits all of them; the table shows medians. On Linux and
macOS.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro
from memory import MIB
from table import print_table

from tiny_transformer.capstone.reference import build_model
from tiny_transformer.data.corpus import load_text
from tiny_transformer.data.encoded import encode_text
from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.engineering.speed import freed_memory_kept, matmul_precision
from tiny_transformer.training.reference import make_optimizer, split_corpus, training_steps


def main(
    megabytes: tuple[int, ...] = (1, 10, 100, 1000), rounds: int = 20, steps: int = 10
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [write_text(folder / f"{size}.txt", size) for size in megabytes]
        first = [train(text, folder / f"{text.stem}-first", 2) for text in texts]
        later = [train(text, folder / f"{text.stem}-later", 190) for text in texts]
        seconds = take_turns([stepping(text) for text in texts], rounds, steps)
    rows = []
    for size, (start, peak), (again, top), step in zip(
        megabytes, first, later, seconds, strict=True
    ):
        row = [f"{size:,} MB", f"{start:.1f}", f"{again:.1f}", f"{max(peak, top):,.0f}"]
        rows.append([*row, f"{step * 1e3:.1f}", f"{step / seconds[0]:.3f}"])
    print_table(["text", "first start, s", "later, s", "peak MiB", "ms/step", "to the first"], rows)


def write_text(path: Path, megabytes: int) -> Path:
    play = np.frombuffer(load_text().encode(), np.uint8)
    random, left = np.random.default_rng(1), megabytes * 1_000_000
    with path.open("wb") as file:
        while left > 0:
            copy = play[:left].copy()
            changed = random.integers(len(copy), size=len(copy) // 100)
            copy[changed] = random.choice(play, len(changed))
            file.write(copy)
            left -= len(copy)
    return path


def train(text: Path, out: Path, steps: int) -> tuple[float, float]:
    """Preset `fast`: seconds until its first step was done, and the peak in MiB."""
    command = [sys.executable, "-m", "tiny_transformer.capstone", "train", "--preset", "fast"]
    command += ["--corpus", str(text), "--out", str(out), "--train.max-steps", str(steps)]
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    first = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    return first["seconds"], usage.ru_maxrss / MIB


def stepping(text: Path) -> Callable[[], object]:
    """A function that takes one step on this text, as `train` would."""
    config, encoded = PRESETS["fast"], encode_text(text)
    torch.manual_seed(config.seed)
    model, _ = build_model(config.model, encoded.characters)
    endless = replace(config.train, max_steps=1_000_000)
    tokens, _ = split_corpus(encoded.tokens())
    optimizer, batches = make_optimizer(model, endless), torch.Generator().manual_seed(config.seed)
    return training_steps(model, optimizer, tokens, endless, batches).__next__


def take_turns(steppers: list[Callable[[], object]], rounds: int, steps: int) -> list[float]:
    """The median seconds of a step of each; the first round warms up."""
    seconds = [[] for _ in steppers]
    with (
        matmul_precision(PRESETS["fast"].matmul_precision, torch.device("cpu")),
        freed_memory_kept(),
    ):
        for _ in range(rounds + 1):
            for step, taken in zip(steppers, seconds, strict=True):
                start = time.perf_counter()
                for _ in range(steps):
                    step()
                taken.append((time.perf_counter() - start) / steps)
    return [median(taken[1:]) for taken in seconds]


if __name__ == "__main__":
    tyro.cli(main)
