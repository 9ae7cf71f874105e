"""Peak memory of ten training steps, each model in a process of its own.

`python 09_capstone/benchmarks/memory.py`. On Linux and macOS.
"""

import resource
import subprocess
import sys
from contextlib import nullcontext

from peer import NANOGPT_GPU, Peer
from table import print_table
from training_speed import CONTENDERS, prepare

from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.speed import freed_memory_kept
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.training.reference import TrainConfig

GPU = RunConfig(device="cpu", model=NANOGPT_GPU, train=TrainConfig(batch_size=64))
CONTENDERS = CONTENDERS | {
    "peer, nanoGPT's GPU shape": (Peer, GPU),
    "ours, nanoGPT's GPU shape": (build, GPU),
}

MIB = 2**20 if sys.platform == "darwin" else 2**10  # in what ru_maxrss counts


def main() -> None:
    rows = []
    for name in CONTENDERS:
        command = [sys.executable, __file__, name]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, peak = map(float, out.split())
        rows.append([name, f"{peak:,.0f}", f"{peak - before:,.0f}"])
    print_table(["model", "peak MiB", "without libraries"], rows)


def measure(name: str) -> None:
    """Print the peak before and after the steps, in MiB."""
    kind, config = CONTENDERS[name]
    print(peak_mib())
    with freed_memory_kept() if kind is not Peer else nullcontext():  # as it trains
        step = prepare(kind, config)
        for _ in range(2 if "GPU" in name else 10):
            step()
    print(peak_mib())


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


if __name__ == "__main__":
    measure(*sys.argv[1:]) if sys.argv[1:] else main()
