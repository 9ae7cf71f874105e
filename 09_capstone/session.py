"""What a run is while it trains: its state, which its checkpoints hold, its folder, and Ctrl-C."""

import hashlib
import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from errno import ENOLCK, ENOSYS, ENOTSUP
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
from filelock import FileLock, Timeout

from tiny_transformer.data.encoded import EncodedText
from tiny_transformer.engineering.config import RunConfig, read_run_config, write_config
from tiny_transformer.engineering.expected import (
    check_like,
    check_optimizer,
    check_tied,
    described,
    first_not_finite,
)
from tiny_transformer.engineering.processes import Processes, ProcessLost
from tiny_transformer.engineering.reference import (
    FILES,
    MetricsLog,
    check_random_states,
    keep_best,
    load_checkpoint,
    random_states,
    remove,
    restore_random_states,
    save_checkpoint,
)
from tiny_transformer.setup.limits import check_number
from tiny_transformer.tiny_lm.reference import TinyTransformerLM
from tiny_transformer.training.curves import not_finite

LOCK = ".lock"  # in a run folder; the system unlocks it when the process is gone, however it went
BEGUN = {LOCK, "config.toml.new"}  # what a kill leaves of a run that has no settings yet
HELD: dict[Path, FileLock] = {}  # the folders into which this process trains


class Session:
    """Everything that changes from step to step, and the text that it was learned from.

    With the settings of the run its checkpoints know what they were made with.
    """

    def __init__(
        self,
        model: TinyTransformerLM,
        optimizer: torch.optim.Optimizer,
        batches: torch.Generator,
        text: str | EncodedText,
        config: RunConfig | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ):
        self.model = model
        self.optimizer = optimizer
        self.batches = batches
        self.scaler = scaler
        if isinstance(text, EncodedText):
            self.characters, self.corpus = text.characters, text.sha256
        else:
            self.characters = "".join(sorted(set(text)))
            self.corpus = hashlib.sha256(text.encode("utf-8")).hexdigest()
        self.settings = None if config is None else as_saved(config)
        self.step = 0
        self.evaluated: float | None = None
        self.best_loss: float | None = None
        self.seconds_before = 0.0  # in the processes that this run was resumed from

    @property
    def val_loss(self) -> float | None:
        """Of the last evaluation. One that is not finite ends the run, with a ValueError."""
        return self.evaluated

    @val_loss.setter
    def val_loss(self, loss: float | None) -> None:
        if loss is not None and not math.isfinite(loss):
            raise ValueError(not_finite(self.step))
        self.evaluated = loss

    @property
    def seconds(self) -> float:
        """How long the run has taken, from the start of its process, imports included."""
        return self.seconds_before + time.time() - psutil.Process().create_time()

    def save_evaluated(self, out: Path, keep: int) -> None:
        """Write `last/`, `best/` where this is the best so far, and a numbered one if kept.

        `last/` comes after the others: a kill in between repeats them and loses nothing.
        """
        best = out / "best"
        if self.best_loss is None or self.val_loss < self.best_loss or not has_checkpoint(best):
            self.best_loss = self.val_loss
            self.save(best)
        if keep:
            self.save(out / "checkpoints" / f"step-{self.step:06}")
            keep_best(out / "checkpoints", keep)
        self.save(out / "last")

    def save(self, path: Path) -> None:
        """Write a checkpoint, unless its numbers are none: those would take the place of good ones.

        Raises:
            ValueError: if a weight or an average of the optimizer is not finite.
        """
        state = self.state()
        for part in ("model", "optimizer"):
            if broken := first_not_finite(state[part], part):
                kept = f"; {path} is as it was, to go on from" if has_checkpoint(path) else ""
                raise ValueError(
                    f"after step {self.step} {broken} is not finite, so this state is not saved"
                    f"{kept}; a lower learning rate may help"
                )
        save_checkpoint(path, state)

    def state(self) -> dict[str, Any]:
        state = {
            "step": self.step,
            "val_loss": self.val_loss,
            "best_loss": self.best_loss,
            "seconds": self.seconds,
            "corpus": self.corpus,
            "characters": self.characters,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.get_state(),
            "random": random_states(),
        }
        if self.settings is not None:
            state["settings"] = self.settings
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        return state

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint: `take` what was `read`."""
        self.take(self.read(path))

    def read(self, path: Path) -> dict[str, Any]:
        """A checkpoint of this very run; all that it holds is checked before any of it is used.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: names the file and the entry that cannot be this run's.
        """
        try:
            state = load_checkpoint(path)
            for name in self.state().keys() - {"settings", "scaler"}:  # some checkpoints have none
                if name not in state:
                    raise ValueError(f"{path / 'state.json'} has no {name}")
        except ValueError as error:
            raise ValueError(f"{error}{way_out(path)}") from None
        if state["corpus"] != self.corpus:
            raise ValueError(f"corpus is not the text that {path} was trained on")
        check_settings(state, self.settings or {}, path)
        try:
            self.check(state)
        except ValueError as error:
            raise ValueError(f"{path} is not of this run: {error}{way_out(path)}") from None
        return state

    def check(self, state: Mapping[str, Any]) -> None:
        last = (self.settings or {}).get("train.max_steps")
        for name, bounds in (("step", {"least": 0, "most": last}), ("seconds", {"least": 0})):
            check_like(state[name], 0 if name == "step" else 0.0, name)
            check_number(f"state.json: {name}", state[name], **bounds)
        for name in ("val_loss", "best_loss"):
            if state[name] is not None or state["step"] == last:
                check_like(state[name], 0.0, name)
                check_number(f"state.json: {name}", state[name], least=0)
        if self.scaler is not None and "scaler" in state:
            check_like(state["scaler"], self.scaler.state_dict(), "scaler")
            check_number("state.json: scaler/scale", state["scaler"]["scale"], above=0)
        check_like(state["characters"], self.characters, "characters")
        check_like(state["model"], self.model.state_dict(), "model")
        check_tied(state["model"], self.model)
        check_optimizer(state["optimizer"], self.model, self.optimizer, state["step"])
        check_like(state["batches"], self.batches.get_state(), "batches")
        try:
            torch.Generator().set_state(state["batches"])
        except RuntimeError:
            raise ValueError("state.safetensors: batches is no state of a generator") from None
        check_random_states(state["random"])

    def take(self, state: Mapping[str, Any]) -> None:
        self.seconds_before = state["seconds"]
        for name in ("step", "val_loss", "best_loss"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.set_state(state["batches"])
        if self.scaler is not None and "scaler" in state:  # else it begins to look for its scale
            self.scaler.load_state_dict(state["scaler"])
        restore_random_states(state["random"])


def as_saved(config: RunConfig) -> dict[str, Any]:
    """Settings under dotted names, as they come back from a checkpoint."""
    return json.loads(json.dumps(flatten(asdict(config))))


def check_settings(
    state: Mapping[str, Any], now: Mapping[str, Any], path: Path, only: str = ""
) -> None:
    """See that a checkpoint was made with these settings, where it knows those it was made with.

    `only` is how the names of those that count begin.
    """
    then = state.get("settings", {})
    if not isinstance(then, Mapping):
        raise ValueError(f"{path / 'state.json'}: settings is {described(then)}, and no table")
    compared = (name for name in now if name in then and name.startswith(only))
    for name in compared:
        if name != "model.vocab_size" and repr(then[name]) != repr(now[name]):
            raise ValueError(
                f"{path} was made with {name} = {described(then[name])}, but config.toml has "
                f"{described(now[name])}: put that back"
            )


def way_out(path: Path) -> str:
    """How to go on where `last/` cannot be used, if `best/` can."""
    best = path.with_name("best")
    if path.name != "last" or whole_state(best) is None:
        return ""
    return f"; to go on from {best}, copy it into the place of {path}"


def whole_state(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, if it is whole and more than the weights."""
    try:
        state = load_checkpoint(path)
    except (OSError, ValueError):
        return None
    return state if "optimizer" in state else None


def claim_folder(out: Path, config: RunConfig, resume: bool) -> bool:
    """Make the run folder, or see that the run in it is this one and may go on; then hold it.

    Says whether there is a checkpoint to go on from. No other process can claim the folder until
    the run in it has ended.

    Raises:
        ValueError: if the folder holds anything else, the settings differ from the run's, what was
            trained cannot be gone on from, or another process trains into it.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {out}, which is a file; choose a new folder")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if "config.toml" not in names and (others := names - BEGUN):
        if others & {"last", "best", "checkpoints", "metrics.jsonl"}:
            raise ValueError(f"out is {out}, a run whose config.toml is missing; put it back first")
        raise ValueError(f"out is {out}, which holds other things; choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    hold(out)
    try:
        if not os.path.lexists(out / "config.toml"):
            if resume:
                print(f"nothing to resume in {out}: starting from the beginning")
            write_config(out / "config.toml", config)
            return False
        if not resume and LOCK in names and nothing_saved(out):
            print(f"no checkpoint in {out}: starting from the beginning")
            write_config(out / "config.toml", config)
            return False
        if not resume:
            raise ValueError(
                f"out is {out}, which holds a run; add --resume, or choose a new folder"
            )
        then, now = flatten(asdict(read_run_config(out))), flatten(asdict(config))
        for name in then:
            # The vocabulary is that of the text, which is compared as a whole.
            if name != "model.vocab_size" and then[name] != now[name]:
                raise ValueError(
                    f"{name} is {now[name]!r}, but {out} was started with {then[name]!r}; "
                    "a resumed run keeps its settings"
                )
        if has_checkpoint(out / "last") or finished_saving(out):
            clear_leftovers(out)
            return True
        refuse_to_start_over(out)
        print(f"no checkpoint in {out}: starting from the beginning")
        return False
    except BaseException:
        let_go(out)
        raise


def has_checkpoint(path: Path) -> bool:
    return path.is_dir() or path.with_name(path.name + ".old").is_dir()  # as a kill may leave it


def finished_saving(out: Path) -> bool:
    """Write the `last/` that a kill prevented after the first `best/`, which is the same state."""
    state, records = whole_state(out / "best"), MetricsLog(out / "metrics.jsonl").read()
    newest = records and records[-1].get("step")
    if os.path.lexists(out / "last") or state is None or state.get("step") != newest:
        return False
    save_checkpoint(out / "last", state)
    return True


def refuse_to_start_over(out: Path) -> None:
    """A run without `last/` may start again only if nothing that it was for would be lost."""
    last = out / "last"
    if os.path.lexists(last):
        raise ValueError(f"{last} is no folder, so there is nothing to go on from{way_out(last)}")
    if not nothing_saved(out):
        raise ValueError(
            f"out is {out}, where a run was trained, but there is no last/ to go on from: put it "
            f"back{way_out(last)}"
        )


def nothing_saved(out: Path) -> bool:
    """Whether a run ended before its first checkpoint, which follows upon its first evaluation."""
    if any(os.path.lexists(out / name) for name in ("last", "last.old", "best", "best.old")):
        return False
    *before, _ = [{}, *MetricsLog(out / "metrics.jsonl").read()]
    return not any(out.glob("checkpoints/*")) and not any("val_loss" in r for r in before)


def clear_leftovers(out: Path) -> None:
    """Delete what a kill left of numbered checkpoints, half written or half deleted."""
    for path in out.glob("checkpoints/step-*"):
        if path.suffix in (".new", ".old") or not all((path / name).exists() for name in FILES):
            remove(path)


def hold(out: Path) -> None:
    lock = HELD.setdefault(out.resolve(), FileLock(out / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"out is {out}, into which another process trains; wait until it is done, or stop it"
        ) from None
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", ENOSYS) not in (ENOSYS, ENOTSUP, ENOLCK):
            raise  # else the drive, most likely on a network, knows no locks


def let_go(out: Path) -> None:
    if lock := HELD.pop(out.resolve(), None):
        lock.release(force=True)


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"max_len": 64}} -> {"model.max_len": 64}"""
    flat = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C and SIGTERM, and yield a function that says whether one came.

    A second Ctrl-C is not held.
    """
    seen = []

    def hold(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def saved_when_lost(
    session: Session, out: Path, processes: Processes, shard: bool
) -> Iterator[None]:
    """When another process is gone, save the last whole step, say how to go on, and end.

    With `shard` its part of the weights is gone too, and nothing can be saved. All is said while
    `interruptions` are held: torchrun ends what is left of its processes.
    """
    try:
        yield
    except ProcessLost as lost:
        if processes.first and not shard:
            session.save(out / "last")
        print(
            f"\ntiny-transformer: process {processes.rank} of {processes.count} lost another one "
            f"after step {session.step}; to go on{' from the last checkpoint' if shard else ''}: "
            f"{resume_command(out, processes)}\n"
            f"({lost.__cause__})",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(1)


def resume_command(out: Path, processes: Processes) -> str:
    arguments = f"train --out {shlex.quote(str(out))} --resume"
    if processes.count == 1:
        return f"tiny-transformer {arguments}"
    if not processes.one_machine:
        return f"the same torchrun on every machine, with {arguments}"
    return f"torchrun --nproc-per-node {processes.count} -m tiny_transformer.capstone {arguments}"
