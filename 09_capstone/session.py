"""What a run is while it trains: its state, which its checkpoints hold, its folder, and Ctrl-C."""

import hashlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch

from tiny_transformer.engineering.config import RunConfig, read_config, write_config
from tiny_transformer.engineering.processes import Processes, ProcessLost
from tiny_transformer.engineering.reference import (
    keep_best,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from tiny_transformer.tiny_lm.reference import TinyTransformerLM


class Session:
    """Everything that changes from step to step, and the text that it was learned from."""

    def __init__(
        self,
        model: TinyTransformerLM,
        optimizer: torch.optim.Optimizer,
        batches: torch.Generator,
        text: str,
        scaler: torch.amp.GradScaler | None = None,
    ):
        self.scaler = scaler
        self.model = model
        self.optimizer = optimizer
        self.batches = batches
        self.characters = "".join(sorted(set(text)))
        self.corpus = hashlib.sha256(text.encode("utf-8")).hexdigest()
        self.step = 0
        self.val_loss: float | None = None  # of the last evaluation
        self.best_loss: float | None = None
        self.seconds_before = 0.0  # in the processes that this run was resumed from

    @property
    def seconds(self) -> float:
        """How long the run has taken, from the start of its process, imports included."""
        return self.seconds_before + time.time() - psutil.Process().create_time()

    def save_evaluated(self, out: Path, keep: int) -> None:
        """Write `last/`, `best/` where this is the best so far, and a numbered one if kept.

        `last/` comes after the others: a kill in between repeats them and loses nothing.
        """
        if self.best_loss is None or self.val_loss < self.best_loss:
            self.best_loss = self.val_loss
            self.save(out / "best")
        if keep:
            self.save(out / "checkpoints" / f"step-{self.step:06}")
            keep_best(out / "checkpoints", keep)
        self.save(out / "last")

    def save(self, path: Path) -> None:
        scaling = {} if self.scaler is None else {"scaler": self.scaler.state_dict()}
        save_checkpoint(
            path,
            scaling
            | {
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
            },
        )

    def restore(self, path: Path) -> None:
        state = load_checkpoint(path)
        if state["corpus"] != self.corpus:
            raise ValueError(f"corpus is not the text that {path} was trained on")
        self.seconds_before = state["seconds"]
        for name in ("step", "val_loss", "best_loss"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.set_state(state["batches"])
        if self.scaler is not None and "scaler" in state:  # else it begins to look for its scale
            self.scaler.load_state_dict(state["scaler"])
        restore_random_states(state["random"])


def claim_folder(out: Path, config: RunConfig, resume: bool) -> None:
    """Make the run folder, or see that the run in it is this one and may go on.

    Raises:
        ValueError: if the folder holds anything else, or the settings differ from the run's.
    """
    file = out / "config.toml"
    if not file.exists():
        # A kill while the settings were written leaves nothing but config.toml.new.
        if out.exists() and any(path.name != "config.toml.new" for path in out.iterdir()):
            raise ValueError(f"out is {out}, which holds other things; choose a new folder")
        if resume:
            print(f"nothing to resume in {out}: starting from the beginning")
        out.mkdir(parents=True, exist_ok=True)
        write_config(file, config)
    elif not resume:
        raise ValueError(f"out is {out}, which holds a run; add --resume, or choose a new folder")
    else:
        then, now = flatten(asdict(read_config(file, RunConfig()))), flatten(asdict(config))
        for name in then:
            if then[name] != now[name]:
                raise ValueError(
                    f"{name} is {now[name]!r}, but {out} was started with {then[name]!r}; "
                    "a resumed run keeps its settings"
                )


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
def saved_when_lost(session: Session, out: Path, processes: Processes) -> Iterator[None]:
    """When another process is gone, save the last whole step, say how to go on, and end.

    It is said while `interruptions` are held: torchrun ends what is left of its processes.
    """
    try:
        yield
    except ProcessLost as lost:
        if processes.first:
            session.save(out / "last")
        print(
            f"\ntiny-transformer: process {processes.rank} of {processes.count} lost another one "
            f"after step {session.step}; to go on: {resume_command(out, processes)}\n({lost})",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(1)


def resume_command(out: Path, processes: Processes) -> str:
    program = "tiny-transformer"
    if processes.count > 1:
        program = f"torchrun --nproc-per-node {processes.count} -m tiny_transformer.capstone"
    return f"{program} train --out {out} --resume"
