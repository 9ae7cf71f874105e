"""Seconds until the validation loss reaches a given value, start-up included: us and the peer.

`python 09_capstone/benchmarks/time_to_loss.py --seeds 1 2 3`. Each seed trains all, one after
the other, each in a process of its own; the numbers are those of their metrics.jsonl. A longer
context lowers the loss by itself, so the best model is measured in windows of the peer's too. On
Linux and macOS.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import tyro
from memory import MIB
from peer import RECIPES
from table import print_table

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.reference import MetricsLog
from tiny_transformer.training.reference import evaluate, split_corpus


def main(
    loss: float = 1.8857,
    presets: tuple[str, ...] = ("fast", "minute", "cpu"),
    seeds: tuple[int, ...] = (1,),
    recipe: Literal["cpu", "gpu"] = "cpu",
) -> None:
    """Compare presets with the peer.

    Args:
        loss: the validation loss to reach; nanoGPT's published CPU recipe ends at 1.8857.
        presets: ours.
        seeds: train each with these; the table shows medians.
        recipe: the peer's.
    """
    runs: dict[str, list[list[dict]]] = {name: [] for name in ("peer", *presets)}
    memory: dict[str, list[float]] = {name: [] for name in runs}
    in_peers_windows: dict[str, list[float]] = {name: [] for name in runs}
    window = RECIPES[recipe][0].max_len
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for name in runs:
                out = Path(folder, f"{name}-{seed}")
                command = ["-m", "tiny_transformer.capstone", "train", "--preset", name]
                if name == "peer":
                    command = [str(Path(__file__).with_name("peer.py")), "--recipe", recipe]
                command += ["--out", str(out), "--seed", str(seed)]
                process = subprocess.Popen([sys.executable, *command])
                _, status, usage = os.wait4(process.pid, 0)
                if status:
                    sys.exit(f"{name} failed")
                memory[name].append(usage.ru_maxrss / MIB)
                records = MetricsLog(out / "metrics.jsonl").read()
                evaluations = [record for record in records if "val_loss" in record]
                runs[name].append(evaluations)
                in_peers_windows[name].append(
                    best(evaluations) if name == "peer" else loss_in(window, out)
                )
    print_table(
        ["run", f"seconds to {loss}", "seconds in all", "final loss", "best loss"]
        + [f"best in windows of {window}", "peak MiB"],
        [
            [
                name,
                f"{median(reached(records, loss) for records in all_records):.1f}".replace(
                    "inf", "not reached"
                ),
                f"{median(records[-1]['seconds'] for records in all_records):.1f}",
                f"{median(records[-1]['val_loss'] for records in all_records):.4f}",
                f"{median(map(best, all_records)):.4f}",
                f"{median(in_peers_windows[name]):.4f}",
                f"{median(memory[name]):,.0f}",
            ]
            for name, all_records in runs.items()
        ],
    )


def reached(records: list[dict], loss: float) -> float:
    """The seconds at the first evaluation that was at or below `loss`, or infinity."""
    return next((r["seconds"] for r in records if r["val_loss"] <= loss), float("inf"))


def best(records: list[dict]) -> float:
    return min(record["val_loss"] for record in records)


def loss_in(window: int, run: Path) -> float:
    """The best model's validation loss if it reads no more than `window` tokens at once."""
    model, tokenizer = load_run(run)
    model.config = replace(model.config, max_len=window)
    return evaluate(model, split_corpus(torch.tensor(tokenizer.encode(load_text())))[1])


if __name__ == "__main__":
    tyro.cli(main)
