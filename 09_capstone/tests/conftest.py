"""What the tests of runs and of the command line share."""

import functools
import hashlib
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tiny_transformer.capstone import cli, picture, report
from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training import reference as training
from tiny_transformer.training.reference import TrainConfig

SOURCES = functools.cache(inspect.getsource)
WORDS = "the cat sat on a mat and saw that it was a good mat to sit on".split()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A small language with something to learn: a few words in random order."""
    chance = random.Random(0)
    lines = (" ".join(chance.choices(WORDS, k=8)) for _ in range(100))
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def config(corpus):
    return replace(
        PRESETS["smoke"],
        corpus=str(corpus),
        log_every=3,
        eval_every=6,
        model=ModelConfig(max_len=16, d_model=16, n_layers=2, n_heads=2, d_ff=32, dropout=0.1),
        train=TrainConfig(batch_size=8, max_steps=20, warmup_steps=2, max_lr=1e-2),
    )


@pytest.fixture(scope="session")
def weights() -> Callable[..., str]:
    """Gives a digest: pytest takes a minute to say where two files of bytes differ."""

    def digest(out: Path, which: str = "last") -> str:
        return hashlib.sha256((out / which / "model.safetensors").read_bytes()).hexdigest()

    return digest


@pytest.fixture(scope="session")
def interrupt_at() -> Callable[[pytest.MonkeyPatch, int, int], None]:
    """Sends this process a signal while its run takes a step."""

    def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
        original, taken = training.train_step, []

        def train_step(*args):
            taken.append(args)
            if len(taken) == step:
                os.kill(os.getpid(), number)
            return original(*args)

        monkeypatch.setattr(training, "train_step", train_step)

    return interrupt


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `tiny-transformer ARGS`; gives exit status, standard output and standard error."""

    def run_command(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-transformer", *map(str, args)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = capsys.readouterr()
        if isinstance(exit.value.code, str):  # Python prints it and exits with 1
            return 1, out, err + exit.value.code
        return exit.value.code, out, err

    return run_command


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).touch()


@pytest.fixture(scope="session", autouse=True)
def short_reports() -> Iterator[None]:
    """To speak at length and to draw take longer than the training of these small models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SPOKEN", 5)
        patch.setattr(report, "draw_losses", lambda _, out, __: touch(out, picture.GROUNDS))
        patch.setattr(inspect, "getsource", SOURCES)  # of all settings, parsed by each command
        yield


@pytest.fixture(autouse=True)
def silent(monkeypatch, request):
    if request.node.get_closest_marker("exercise"):  # what a learner prints shall be found
        monkeypatch.setattr(report, "print", lambda *_, **__: None, raising=False)
        monkeypatch.setattr(report.tqdm, "write", lambda *_, **__: None)
