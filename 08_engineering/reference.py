"""What lets a run be trusted: settings that are checked, states that are saved, logs that last.

A checkpoint is a folder: `model.safetensors` (the weights), `state.safetensors` (every other
tensor), `state.json` (everything else) and `SHA256SUMS` (what `sha256sum --check` reads, so that
no change goes unseen). Loading one runs no code.
"""

import difflib
import hashlib
import json
import math
import os
import random
import reprlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from typeguard import TypeCheckError, check_type

from tiny_transformer.setup.device import seed_everything
from tiny_transformer.setup.limits import check_number

__all__ = [
    "MetricsLog",
    "keep_best",
    "load_checkpoint",
    "override",
    "random_states",
    "restore_random_states",
    "save_checkpoint",
    "seed_everything",
]

FILES = ("SHA256SUMS", "model.safetensors", "state.safetensors", "state.json")


def override(config: Any, assignments: Mapping[str, Any]) -> Any:
    """A copy of a dataclass with some fields changed: {"seed": 2, "model.n_layers": 6}.

    A nested dataclass is reached by a dotted name or by a table: {"model": {"n_layers": 6}}.

    Raises:
        ValueError: names the field that does not exist, or the value of the wrong type.
    """
    names = [field.name for field in fields(config)]
    hints = get_type_hints(type(config))
    changes, tables = {}, {}
    for key, value in assignments.items():
        name, _, rest = key.partition(".")
        nested = name in names and is_dataclass(getattr(config, name))
        if name not in names or (rest and not nested):
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
            raise ValueError(f"{type(config).__name__} has no setting {key!r}; {hint}")
        if nested:
            table = {rest: value} if rest else value
            if not isinstance(table, Mapping):
                raise ValueError(f"{key} is {value!r}; it must be a table of settings")
            tables.setdefault(name, {}).update(table)
        else:
            changes[name] = of_type(hints[name], value, key)
    for name, table in tables.items():  # each at once: a width may need its new number of heads
        changes[name] = override(getattr(config, name), table)
    return replace(config, **changes)


def of_type(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type `hint`, which a file's lists and whole numbers may stand for."""
    given = value = tuple(value) if isinstance(value, list) else value
    if float in (hint, *get_args(hint)):
        value = tuple(map(as_float, value)) if isinstance(value, tuple) else as_float(value)
    try:
        if isinstance(value, bool) and bool not in (hint, *get_args(hint)):
            raise TypeCheckError("Python counts True as a number; a setting does not")
        return check_type(value, hint)
    except TypeCheckError:
        wanted = f"of type {hint.__name__ if type(hint) is type else hint}"
        if get_origin(hint) is Literal:
            wanted = " or ".join(map(repr, get_args(hint)))
        raise ValueError(f"{name} is {reprlib.repr(given)}; it must be {wanted}") from None


def as_float(value: Any) -> Any:
    """A whole number as a float; one that none can hold stays, and so does anything else."""
    return float(value) if type(value) is int and abs(value) < 2**63 else value


def save_checkpoint(path: Path | str, state: Mapping[str, Any]) -> None:
    """Write `state` to the folder `path`, so that a kill at any moment leaves a whole checkpoint.

    `state["model"]` is a state dict; the rest is nested dicts, lists, tensors, numbers and
    strings. A new folder is filled and flushed to the disk first, then takes the old one's name.
    """
    path = Path(path)
    new, old = path.with_name(path.name + ".new"), path.with_name(path.name + ".old")
    tensors: dict[str, Tensor] = {}
    rest = take_tensors({k: v for k, v in state.items() if k != "model"}, "", tensors)
    files = {
        "model.safetensors": tensor_bytes(state["model"]),
        "state.safetensors": tensor_bytes(tensors),
        "state.json": json.dumps(rest).encode(),
    }
    files["SHA256SUMS"] = b"".join(sum_line(name, data) for name, data in files.items())
    remove(new)
    new.mkdir(parents=True)
    try:
        for name, data in files.items():
            write_through(new / name, data)
    except OSError:
        remove(new)
        raise
    if os.path.lexists(path):
        remove(old)
        path.rename(old)
    new.rename(path)
    remove(old)


def remove(path: Path) -> None:
    """Delete a folder, or the file or link in its place; whatever a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote to `path`, its tensors on the CPU.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if a file is missing, cut short or changed since it was written.
    """
    path = Path(path)
    old = path.with_name(path.name + ".old")  # a kill between the two renames leaves only this
    folder = path if path.is_dir() else old
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        sums, model, tensors, rest = ((folder / name).read_bytes() for name in FILES)
    except FileNotFoundError as error:
        raise ValueError(f"checkpoint {folder} is incomplete: it lacks {error.filename}") from None
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None
    for name, data in zip(FILES[1:], (model, tensors, rest), strict=True):
        if sum_line(name, data) not in sums:
            raise ValueError(
                f"{folder / name} is damaged: its {len(data)} bytes are not those in SHA256SUMS"
            )
    try:
        state = put_tensors(json.loads(rest), safetensors.torch.load(tensors))
        if not isinstance(state, dict) or "model" in state:
            raise ValueError("state.json is no table, or has a second model")
        return {"model": safetensors.torch.load(model), **state}
    except (KeyError, RecursionError, SafetensorError, TypeError, ValueError) as error:
        told = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{folder} holds something else than a checkpoint: {told}") from None


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # clone: tied weights share memory, which safetensors refuses to store twice
    return safetensors.torch.save(
        {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    )


def sum_line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def write_through(path: Path, data: bytes) -> None:
    """Write and wait until the disk has it, so that a rename afterwards is never first.

    All or nothing: half a file would keep a full disk full.
    """
    try:
        with naming(path), path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Write beside, then rename: a kill, or a full disk, leaves the old file or the new one."""
    new = path.with_name(path.name + ".new")
    write_through(new, data)
    os.replace(new, path)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Meanwhile an error of the system says which file it is about.

    Those of opening do; `No space left on device`, which comes with writing, does not.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON can hold it: each tensor moves to `tensors` and leaves its name behind."""
    if isinstance(value, Tensor):
        if name in tensors:
            raise ValueError(f"state has two tensors called {name}; no key may hold a slash")
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {str(k): take_tensors(v, f"{name}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [take_tensors(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    return value


def put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `take_tensors`. JSON keys are text, so those of digits become ints again."""
    if isinstance(value, list):
        return [put_tensors(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tensor"} and str(value["tensor"]) in tensors:
        return tensors[value["tensor"]]
    return {
        int(k) if k.isascii() and k.isdigit() else k: put_tensors(v, tensors)
        for k, v in value.items()
    }


def keep_best(folder: Path | str, n: int) -> list[Path]:
    """Delete all checkpoints in `folder` but the n with the lowest `val_loss`; returns those.

    The best comes first; of equal ones the name that sorts first is the better, and nan is the
    worst. What a kill left of a checkpoint, `NAME.new` or `NAME.old`, does not count as one.
    """
    check_number("n", n, least=1, whole=True)  # with 0 nothing would be kept
    losses = {
        file.parent: loss_in(file)
        for file in sorted(Path(folder).glob("*/state.json"))
        if file.parent.suffix not in (".new", ".old")
    }
    ranked = sorted(losses, key=lambda path: (math.isnan(losses[path]), losses[path]))
    for worse in ranked[n:]:
        leftover = worse.with_name(worse.name + ".old")  # what a kill leaves of it counts no more
        remove(leftover)
        remove(worse.rename(leftover))
    return ranked[:n]


def loss_in(file: Path) -> float:
    """The `val_loss` in a state.json; one that cannot be read is nan, and so the worst."""
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["val_loss"])
    except (KeyError, OSError, OverflowError, RecursionError, TypeError, ValueError):
        return math.nan


class MetricsLog:
    """A run's numbers, one JSON object a line, on the disk as soon as they are known."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        with naming(self.path), self.path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read() not in (b"", b"\n"):  # a kill has cut the last line short
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(record).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """All records, in order. A last line that a kill cut short is left out.

        Raises:
            ValueError: names the line that is no record.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().splitlines(keepends=True)
        return [self.record(i, line) for i, line in enumerate(lines, 1) if line.endswith(b"\n")]

    def record(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (RecursionError, ValueError):
            record = None
        if not isinstance(record, dict):
            raise ValueError(
                f"{self.path}, line {number}, is {reprlib.repr(line)}, which is no record: "
                "a JSON object; delete that line"
            )
        return record

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, as if the run had stopped there."""
        kept = [record for record in self.read() if record["step"] <= step]
        replace_file(self.path, b"".join(json.dumps(r).encode() + b"\n" for r in kept))


def random_states() -> dict[str, Any]:
    """Every random state that `seed_everything` sets, in a form that a checkpoint can hold."""
    version, internal, gauss = random.getstate()
    name, keys, *position = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *position],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Go on where `random_states` looked, on as many GPUs as both machines have.

    Raises:
        ValueError: if these are no such states; then nothing has changed.
    """
    check_random_states(states)
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *position = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *position))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
    if torch.backends.mps.is_available():
        for state in states.get("mps", []):  # older checkpoints have none
            torch.mps.set_rng_state(state)


def check_random_states(states: Mapping[str, Any]) -> None:
    """See that generators would take these states: out of its bounds, NumPy would read anything."""
    try:
        version, internal, gauss = states["python"]
        random.Random().setstate((version, tuple(internal), gauss))
        name, keys, position, has_gauss, cached = states["numpy"]
        numbers = isinstance(gauss, float | None) and math.isfinite(cached + has_gauss)
        if not (numbers and name == "MT19937" and 0 <= position <= len(keys) == 624):
            raise ValueError
        np.random.RandomState().set_state((name, keys.numpy().astype(np.uint32), position))
        torch.Generator().set_state(states["torch"])
        bytes_of_gpus = [*states["cuda"], *states.get("mps", [])]
        if not all(isinstance(s, Tensor) and s.dtype == torch.uint8 for s in bytes_of_gpus):
            raise ValueError
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        raise ValueError("random holds no states of generators, or not of all") from None
