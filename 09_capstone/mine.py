"""The capstone from your own exercises: each takes the place of the reference that it solves.

Whatever is yours is tried before anything starts: each exercise on plain input, each optional
argument that the run needs, and all together in a rehearsal, which also tells what the run uses.
"""

import importlib
import inspect
import io
import sys
import textwrap
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import torch
from torch import nn

from tiny_transformer.capstone import doors
from tiny_transformer.capstone import reference as capstone
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.reference import override
from tiny_transformer.engineering.speed import choose_arithmetic
from tiny_transformer.sampling.reference import generate
from tiny_transformer.sampling.speculative import generate_ahead
from tiny_transformer.setup.device import choose_device
from tiny_transformer.setup.grading.diagnosis import diagnose, why_broken
from tiny_transformer.setup.grading.doors import takes
from tiny_transformer.setup.grading.progress import (
    definitions,
    folders,
    read_exercises,
    read_results,
)
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import AdamW, fused_adamw

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE  # where the exercises lie, which tests have elsewhere
YOURS, IN_USE, UNUSED, REFERENCE = LABELS = (
    "yours",
    "yours, in this run",
    "yours, not used here",
    "reference",
)
Swaps = dict[Any, Any]  # what stands in the course's modules, and what shall stand there instead
SMALL = {  # a rehearsal keeps every switch that the CPU knows, and takes as little time as it can
    "device": "cpu",
    "compile": False,
    "eval_every": 2,
    "log_every": 1,
    "model": {"max_len": 8, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 16},
    "train": {"max_steps": 2, "warmup_steps": 1},
}


@dataclass
class Part:
    """An exercise, the reference's solution and yours."""

    folder: str
    name: str
    file: str  # with `lines` says to whom a piece of code belongs
    lines: range
    ours: Any
    yours: Any
    started: bool
    failed: int  # of its tests, when they last ran on this very code
    tests: int
    used: bool | None = None  # in the rehearsal, if there was one

    @property
    def whose(self) -> str:
        if not self.started:
            return REFERENCE
        return YOURS if self.used is None else IN_USE if self.used else UNUSED


@contextmanager
def your_parts(
    config: RunConfig | None = None,
    needed: Iterable[doors.Door] = (),
    rehearsal: Callable[[], Any] | None = None,
) -> Iterator[str]:
    """Put each exercise that is started in the place of its reference; yields a table of them.

    What its last tests called wrong, or what does not do what is `needed`, is left out. The table
    says so, and what the `rehearsal`, which comes first, had a use for.

    Raises:
        ValueError: with the diagnosis of the first exercise that is wrong, before anything starts.
        RuntimeError: says where your code has failed.
    """
    config = config or RunConfig(device="cpu")
    parts = find_parts()
    notes = [told_by_its_tests(part) for part in parts if part.failed]
    notes += close_doors(parts, needed)
    swaps = {part.ours: fitted(part.ours, part.yours) for part in parts if part.started}
    if AdamW in swaps:
        swaps[fused_adamw] = swaps[AdamW]
    if without_cache := closed_caches(swaps):
        notes.append(f"sampling does without a cache: {without_cache}")
        swaps[generate] = partial(swaps.get(generate, generate), use_cache=False)
        swaps[generate_ahead] = refusing(
            f"--draft needs a cache, and {without_cache}: leave it out"
        )
    if config.same_start:
        build_model = swaps.get(capstone.build_model, capstone.build_model)
        swaps[capstone.build_model] = starting_alike(build_model, dict(swaps))
    # What is started may call what is not, in the same file.
    swaps |= {part.yours: part.ours for part in parts if not part.started}
    names = weight_names(config)
    with swapped(swaps), told_in_a_sentence():
        if names != (yours := weight_names(config)):
            raise ValueError(
                "your model's weights have other names than the reference's: it lacks "
                f"{sorted(names - yours)} and has {sorted(yours - names)}"
            )
        if rehearsal is not None:
            with watched(parts), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                rehearsal()
        yield "\n".join([table(parts), *(textwrap.fill(note, width=80) for note in notes)])


def find_parts() -> list[Part]:
    parts, results = [], read_results(ROOT)
    for folder in folders(ROOT):
        topic, file = folder.split("_", 1)[1], f"{folder}/exercises.py"
        reference = importlib.import_module(f"tiny_transformer.{topic}.reference")
        try:
            exercises = importlib.import_module(f"tiny_transformer.{topic}.exercises")
        except Exception as error:
            raise ValueError(why_broken(error, ROOT, file)) from error
        nodes = definitions(ROOT / file)
        for exercise in read_exercises(ROOT, folder, results):
            node, yours = nodes[exercise.name], getattr(exercises, exercise.name)
            first = min(part.lineno for part in (node, *node.decorator_list))
            where = f"{file}:{exercise.line}"
            started = not exercise.stub and not exercise.failed
            if started:
                with swapped({part.yours: part.ours for part in parts if not part.started}):
                    started = is_right(topic, exercise.name, yours, where)
            ours = getattr(reference, exercise.name)
            lines = range(first, node.end_lineno + 1)
            parts.append(
                Part(
                    folder=folder,
                    name=exercise.name,
                    file=exercises.__file__,
                    lines=lines,
                    ours=ours,
                    yours=yours,
                    started=started,
                    failed=exercise.failed,
                    tests=exercise.tests,
                )
            )
    return parts


def told_by_its_tests(part: Part) -> str:
    many = f"{part.failed} of its {part.tests} tests {'fails' if part.failed == 1 else 'fail'}"
    return f"{part.name} is the reference here: {many} on yours"


def is_right(topic: str, name: str, yours: Callable, where: str) -> bool:
    """Whether it does what it should on plain input; False where it is not started to the end.

    Raises:
        ValueError: with the diagnosis of what it does instead.
    """
    try:
        problem = diagnose(topic, name, yours)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, NotImplementedError) and Path(at).name == "exercises.py":
            return False
        problem = f"{name} raises {type(error).__name__}: {error}"
    if problem:
        raise ValueError(f"{where}: {name} is not right yet.\n{problem}")
    return True


def close_doors(parts: list[Part], needed: Iterable[doors.Door]) -> list[str]:
    """Leave out of the run what does not do what it needs; says of each why."""
    notes = []
    for door in needed:
        for part in parts:
            if part.started and part.ours is door.part and (why := door.closed(part.yours)):
                part.started = False
                notes.append(f"{part.name} is the reference here: yours {why}")
    return notes


def closed_caches(swaps: Swaps) -> str | None:
    """Why no cache can be used, if one of your parts of the model does without."""
    for door in doors.CACHED:
        if door.part in swaps and (why := door.closed(swaps[door.part])):
            return f"your {door.part.__name__} {why}"
    return None


def refusing(message: str) -> Callable:
    def refuse(*_: Any) -> None:
        raise ValueError(message)

    return refuse


def fitted(ours: Any, yours: Any) -> Any:
    """Yours, which may be called as ours is: an optional argument that it lacks is left out."""
    is_module = inspect.isclass(ours) and issubclass(ours, nn.Module)
    if inspect.isclass(ours) and not is_module:
        return yours
    function, like = (yours.forward, ours.forward) if is_module else (yours, ours)
    wanted = inspect.signature(like).parameters
    optional = {
        name for name, parameter in wanted.items() if parameter.default is not parameter.empty
    }
    known = {name for name in optional if takes(function, name)}
    if known == optional:
        return yours
    names = list(wanted)

    def call(*args: Any, **options: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | options
        return function(
            *(given[name] for name in names if name in given and name not in optional),
            **{name: value for name, value in given.items() if name in known},
        )

    return type(yours.__name__, (yours,), {"forward": call}) if is_module else call


@contextmanager
def swapped(swaps: Swaps) -> Iterator[None]:
    """Meanwhile every module of the course has the new thing under each name of the old one."""
    old = {*map(id, swaps)}  # not everything that has a name can be looked up
    changes = old and [
        (module, name, value)
        for module in list(sys.modules.values())
        if module.__name__.startswith("tiny_transformer.") and module.__name__ != __name__
        for name, value in vars(module).items()
        if id(value) in old
    ]
    for module, name, value in changes:
        setattr(module, name, swaps[value])
    try:
        yield
    finally:
        for module, name, value in changes:
            setattr(module, name, value)


def starting_alike(build_model: Callable, swaps: Swaps) -> Callable:
    """`build_model`, but with the reference's first weights, so that runs can be compared."""
    back = {new: old for old, new in swaps.items()}

    def build_alike(config: ModelConfig, text: str) -> tuple[nn.Module, Any]:
        with torch.random.fork_rng(devices=[]):
            model, tokenizer = build_model(config, text)
        with swapped(back):
            model.load_state_dict(build(model.config).state_dict())
        return model, tokenizer

    return build_alike


def weight_names(config: RunConfig) -> set[str]:
    model, _ = capstone.build_model(override(config.model, SMALL["model"]), "ab")
    return {*model.state_dict()}


def rehearse(config: RunConfig, resume: bool = False) -> None:
    """Train a very small model in the same way, for two steps, and forget it."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        corpus = Path(folder, "corpus.txt")
        corpus.write_bytes((1000 * load_text(config.corpus, 1000))[:1000].encode())
        small = override(config, {**SMALL, "corpus": str(corpus)})
        batch = small.train.accumulate * 2
        small = replace(small, train=replace(small.train, batch_size=batch))
        capstone.train(small, Path(folder, "run"))
        if resume:
            capstone.train(small, Path(folder, "run"), resume=True)


def eager_unless_compiled(config: RunConfig) -> RunConfig:
    """Without `compile` where it would be used and your code cannot be compiled, which is said."""
    device = choose_device(config.device)
    if not choose_arithmetic(config, device).compile:
        return config
    model = build(override(config.model, SMALL["model"])).to(device)
    try:
        torch.compile(model)(torch.zeros(2, 8, dtype=torch.long, device=device)).sum().backward()
    except Exception as error:
        told = str(error).partition("\n")[0]
        print(
            f"not compiled, since your code cannot be: {type(error).__name__}: {told}", flush=True
        )
        return replace(config, compile=False)
    return config


@contextmanager
def watched(parts: list[Part]) -> Iterator[None]:
    """Note of each part whether any of its code is run, but for what only prepares an object."""
    of_file = defaultdict(list)
    for part in parts:
        of_file[part.file].append(part)
        part.used = False

    classes = {part.yours: part for part in parts if part.started and inspect.isclass(part.yours)}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_name == "__init__":
            return
        for part in of_file.get(code.co_filename, ()):
            part.used = part.used or code.co_firstlineno in part.lines
        if code.co_varnames[:1] == ("self",):  # a method that yours inherits
            for kind in type(frame.f_locals["self"]).__mro__:
                if kind in classes and code.co_name in vars(classes[kind].ours):
                    classes[kind].used = True

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def table(parts: list[Part]) -> str:
    """Whose code stands where, and whether a run has a use for yours."""
    lines = []
    for folder, group in groupby(parts, lambda part: part.folder):
        whose = defaultdict(list)
        for part in group:
            whose[part.whose].append(part.name)
        for who in filter(whose.get, LABELS):
            lines += textwrap.wrap(
                ", ".join(whose[who]),
                width=80,
                initial_indent=f"{folder:22}{who:22}",
                subsequent_indent=44 * " ",
            )
    return "\n".join(lines)


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """What fails in your code, or because of it, names the line of the course where it fell.

    What the course itself has to say about a run, to your `train`, is said as it stands.
    """
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        course = [
            (Path(frame.filename).resolve(), frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        course = [(file, line) for file, line in course if file.parent.parent in (ROOT, HERE)]
        yours = [(file, line) for file, line in course if file.name == "exercises.py"]
        said_by_the_course = isinstance(error, ValueError) and course[-1] not in yours
        if said_by_the_course and (not yours or yours[-1][0].parent.name == "09_capstone"):
            raise
        file, line = yours[-1] if yours else course[-1]
        where = f"{file.parent.name}/{file.name}:{line}"
        raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from None
