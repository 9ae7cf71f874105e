"""A model's weights at several moments of its training, for those who like to see it learn."""

from pathlib import Path

import torch

from tiny_transformer.capstone.session import Session
from tiny_transformer.engineering.reference import save_checkpoint


def snapshot_steps(count: int, max_steps: int) -> set[int]:
    """Steps from 1 to the last, evenly over log(step): a model changes most when it is young.

    >>> sorted(snapshot_steps(4, 1000))
    [1, 10, 100, 1000]
    """
    return {round(max_steps ** (1 - i / max(1, count - 1))) for i in range(count)}


def save_snapshot(out: Path, session: Session) -> None:
    """Write a checkpoint of the weights alone, in bfloat16, for `load_checkpoint`."""
    state = {
        "step": session.step,
        "characters": session.characters,
        "corpus": session.corpus,
        "model": {n: w.to(torch.bfloat16) for n, w in session.model.state_dict().items()},
    }
    if session.settings is not None:
        state["settings"] = session.settings
    save_checkpoint(out / "snapshots" / f"step-{session.step:06}", state)
