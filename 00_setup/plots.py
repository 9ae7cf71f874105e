"""One look for every picture of the course, in its figures and its notebooks."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from ipywidgets import Widget

# Each is read on white and on a dark page, so that one picture without a ground serves both.
BLUE, ORANGE, GREEN, RED, GRAY = "#3a7fc0", "#c8731c", "#3c9159", "#d0505a", "#767c86"
BLUES = LinearSegmentedColormap.from_list(
    "blues", [(0, f"{BLUE}00"), (0.1, f"{BLUE}48"), (0.4, f"{BLUE}b8"), (1, BLUE)]
)
ORANGE_TO_BLUE = LinearSegmentedColormap.from_list("orange to blue", [ORANGE, f"{GRAY}00", BLUE])
STYLE = {
    "axes.edgecolor": GRAY,
    "axes.facecolor": "none",
    "axes.labelcolor": GRAY,
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, GRAY]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": GRAY,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 90,
    "figure.facecolor": "none",
    "font.size": 9,
    "legend.frameon": False,
    "legend.labelcolor": GRAY,
    "svg.hashsalt": "tiny transformer",  # the same picture gives the same file
    "text.color": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
}


def use_style() -> None:
    plt.rcParams.update(STYLE)


def show_weights(
    ax: Axes, weights: Tensor, keys: Sequence[str], queries: Sequence[str], title: str = ""
) -> None:
    """An attention map: weights (T, S), each row a query, each column a key, strong is much."""
    ax.imshow(weights.detach().float(), cmap=BLUES, vmin=0, vmax=1)
    ax.set_xticks(range(len(keys)), map(visible, keys))
    ax.set_yticks(range(len(queries)), map(visible, queries))
    ax.set(xlabel="key", ylabel="query", title=title)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def visible(character: str) -> str:
    """A blank and the end of a line as signs of their own."""
    return {" ": "␣", "\n": "↵"}.get(character, character)


def show(figure: Figure, alt: str) -> None:
    """Display a picture in a notebook, sharp on every screen, with words for who cannot see it.

    As PNG: JupyterLab shows no SVG of a notebook that was not run yet, and GitHub breaks some.
    The site says the words; JupyterLab 4.6 has no place for them beside a PNG.
    """
    from IPython.display import display  # half a second, for notebooks alone

    picture = BytesIO()
    figure.savefig(picture, dpi=2 * figure.dpi, metadata={"Software": None})
    plt.close(figure)
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    about = {"alt": alt, "height": height, "width": width}
    display({"image/png": picture.getvalue()}, metadata={"image/png": about}, raw=True)


def slider(start: float, low: float, high: float, step: float = 1, **options: Any) -> "Widget":
    """A slider for `interact` whose name is never cut. With work behind it, continuous_update=False
    waits until it is let go.
    """
    from ipywidgets import FloatSlider, IntSlider  # for notebooks alone

    kind = IntSlider if isinstance(step, int) else FloatSlider
    style = {"description_width": "initial"}
    return kind(start, min=low, max=high, step=step, style=style, **options)


def save(figure: Figure, script: str, name: str) -> None:
    """Write a figure beside the script that draws it, for a page to show."""
    figure.savefig(Path(script).with_name(name), metadata={"Date": None})
    plt.close(figure)
