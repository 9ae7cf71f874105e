"""Training speed: milliseconds a step, tokens a second, and how much of the machine that uses.

`python 09_capstone/benchmarks/training_speed.py`. The models take turns, so that a slow minute
hits all of them; the table shows medians.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import tyro
from peer import NANOGPT_CPU, Peer
from table import print_table
from torch import nn

from tiny_transformer.engineering.config import PRESETS, RunConfig
from tiny_transformer.engineering.speed import choose_arithmetic, matmul_precision
from tiny_transformer.setup.device import choose_device
from tiny_transformer.tiny_lm.modern import build, count_modern_parameters
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import make_optimizer, train_step

CONTENDERS = {
    "peer, nanoGPT's recipe": (Peer, RunConfig(device="cpu", model=NANOGPT_CPU)),
    "ours, nanoGPT's recipe": (build, RunConfig(device="cpu", model=NANOGPT_CPU)),
    "ours, preset cpu": (build, PRESETS["cpu"]),
    "ours, preset fast": (build, PRESETS["fast"]),
    "ours, preset minute": (build, PRESETS["minute"]),
    "ours, preset small": (build, PRESETS["small"]),
}


Contenders = dict[str, tuple[Callable[[ModelConfig], nn.Module], RunConfig]]


def main(rounds: int = 10, steps: int = 10) -> None:
    print_table(*speeds(CONTENDERS, rounds, steps))


def speeds(contenders: Contenders, rounds: int, steps: int) -> tuple[list[str], list[list[str]]]:
    """The header of a table, and a row for each contender."""
    stepping = {name: prepare(*contender) for name, contender in contenders.items()}
    seconds = {name: [] for name in contenders}
    products = []
    for _ in range(rounds):
        products.append(matrix_product())
        for name, step in stepping.items():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[name].append((time.perf_counter() - start) / steps)
    peak = median(products)
    rows = []
    for name, (_, config) in contenders.items():
        step, tokens = median(seconds[name]), config.train.batch_size * config.model.max_len
        flops = flops_per_token(config.model) * tokens / step
        rows.append(
            [name, f"{step * 1e3:.1f}", f"{tokens / step:,.0f}", f"{flops / 1e9:.0f}"]
            + [f"{flops / peak:.0%}"]
        )
    return ["model", "ms/step", "tokens/s", "GFLOP/s", f"of {peak / 1e9:.0f} GFLOP/s"], rows


def prepare(kind: Callable[[ModelConfig], nn.Module], config: RunConfig) -> Callable[[], None]:
    """A function that takes one training step, warmed up."""
    device = choose_device(config.device)
    model = kind(config.model).to(device)
    optimizer = make_optimizer(model, config.train)
    shape = config.train.batch_size, config.model.max_len + 1
    tokens = torch.randint(config.model.vocab_size, shape, device=device)
    batch = tokens[:, :-1], tokens[:, 1:]
    use = choose_arithmetic(config, device)
    trained = torch.compile(model) if use.compile else model
    scaler = torch.amp.GradScaler(device.type) if use.fp16 else None

    def step() -> None:
        with matmul_precision(config.matmul_precision, device):
            train_step(
                trained,
                optimizer,
                *batch,
                config.train.max_norm,
                config.train.accumulate,
                use.bf16,
                scaler,
            )

    for _ in range(3):
        step()
    return step


def matrix_product(n: int = 2048) -> float:
    """What this machine reaches at best: FLOP/s of one float32 product of n x n matrices."""
    a, b, product = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    torch.mm(a, b, out=product)  # warm-up
    start = time.perf_counter()
    torch.mm(a, b, out=product)
    return 2 * n**3 / (time.perf_counter() - start)


def flops_per_token(config: ModelConfig) -> float:
    """Forward and backward: 6 for each weight, and attention's own (PaLM 2022, appendix B)."""
    positions = config.max_len * config.d_model if config.positions == "learned" else 0
    looked_up = positions + 3 * config.ngrams * config.d_model
    weights = count_modern_parameters(config) - looked_up
    return 6 * weights + 12 * config.n_layers * config.d_model * config.max_len


if __name__ == "__main__":
    tyro.cli(main)
