"""The curve of a run, beside what its characters give away to whoever counts them."""

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiny_transformer.capstone.guide import preset_of
from tiny_transformer.capstone.terminal import visible
from tiny_transformer.data.corpus import CorpusError, load_text
from tiny_transformer.data.encoded import codes
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.reference import replace_file
from tiny_transformer.training.reference import split_corpus

READ = 2_000_000  # characters of a text, at most: its entropies are known well before its end
GROUNDS = {"loss.png": "#ffffff", "loss-dark.png": "#0d1117"}


def draw_losses(records: list[dict[str, Any]], out: Path, config: RunConfig) -> None:
    """Write `loss.png` and its twin for dark pages into the folder of a run."""
    from matplotlib.figure import Figure  # slow to import, and needed once
    from matplotlib.pyplot import rc_context

    from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, STYLE

    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4))
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)  # inches
        ax = figure.subplots()
        for name, label, look in (
            ("train_loss", "training, one batch", {"color": BLUE, "linewidth": 1}),
            ("val_loss", "validation", {"color": ORANGE, "marker": "o", "markersize": 4}),
        ):
            rows = [record for record in records if name in record]
            ax.plot([row["step"] for row in rows], [row[name] for row in rows], label=label, **look)
        marks, counted = landmarks(config)
        for loss in marks.values():
            ax.axhline(loss, color=GRAY, linestyle=":", linewidth=1, zorder=0)
        ax.set_title(title(records, out, config), loc="left", y=1.08, parse_math=False)
        ax.set(xlabel=f"step{counted}", ylabel="loss in nats a token")
        ax.set_xlim(0, 1.02 * max((record["step"] for record in records), default=1) or 1)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2)
        bottom, top = ax.get_ylim()
        height = math.inf
        for words, loss in marks.items():  # from the highest; each has a line of its own
            height = min(loss, height - 0.06 * (top - bottom))
            ax.text(
                1.01,
                height,
                f"{loss:.2f}  {words}",
                transform=ax.get_yaxis_transform(),
                va="center",
            )
        for name, ground in GROUNDS.items():
            picture = io.BytesIO()
            figure.savefig(picture, dpi=160, facecolor=ground)
            replace_file(out / name, picture.getvalue())


def title(records: list[dict[str, Any]], out: Path, config: RunConfig) -> str:
    """The run's name, whose shape it has, and how far it came."""
    told = [visible(out.resolve().name)]
    preset = preset_of(config.model)
    if preset and not told[0].startswith(preset):
        told.append(f"the shape of preset {preset}")
    evaluated = [record for record in records if "val_loss" in record]
    if evaluated:
        best = min(evaluated, key=lambda record: record["val_loss"])
        told.append(f"best validation loss {best['val_loss']:.3f} at step {best['step']:,}")
    return ", ".join(told)


def landmarks(config: RunConfig) -> tuple[dict[str, float], str]:
    """The losses, in nats, of who knows nothing and of who has counted in the training text.

    Of a long text only the beginning is counted, and that is said; of one that is gone, nothing.
    """
    marks = {f"ln {config.model.vocab_size}, knowing nothing": math.log(config.model.vocab_size)}
    counted = ""
    with suppress(CorpusError):
        text = load_text(config.corpus, READ)
        training, _ = split_corpus(torch.from_numpy(codes(text).astype(np.int64)))
        if len(text) == READ:
            counted = f" (entropies are those of the first {len(training):,} characters)"
        _, ids = np.unique(training.numpy(), return_inverse=True)
        marks["entropy of characters"] = entropy(ids)
        pairs = entropy(ids[:-1] * (ids.max() + 1) + ids[1:])
        marks["given the one before"] = pairs - entropy(ids[:-1])
    return marks, counted


def entropy(ids: np.ndarray) -> float:
    """Of how often each comes, in nats."""
    _, counts = np.unique(ids, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())
