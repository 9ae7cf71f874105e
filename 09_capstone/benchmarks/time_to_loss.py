"""Seconds until the validation loss reaches a given value, start-up included: us and the peer.

`python 09_capstone/benchmarks/time_to_loss.py --seeds 1 2 3`. Each seed trains both, one after
the other, each in a process of its own; the numbers are those of their metrics.jsonl.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import tyro
from table import print_table

from tiny_transformer.engineering.reference import MetricsLog


def main(loss: float = 1.8857, preset: str = "cpu", seeds: tuple[int, ...] = (1,)) -> None:
    """Compare a preset with the peer.

    Args:
        loss: the validation loss to reach; nanoGPT's published CPU recipe ends at 1.8857.
        preset: ours.
        seeds: train each with these; the table shows medians.
    """
    runs: dict[str, list[list[dict]]] = {"peer": [], preset: []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in map(str, seeds):
            peer, ours = Path(folder, f"peer-{seed}"), Path(folder, f"ours-{seed}")
            script = Path(__file__).with_name("peer.py")
            commands = {
                "peer": [sys.executable, script, peer, seed],
                preset: [sys.executable, "-m", "tiny_transformer.capstone", "train"]
                + ["--preset", preset, "--out", ours, "--seed", seed],
            }
            for (name, command), out in zip(commands.items(), (peer, ours), strict=True):
                subprocess.run(command, check=True)
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
