"""Seconds until the validation loss reaches a given value, start-up included: us and the peer.

`python 09_capstone/benchmarks/time_to_loss.py --seeds 1 2 3`. Each seed trains all, one after
the other, each in a process of its own; the numbers are those of their metrics.jsonl.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Literal

import tyro
from table import print_table

from tiny_transformer.engineering.reference import MetricsLog


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
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for name in runs:
                out = Path(folder, f"{name}-{seed}")
                command = ["-m", "tiny_transformer.capstone", "train", "--preset", name]
                if name == "peer":
                    command = [str(Path(__file__).with_name("peer.py")), "--recipe", recipe]
                command += ["--out", str(out), "--seed", str(seed)]
                subprocess.run([sys.executable, *command], check=True)
                records = MetricsLog(out / "metrics.jsonl").read()
                runs[name].append([record for record in records if "val_loss" in record])
    print_table(
        ["run", f"seconds to {loss}", "final loss", "best loss", "seconds in all"],
        [
            [
                name,
                f"{median(reached(records, loss) for records in all_records):.1f}".replace(
                    "inf", "not reached"
                ),
                f"{median(records[-1]['val_loss'] for records in all_records):.4f}",
                f"{median(min(r['val_loss'] for r in records) for records in all_records):.4f}",
                f"{median(records[-1]['seconds'] for records in all_records):.1f}",
            ]
            for name, all_records in runs.items()
        ],
    )


def reached(records: list[dict], loss: float) -> float:
    """The seconds at the first evaluation that was at or below `loss`, or infinity."""
    return next((r["seconds"] for r in records if r["val_loss"] <= loss), float("inf"))


if __name__ == "__main__":
    tyro.cli(main)
