"""Wrong turns that learners take in module 08, and what to say to each."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.engineering import reference
from tiny_transformer.setup.grading.diagnosis import Misconception, probe


@dataclass(frozen=True)
class Shape:
    width: int = 8
    heads: int = 2


@dataclass(frozen=True)
class Settings:
    seed: int = 1
    loud: bool = False
    shape: Shape = field(default_factory=Shape)


def outcome(act: Callable[[], Any]) -> str:
    """What comes of it: the result as text, or the kind of error."""
    try:
        return repr(act())
    except NotImplementedError:
        raise
    except Exception as error:
        return "ValueError" if isinstance(error, ValueError) else type(error).__name__


@probe("override")
def a_nested_an_unknown_and_three_mistyped_settings(override: Callable) -> dict[str, str]:
    settings = Settings(loud=True, shape=Shape(heads=4))
    trials = (
        {"seed": 2, "shape.width": 16},
        {"sed": 2},
        {"loud": "no"},
        {"seed": "3"},
        {"seed": True},
    )
    return {f"{t}": outcome(lambda trial=t: override(settings, trial)) for t in trials}


@probe("seed_everything")
def draws_of_three_kinds(seed_everything: Callable) -> dict[str, bool]:
    def draws(seed: int) -> list[float]:
        seed_everything(seed)
        return [random.random(), np.random.rand(), torch.rand(1).item()]

    before = reference.random_states()
    first, other, again = draws(3), draws(4), draws(3)
    reference.restore_random_states(before)
    return {
        f"{name} repeats with the same seed and not with another": a == c != b
        for name, a, b, c in zip(("random", "np.random", "torch"), first, other, again, strict=True)
    }


@probe("save_checkpoint")
def over_an_older_one_while_renames_are_watched(save_checkpoint: Callable) -> dict[str, bool]:
    with TemporaryDirectory() as folder, ExitStack() as patches:
        path, whole = Path(folder, "last"), []

        def watched(rename: Callable) -> Callable:
            def watching(*args: Any) -> Any:
                whole.append("step" in outcome_of_loading(path))
                return rename(*args)

            return watching

        reference.save_checkpoint(path, {"model": {}, "step": 1})
        before = path.stat().st_ino
        for owner in (os, Path):  # Path.rename reaches os.rename on some versions of Python only
            for name in ("rename", "replace"):
                watching = watched(getattr(owner, name))
                patches.enter_context(patch.object(owner, name, watching))
        save_checkpoint(path, {"model": {}, "step": 2, "moments": {0: torch.ones(2)}})
        after = outcome_of_loading(path)
        return {
            "the new checkpoint is filled beside the old one": path.stat().st_ino != before,
            "a whole checkpoint can be loaded at every moment": all(whole),
            "the new checkpoint loads": after.get("step") == 2,
            "a tensor outside of `model` stays one": isinstance(after["moments"][0], Tensor),
        }


def outcome_of_loading(path: Path) -> dict[str, Any]:
    try:
        return reference.load_checkpoint(path)
    except (OSError, ValueError):
        return {}


@probe("load_checkpoint")
def a_whole_a_changed_an_incomplete_and_an_unlisted_one(
    load_checkpoint: Callable,
) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "last")
        reference.save_checkpoint(path, {"model": {"w": torch.ones(2)}, "moments": {0: 1}})
        whole = outcome(lambda: load_checkpoint(path)["moments"])
        weights = path / "model.safetensors"
        data = weights.read_bytes()
        weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        changed = outcome(lambda: load_checkpoint(path) and "loaded")
        weights.unlink()
        incomplete = outcome(lambda: load_checkpoint(path) and "loaded")
        reference.save_checkpoint(path, {"model": {"w": torch.ones(2)}})
        (path / "SHA256SUMS").write_bytes(b"")
        unlisted = outcome(lambda: load_checkpoint(path) and "loaded")
        return {
            "the moments of a whole one": whole,
            "one with a changed weight": changed,
            "one without its weights": incomplete,
            "one whose SHA256SUMS is empty": unlisted,
        }


@probe("MetricsLog")
def seen_from_elsewhere_and_after_a_cut_line(MetricsLog: Callable) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        file, cut = Path(folder, "metrics.jsonl"), Path(folder, "cut.jsonl")
        held = MetricsLog(file)  # one that is let go would close its file, and so write it
        held.append({"step": 1})
        cut.write_text('{"step": 1}\n{"st', encoding="utf-8")
        log = MetricsLog(cut)
        log.append({"step": 2})
        return {
            "a record that another process reads at once": outcome(reference.MetricsLog(file).read),
            "a record behind a line that was cut": outcome(log.read),
        }


@probe("keep_best")
def two_of_three_beside_a_leftover(keep_best: Callable) -> dict[str, list[str]]:
    with TemporaryDirectory() as folder:
        for name, loss in (("0.new", 0.05), ("1", 0.2), ("2", 0.3), ("3", 0.1)):
            reference.save_checkpoint(Path(folder, name), {"model": {}, "val_loss": loss})
        keep_best(folder, 2)
        return {"the two best of losses 0.2, 0.3 and 0.1": sorted(os.listdir(folder))}


def believe_any_type(config: Any, assignments: Mapping[str, Any]) -> Any:
    with patch.object(reference, "of_type", lambda hint, value, name: value):
        return reference.override(config, assignments)


def count_with_bools(config: Any, assignments: Mapping[str, Any]) -> Any:
    def of_type(hint: Any, value: Any, name: str) -> Any:
        counts = isinstance(value, bool) and hint in (int, float)
        return value if counts else checked(hint, value, name)

    checked = reference.of_type
    with patch.object(reference, "of_type", of_type):
        return reference.override(config, assignments)


def make_tables_anew(config: Any, assignments: Mapping[str, Any]) -> Any:
    touched = {key.split(".")[0] for key in assignments}
    tables = {f.name: f.default_factory for f in fields(config) if callable(f.default_factory)}
    fresh = {name: make() for name, make in tables.items() if name in touched}
    return reference.override(replace(config, **fresh), assignments)


def convert(config: Any, assignments: Mapping[str, Any]) -> Any:
    def converted(key: str, value: Any) -> Any:
        kind = type(getattr(config, key, None))
        return kind(value) if kind in (bool, int, float, str) else value

    return reference.override(config, {k: converted(k, v) for k, v in assignments.items()})


def save_in_place(path: Path | str, state: Mapping[str, Any]) -> None:
    draft = Path(f"{path}.new")
    reference.save_checkpoint(draft, state)
    shutil.copytree(draft, path, dirs_exist_ok=True)
    shutil.rmtree(draft)


def delete_then_rename(path: Path | str, state: Mapping[str, Any]) -> None:
    draft = Path(f"{path}.new")
    reference.save_checkpoint(draft, state)
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)


def save_tensors_as_lists(path: Path | str, state: Mapping[str, Any]) -> None:
    rest = json.dumps({k: v for k, v in state.items() if k != "model"}, default=Tensor.tolist)
    reference.save_checkpoint(path, {"model": state["model"], **json.loads(rest)})


def load_unchecked(path: Path | str) -> dict[str, Any]:
    with patch.object(reference, "sum_line", return_value=b""):
        return reference.load_checkpoint(path)


def load_what_has_no_sum(path: Path | str) -> dict[str, Any]:
    folder = Path(path) if Path(path).is_dir() else Path(f"{path}.old")
    sums = folder / "SHA256SUMS"
    listed = sums.read_bytes() if sums.exists() else None

    def sum_line(name: str, data: bytes) -> bytes:
        return checked(name, data) if listed and f"  {name}\n".encode() in listed else b""

    checked = reference.sum_line
    with patch.object(reference, "sum_line", sum_line):
        return reference.load_checkpoint(path)


def load_keys_of_text(path: Path | str) -> dict[str, Any]:
    def text_keys(value: Any) -> Any:
        if isinstance(value, list):
            return [text_keys(v) for v in value]
        if isinstance(value, dict):
            return {str(k): text_keys(v) for k, v in value.items()}
        return value

    return text_keys(reference.load_checkpoint(path))


def load_incomplete_as_absent(path: Path | str) -> dict[str, Any]:
    folder = path if Path(path).is_dir() else f"{path}.old"
    for name in reference.FILES:
        Path(folder, name).read_bytes()
    return reference.load_checkpoint(path)


class WritesByTheHundred(reference.MetricsLog):
    def __init__(self, path: Path | str):
        super().__init__(path)
        self.waiting: list[Mapping[str, Any]] = []

    def append(self, record: Mapping[str, Any]) -> None:
        self.waiting.append(record)
        if len(self.waiting) == 100:
            self.flush()

    def flush(self) -> None:
        while self.waiting:
            super().append(self.waiting.pop(0))

    def read(self) -> list[dict[str, Any]]:
        self.flush()
        return super().read()


class WritesBehindACutLine(reference.MetricsLog):
    def append(self, record: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def val_loss(checkpoint: Path) -> float:
    return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["val_loss"]


def keep_the_newest(folder: Path | str, n: int) -> list[Path]:
    if n < 1:
        raise ValueError(f"n is {n}; it must be at least 1")
    found = [file.parent for file in sorted(Path(folder).glob("*/state.json"))]
    ranked = [path for path in reversed(found) if path.suffix not in (".new", ".old")]
    for older in ranked[n:]:
        shutil.rmtree(older)
    return ranked[:n]


def keep_leftovers_too(folder: Path | str, n: int) -> list[Path]:
    if n < 1:
        raise ValueError(f"n is {n}; it must be at least 1")
    found = [file.parent for file in sorted(Path(folder).glob("*/state.json"))]
    ranked = sorted(found, key=lambda path: (np.isnan(val_loss(path)), val_loss(path)))
    for worse in ranked[n:]:
        shutil.rmtree(worse)
    return ranked[:n]


MISCONCEPTIONS = [
    Misconception(
        "override",
        wrong=count_with_bools,
        hint="You take True where a number is due. To Python, and to typeguard with it, True is "
        "the int 1; in a setting it is a mistake: refuse it where the type has no bool.",
    ),
    Misconception(
        "override",
        wrong=believe_any_type,
        hint="You take a value of any type. A dataclass does not check its fields, so a number in "
        "quotes would go unseen until some step of the training adds to it: raise a ValueError "
        "that names the setting.",
    ),
    Misconception(
        "override",
        wrong=make_tables_anew,
        hint="When you change one field of a nested dataclass, its other fields fall back to their "
        "defaults, and what a preset had set there is lost. Start from the nested one as it is.",
    ),
    Misconception(
        "override",
        wrong=convert,
        hint="You convert a value to the type of the field, which accepts too much: int(2.9) is 2 "
        'and bool("no") is True, since any text but the empty one is. Check the type instead, and '
        "refuse what does not fit.",
    ),
    Misconception(
        "seed_everything",
        wrong=torch.manual_seed,
        hint="You seed PyTorch alone. `random` and `np.random` have states of their own, and a "
        "run that draws from either would not repeat. A generator that you make and seed here "
        "does not help: nobody draws from it.",
    ),
    Misconception(
        "save_checkpoint",
        wrong=save_in_place,
        hint="You write over the checkpoint that is there. A kill in the middle leaves half of the "
        "new one and nothing of the old, and with it the whole run is lost. Fill another folder, "
        "then let it take the name.",
    ),
    Misconception(
        "save_checkpoint",
        wrong=delete_then_rename,
        hint="You delete the old checkpoint before the new one has its name. A kill between the "
        "two leaves none that can be found: move the old one aside, and delete it last.",
    ),
    Misconception(
        "save_checkpoint",
        wrong=save_tensors_as_lists,
        hint="Tensors outside of `model` come back as lists. Their dtype is gone, and an optimizer "
        "or a random state cannot go on from a list: put them into state.safetensors.",
    ),
    Misconception(
        "load_checkpoint",
        wrong=load_what_has_no_sum,
        hint="You load a file for which SHA256SUMS has no line. Whatever cut the sums short lets "
        "any change to that file pass: each of the three others must have a line that fits.",
    ),
    Misconception(
        "load_checkpoint",
        wrong=load_unchecked,
        hint="You load a weight that was changed after it was saved. One flipped bit can turn a "
        "number into another one a million times as large, and nothing would say so: compare each "
        "file with its line in SHA256SUMS first.",
    ),
    Misconception(
        "load_checkpoint",
        wrong=load_keys_of_text,
        hint="JSON made text of your whole-number keys, and they stay text. PyTorch numbers the "
        "parameters in an optimizer's state, looks for 0, finds '0', and starts its averages anew.",
    ),
    Misconception(
        "load_checkpoint",
        wrong=load_incomplete_as_absent,
        hint="A checkpoint without one of its files gives a FileNotFoundError, as if there were "
        "none. A run that resumes would take that for leave to start from the beginning: an "
        "incomplete one is a ValueError.",
    ),
    Misconception(
        "MetricsLog",
        wrong=WritesByTheHundred,
        hint="Your records wait in memory, in a list or in the buffer of an open file, and a kill "
        "takes them along. Have each one written, and the file closed or flushed, before `append` "
        "returns.",
    ),
    Misconception(
        "MetricsLog",
        wrong=WritesBehindACutLine,
        hint="After a kill in mid-write you append to the half line that it left, and the two "
        "together are no JSON: the new record is lost too. Cut the file back to its last end of "
        "line first.",
    ),
    Misconception(
        "keep_best",
        wrong=keep_the_newest,
        hint="You keep the newest checkpoints. Once a model overfits, those are the worst ones, "
        "and the best is deleted: rank them by val_loss.",
    ),
    Misconception(
        "keep_best",
        wrong=keep_leftovers_too,
        hint="You count what a kill left behind, NAME.new and NAME.old. A folder that nobody loads "
        "then takes the place of a checkpoint, which is deleted for it.",
    ),
]
