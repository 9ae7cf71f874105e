"""One look for every picture of the course, in its figures and its notebooks."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, RED, GRAY = "#2b6ca3", "#d9822b", "#3f8f5b", "#b5404a", "#8a8f98"
STYLE = {
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, GRAY]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 90,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "tiny transformer",  # the same picture gives the same file
}


def use_style() -> None:
    plt.rcParams.update(STYLE)


def show_weights(
    ax: Axes, weights: Tensor, keys: Sequence[str], queries: Sequence[str], title: str = ""
) -> None:
    """An attention map: weights (T, S), each row a query, each column a key, dark is much."""
    ax.imshow(weights.detach().float(), cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(len(keys)), keys)
    ax.set_yticks(range(len(queries)), queries)
    ax.set(xlabel="key", ylabel="query", title=title)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def save(figure: Figure, script: str, name: str) -> None:
    """Write a figure beside the script that draws it, for a page to show."""
    figure.savefig(Path(script).with_name(name), metadata={"Date": None})
    plt.close(figure)
