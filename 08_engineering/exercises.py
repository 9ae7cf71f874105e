"""Your turn: engineering. Replace each `raise NotImplementedError`; run `pytest 08_engineering`.

Two sittings: three exercises, then the three of checkpoints, which ask for more. Each may use the
ones above it.

A checkpoint is a folder of four files, so that yours and everybody's can be exchanged:
`model.safetensors` holds the weights, `state.safetensors` every other tensor, `state.json`
everything else, and `SHA256SUMS` what `sha256sum --check` reads.
"""

from collections.abc import Mapping
from dataclasses import make_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch


def override(config: Any, assignments: Mapping[str, Any]) -> Any:
    """★★ A copy of a dataclass with some fields changed; `config` itself stays as it is.

    A nested dataclass is reached by a dotted name, {"model.width": 16}, or by a table,
    {"model": {"width": 16}}. Settings that only fit together can be changed together.

    A value must be of the field's type (typeguard's `check_type` compares it with any type hint).
    Files know fewer types than Python: a list stands for a tuple, a whole number for a float (or a
    `float | None`), and becomes one. True and False stand for no number. A name that does not
    exist, or a value of the wrong type, is a ValueError that names the setting; what the dataclass
    itself refuses stays refused.

    >>> Model = make_dataclass("Model", [("width", int, 8), ("rate", float, 0.1)], frozen=True)
    >>> Run = make_dataclass("Run", [("seed", int, 1), ("model", Model, Model())], frozen=True)
    >>> override(Run(), {"seed": 2, "model.width": 16})
    Run(seed=2, model=Model(width=16, rate=0.1))
    """
    raise NotImplementedError


def seed_everything(seed: int) -> None:
    """★ Set every random state a run draws from: Python's, NumPy's, and PyTorch's on all devices.

    >>> seed_everything(1)
    >>> first = torch.rand(3)
    >>> seed_everything(1)
    >>> torch.equal(torch.rand(3), first)
    True
    """
    raise NotImplementedError


class MetricsLog:
    """★ A run's numbers, one JSON object a line, in the file `path`.

    A file that does not exist yet is an empty log.

    >>> with TemporaryDirectory() as folder:
    ...     log = MetricsLog(Path(folder, "metrics.jsonl"))
    ...     log.append({"step": 1, "train_loss": 4.2})
    ...     log.append({"step": 2, "train_loss": 3.9})
    ...     log.rewind(1)
    ...     log.read()
    [{'step': 1, 'train_loss': 4.2}]
    """

    def __init__(self, path: Path | str):
        raise NotImplementedError

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record at the end. Another process can read it as soon as this returns.

        The file grows, and is not written anew: a kill loses no other record, and whoever follows
        the file sees the new one. A kill may have cut the last line short: its rest is removed
        first.
        """
        raise NotImplementedError

    def read(self) -> list[dict[str, Any]]:
        """All records, in order, but for a last line that a kill cut short.

        No other line is passed over: one that is no JSON, or empty, is a ValueError, as
        `json.loads` has it.
        """
        raise NotImplementedError

    def rewind(self, step: int) -> None:
        """Forget the records whose "step" comes after `step`; a kill loses none of the others."""
        raise NotImplementedError


def save_checkpoint(path: Path | str, state: Mapping[str, Any]) -> None:
    """★★ Write `state` to the folder `path`, so that a kill at any moment leaves a whole one.

    `state["model"]` is a state dict, whose tensors may share memory. The rest is nested dicts,
    lists, tensors, numbers, strings, True, False and None. `state` stays as it is.

    In state.json the keys of `state` are those of the outermost object, without "model". Where
    a tensor was stands {"tensor": NAME}, and state.safetensors has it under that name: the keys
    and indices on the way to it, each after a slash. Two tensors of one name are a ValueError,
    what JSON cannot hold is a TypeError, and both leave an older checkpoint as it was.
    SHA256SUMS has one line for each of the other files: the digest in hex, two spaces, the name.

    A kill leaves the old checkpoint or the new one, and does not stand in the way of the next
    save. What you need in between is called NAME.new or NAME.old, beside the folder NAME, and is
    gone in the end. A power cut is survived too: the disk has the files (`os.fsync`) before the
    folder has its name. Folders on the way to `path` are made.

    >>> with TemporaryDirectory() as folder:
    ...     weights = {"weight": torch.ones(2)}
    ...     save_checkpoint(Path(folder, "last"), {"model": weights, "a": [3, torch.zeros(1)]})
    ...     print(Path(folder, "last", "state.json").read_text(encoding="utf-8"))
    {"a": [3, {"tensor": "/a/1"}]}
    """
    raise NotImplementedError


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """★★ The state that `save_checkpoint` wrote to `path`, its tensors on the CPU; runs no code.

    JSON has only text for keys: those of digits come back as the ints they were. A key of the
    state's own may be called "tensor". After a kill the whole checkpoint may lie in NAME.old alone;
    loading changes nothing on the disk.

    No checkpoint at all is a FileNotFoundError that names the path. One of which a file is
    missing, cut short or changed by a single bit is a ValueError; so is a sum that is missing.

    >>> with TemporaryDirectory() as folder:
    ...     save_checkpoint(Path(folder, "last"), {"model": {}, "a": {0: torch.ones(2)}})
    ...     load_checkpoint(Path(folder, "last"))
    {'model': {}, 'a': {0: tensor([1., 1.])}}
    """
    raise NotImplementedError


def keep_best(folder: Path | str, n: int) -> list[Path]:
    """★★ Delete all checkpoints in `folder` but the n with the lowest `val_loss`; returns those.

    The best comes first; of equal ones the name that sorts first is the better, and nan is the
    worst. A checkpoint is a folder with a state.json, which says its "val_loss"; NAME.new and
    NAME.old are leftovers of a kill and do not count. All other things stay, with all that is in
    them. An n below 1 is a ValueError that names it, and deletes nothing.

    >>> with TemporaryDirectory() as folder:
    ...     for name, loss in (("a", 0.5), ("b", 0.1), ("c", 0.3)):
    ...         save_checkpoint(Path(folder, name), {"model": {}, "val_loss": loss})
    ...     [path.name for path in keep_best(folder, 2)]
    ['b', 'c']
    """
    raise NotImplementedError
