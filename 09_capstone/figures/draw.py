"""Draws the figures of module 09: python 09_capstone/figures/draw.py"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.engineering.reference import MetricsLog
from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, save, show_weights, use_style

PRETRAINED = Path(__file__).parents[1] / "pretrained"
HEADS = ((0, 4), (0, 1), (0, 0), (3, 4))  # layer and head; their habits are in theory.md
LANDMARKS = {"entropy of characters": 3.31, "entropy given one before": 2.45}  # theory.md

use_style()
records = MetricsLog(PRETRAINED / "metrics.jsonl").read()
evaluated = [record for record in records if "val_loss" in record]
figure, ax = plt.subplots(figsize=(6, 3))
ax.plot(
    [record["step"] for record in records],
    [record["train_loss"] for record in records],
    color=BLUE,
    alpha=0.8,
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
    place = {"xy": (records[-1]["step"], loss), "xytext": (0, 4), "textcoords": "offset points"}
    ax.annotate(f"{name} {loss}", **place, ha="right")
ax.set(xlabel="step", ylabel="loss in nats a character")
ax.legend(loc="upper center")
save(figure, __file__, "loss.svg")

phrase = "what light through yonder"
model, tokenizer = load_run(PRETRAINED)
tokens = torch.tensor([tokenizer.encode(phrase)])
maps = [weights[0] for weights in attention_maps(model, tokens)]
# In one row for README.md, and so that a phone shows it for theory.md.
for rows, size, name in ((1, (9.4, 2.9), "attention.svg"), (2, (4.8, 5.2), "heads.svg")):
    figure, axes = plt.subplots(rows, 4 // rows, figsize=size, sharex=True, sharey=True)
    for (layer, head), ax in zip(HEADS, axes.flat, strict=True):
        show_weights(ax, maps[layer][head], phrase, phrase, f"layer {layer}, head {head}")
        ax.tick_params(labelsize=6)
        ax.label_outer()
    save(figure, __file__, name)
