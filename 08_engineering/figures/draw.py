"""Draws the figure of module 08: python 08_engineering/figures/draw.py"""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt

from tiny_transformer.engineering import reference
from tiny_transformer.engineering.reference import FILES, load_checkpoint, save_checkpoint
from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, save, use_style

NAMES = ("last.new", "last", "last.old")
CHANGES = (
    "before",
    "write the files …",
    "… and flush them",
    "rename last → last.old",
    "rename last.new → last",
    "delete last.old",
)
COLORS = {100: ORANGE, 200: BLUE}  # the step of the checkpoint


def disk_after_each_change(folder: Path) -> list[tuple[list[int | str | None], str]]:
    """What the names stand for, and where a reader finds a checkpoint, as step 200 is saved."""
    seen = []

    def watched(change: Callable) -> Callable:
        def change_and_look(*arguments: Any) -> None:
            change(*arguments)
            seen.append(([step_in(folder / name) for name in NAMES], load_checkpoint(last)["step"]))

        return change_and_look

    last = folder / "last"
    save_checkpoint(last, {"model": {}, "step": 100})
    with (
        patch.object(reference, "remove", watched(reference.remove)),
        patch.object(reference, "write_through", watched(reference.write_through)),
        patch.object(Path, "rename", watched(Path.rename)),
    ):
        save_checkpoint(last, {"model": {}, "step": 200})
    return [look for look, _ in groupby(seen)]


def step_in(folder: Path) -> int | str | None:
    if not folder.exists():
        return None
    whole = all((folder / name).exists() for name in FILES)
    return load_checkpoint(folder)["step"] if whole else "half"


use_style()
figure, ax = plt.subplots(figsize=(5.8, 2.7))
with TemporaryDirectory() as folder:
    looks = disk_after_each_change(Path(folder))
for row, (change, (steps, found)) in enumerate(zip(CHANGES, looks, strict=True)):
    ax.text(-0.6, row, change, ha="right", va="center")
    for column, step in enumerate(steps):
        if step is not None:
            whole = step in COLORS
            ax.barh(
                row,
                0.9,
                left=column - 0.45,
                height=0.7,
                color=COLORS.get(step, "none"),
                edgecolor=COLORS.get(step, GRAY),
                linestyle="-" if whole else ":",
            )
            words = f"step {step}" if whole else step
            ax.text(column, row, words, ha="center", va="center", color="white" if whole else GRAY)
    ax.text(3, row, f"step {found}", ha="center", va="center", color=COLORS[found])
ax.set_xticks(range(4), [*(f"{name}/" for name in NAMES), "a reader finds"])
ax.set(xlim=(-2.5, 3.5), ylim=(5.5, -0.5), yticks=[])
ax.xaxis.tick_top()
ax.tick_params(length=0)
ax.spines[:].set_visible(False)
save(figure, __file__, "rename.svg")
