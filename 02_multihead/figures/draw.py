"""Draws the figures of module 02: python 02_multihead/figures/draw.py"""

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap

from tiny_transformer.multihead.reference import split_heads
from tiny_transformer.setup.plots import BLUE, ORANGE, save, use_style

use_style()
T, d_model, n_heads = 4, 8, 2
numbers = torch.arange(T * d_model).view(1, T, d_model)
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2))
for ax, title, heads in (
    (axes[0], "split_heads", split_heads(numbers, n_heads)),
    (axes[1], "reshape to (B, n_heads, T, d_head)", numbers.reshape(1, n_heads, T, -1)),
):
    owner = torch.empty(T * d_model)
    for head in range(n_heads):
        owner[heads[0, head].flatten()] = float(head)
    ax.imshow(owner.view(T, d_model), cmap=ListedColormap([BLUE, ORANGE]))
    for t in range(T):
        for i in range(d_model):
            name = int(owner.view(T, d_model)[t, i])
            ax.text(i, t, name, ha="center", va="center", color="white")
    ax.set(xlabel="feature", ylabel="position", title=title)
    ax.set(xticks=range(d_model), yticks=range(T))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
save(figure, __file__, "split.svg")
