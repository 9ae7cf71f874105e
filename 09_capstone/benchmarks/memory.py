"""Peak memory of ten training steps, each model in a process of its own.

`python 09_capstone/benchmarks/memory.py`. On Linux and macOS.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

from peer import NANOGPT_GPU, Peer
from table import print_table
from torch import nn
from training_speed import CONTENDERS, prepare

from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.speed import freed_memory_kept
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import TrainConfig

GPU = RunConfig(device="cpu", model=NANOGPT_GPU, train=TrainConfig(batch_size=64))
CONTENDERS = CONTENDERS | {
    "peer, nanoGPT's GPU shape": (Peer, GPU),
    "ours, nanoGPT's GPU shape": (build, GPU),
}

PEAKS = ["peak MiB", "without libraries"]
MIB = 2**20 if sys.platform == "darwin" else 2**10  # in what ru_maxrss counts


def main() -> None:
    rows = [[name, *peaks(__file__, name)] for name in CONTENDERS]
    print_table(["model", *PEAKS], rows)


def peaks(file: str, name: str) -> list[str]:
    """What `file` measures when it is given the name of a contender, as cells of a table."""
    command = [sys.executable, file, name]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak = map(float, out.split())
    return [f"{peak:,.0f}", f"{peak - before:,.0f}"]


def measure(kind: Callable[[ModelConfig], nn.Module], config: RunConfig, steps: int = 10) -> None:
    """Print the peak before and after the steps, in MiB."""
    print(peak_mib())
    with freed_memory_kept() if kind is not Peer else nullcontext():  # as it trains
        step = prepare(kind, config)
        for _ in range(steps):
            step()
    print(peak_mib())


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(*CONTENDERS[sys.argv[1]], steps=2 if "GPU" in sys.argv[1] else 10)
    else:
        main()
