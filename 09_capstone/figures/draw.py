"""Draws the figures of module 09: python 09_capstone/figures/draw.py"""

from pathlib import Path

import matplotlib.pyplot as plt

from tiny_transformer.engineering.reference import MetricsLog
from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, save, use_style

LANDMARKS = {"entropy of characters": 3.31, "entropy given one before": 2.45}  # theory.md

use_style()
records = MetricsLog(Path(__file__).parents[1] / "pretrained" / "metrics.jsonl").read()
evaluated = [record for record in records if "val_loss" in record]
figure, ax = plt.subplots(figsize=(6.4, 3))
ax.plot(
    [record["step"] for record in records],
    [record["train_loss"] for record in records],
    color=BLUE,
    alpha=0.6,
    label="training, one batch",
)
ax.plot(
    [record["step"] for record in evaluated],
    [record["val_loss"] for record in evaluated],
    "o-",
    color=ORANGE,
    label="validation, the whole split",
)
for name, loss in LANDMARKS.items():
    ax.axhline(loss, color=GRAY, linestyle=":")
    ax.text(records[-1]["step"], loss, f"{name} {loss}", ha="right", va="bottom", color=GRAY)
ax.set(xlabel="step", ylabel="loss in nats a character")
ax.legend(loc="upper center")
save(figure, __file__, "loss.svg")
