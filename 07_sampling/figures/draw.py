"""Draws the figures of module 07: python 07_sampling/figures/draw.py"""

import matplotlib.pyplot as plt
import torch

from tiny_transformer.sampling.reference import top_k_filter, top_p_filter
from tiny_transformer.setup.plots import BLUE, GRAY, save, use_style

use_style()
rank = torch.arange(20)
figure, axes = plt.subplots(2, 2, figsize=(6, 3.6), sharex=True, sharey="col")
for column, (title, logits) in enumerate(
    {"a sure model": -2.4 * rank, "an unsure model": -0.15 * rank}.items()
):
    chances = logits.softmax(dim=-1)
    for row, (name, kept) in enumerate(
        {"top-k 3": top_k_filter(logits, 3), "top-p 0.9": top_p_filter(logits, 0.9)}.items()
    ):
        colors = [BLUE if keep else GRAY for keep in kept.isfinite()]
        ax = axes[row][column]
        ax.bar(rank, chances, color=colors)
        mass = chances[kept.isfinite()].sum()
        count = int(kept.isfinite().sum())
        ax.text(
            0.97,
            0.65,
            f"{name} keeps {count}:\n{mass:.1%}",
            transform=ax.transAxes,
            horizontalalignment="right",
        )
    axes[0][column].set_title(title)
    axes[1][column].set(xlabel="token, likeliest first")
for ax in axes[:, 0]:
    ax.set_ylabel("probability")
save(figure, __file__, "truncation.svg")
