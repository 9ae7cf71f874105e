"""Draws the figures of module 04: python 04_embeddings/figures/draw.py"""

import matplotlib.pyplot as plt

from tiny_transformer.embeddings.reference import sinusoidal_positions
from tiny_transformer.setup.plots import ORANGE_TO_BLUE, save, use_style

use_style()
positions = sinusoidal_positions(64, 32)
products = positions @ positions.T
figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3))
for ax, picture, title, x, y in (
    (left, positions, "sinusoidal_positions(64, 32)", "feature", "position t"),
    (right, products, "inner product of positions t and s", "position s", "position t"),
):
    image = ax.imshow(
        picture, cmap=ORANGE_TO_BLUE, vmin=-picture.max(), vmax=picture.max(), aspect="auto"
    )
    figure.colorbar(image, ax=ax)
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.spines[:].set_visible(False)
save(figure, __file__, "waves.svg")
