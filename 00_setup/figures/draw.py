"""Draws the figures of module 00: python 00_setup/figures/draw.py"""

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap

from tiny_transformer.setup.plots import BLUE, GREEN, ORANGE, save, use_style

use_style()
B = T = 3
bias = torch.arange(T)
figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.6))
for ax, shape, view in (
    (axes[0], "(T, d_model)", bias),
    (axes[1], "(T, 1, d_model)", bias[:, None]),
):
    received = torch.zeros(B, T, dtype=torch.long) + view
    ax.imshow(received, cmap=ListedColormap([BLUE, ORANGE, GREEN]))
    for b in range(B):
        for t in range(T):
            ax.text(t, b, f"bias {received[b, t]}", ha="center", va="center", color="white")
    ax.set(xlabel="position t", ylabel="sequence b", title=f"bias of shape {shape}")
    ax.set(xticks=range(T), yticks=range(B))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
save(figure, __file__, "broadcasting.svg")
