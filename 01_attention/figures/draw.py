"""Draws the figures of module 01: python 01_attention/figures/draw.py"""

import math

import matplotlib.pyplot as plt
import torch

from tiny_transformer.attention.reference import causal_mask, stable_softmax
from tiny_transformer.setup.plots import BLUE, ORANGE, save, show_weights, use_style

use_style()
torch.manual_seed(0)

positions = "012345"
scores = 1.5 * torch.randn(6, 6)
mask = causal_mask(6)
maps = {
    "no mask": stable_softmax(scores),
    "−inf before": stable_softmax(scores.masked_fill(~mask, -math.inf)),
    "zeros after": stable_softmax(scores) * mask,
}
figure, axes = plt.subplots(1, 3, figsize=(5.6, 2.1))
for ax, (title, weights) in zip(axes, maps.items(), strict=True):
    show_weights(ax, weights, positions, positions, title)
    for t, total in enumerate(weights.sum(dim=-1)):
        ax.text(5.7, t, f"= {total:.2f}", va="center")
save(figure, __file__, "mask.svg")

widths = [2**n for n in range(1, 10)]
figure, (left, right) = plt.subplots(1, 2, figsize=(5.8, 2.5))
for name, color, power in (("q · k", ORANGE, 0.0), ("q · k / √d_k", BLUE, -0.5)):
    largest, gradient = [], []
    for d_k in widths:
        q, k = torch.randn(400, 1, d_k), torch.randn(400, 16, d_k)
        weights = stable_softmax((q * k).sum(dim=-1) * d_k**power)
        largest.append(weights.amax(dim=-1).mean())
        gradient.append((weights * (1 - weights)).sum(dim=-1).mean())  # of each to its own score
    left.plot(widths, largest, "o-", color=color, label=name)
    right.plot(widths, gradient, "o-", color=color, label=name)
left.set(ylabel="largest of 16 weights")
right.set(ylabel="sum of ∂w/∂a over the keys")
for ax in (left, right):
    ax.set(xscale="log", xlabel="d_k", ylim=(0, 1))
    ax.set_xticks(widths[::2], widths[::2])
    ax.minorticks_off()
right.legend()
save(figure, __file__, "scale.svg")
