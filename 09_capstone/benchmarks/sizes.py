"""What a model's size costs on the CPU: time and memory of a step, and its share of the peak.

`python 09_capstone/benchmarks/sizes.py`. On Linux and macOS. All sizes train on 16 windows of 64
tokens a step, in float32 by AdamW: weight, gradient and two averages are 16 bytes a parameter. The
last column has those, to hold beside the memory without libraries.
"""

import sys

from memory import PEAKS, measure, peaks
from table import print_table
from training_speed import speeds

from tiny_transformer.engineering.config import PRESETS, override
from tiny_transformer.tiny_lm.modern import build, count_modern_parameters

SHAPES = {"0.8 M": (128, 4), "3 M": (256, 4), "10 M": (384, 6), "30 M": (640, 6)}  # width, blocks
CPU = PRESETS["cpu"]
CONTENDERS = {
    name: (
        build,
        override(
            CPU, {"model": dict(d_model=d, d_ff=4 * d, n_layers=n, n_heads=d // 64, ngrams=0)}
        ),
    )
    for name, (d, n) in SHAPES.items()
}


def main() -> None:
    taken = [peaks(__file__, name) for name in CONTENDERS]  # first: a child begins at our own peak
    header, rows = speeds(CONTENDERS, rounds=10, steps=1)
    for row, cells, (_, config) in zip(rows, taken, CONTENDERS.values(), strict=True):
        states = 16 * count_modern_parameters(config.model) / 2**20
        row += [*cells, f"{states:,.0f}"]
    print_table([*header, *PEAKS, "of 16 bytes"], rows)


if __name__ == "__main__":
    measure(*CONTENDERS[sys.argv[1]], steps=3) if sys.argv[1:] else main()
