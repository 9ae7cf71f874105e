"""Module 09: a run of two processes is the run of one, whatever becomes of the processes."""

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tiny_transformer.capstone.reference import load_run, train
from tiny_transformer.engineering.config import PRESETS, RunConfig
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint
from tiny_transformer.training import reference as training

# The command line, in which process 1 gets a signal while it takes its step number N.
SIGNALED = """
import os, sys
from tiny_transformer.capstone.cli import main
from tiny_transformer.training import reference as training

def get_batch(*args):
    taken.append(args)
    if os.environ["RANK"] == "1" and len(taken) == step:
        os.kill(os.getpid(), number)
    return original(*args)

original, taken = training.get_batch, []
step, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
training.get_batch = get_batch
main()
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    corpus = tmp_path_factory.mktemp("corpus") / "letters.txt"
    letters = random.Random(0).choices("abcdefgh \n", weights=range(10, 0, -1), k=3000)
    corpus.write_text("".join(letters), encoding="utf-8")
    smoke = PRESETS["smoke"]
    # A higher learning rate multiplies differences of rounding: chaos, not another gradient.
    recipe = replace(smoke.train, max_steps=100, accumulate=2, max_lr=1e-3)
    return replace(smoke, corpus=str(corpus), log_every=1, eval_every=50, train=recipe)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """The whole run, by one process."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    train(config, out)
    return out


def torchrun(*program: object, count: int = 2) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc-per-node", str(count), *map(str, program)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as in conftest.py
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def options(config: RunConfig, out: Path) -> list[object]:
    recipe = config.train
    return [
        *("train", "--preset", "smoke", "--out", out, "--corpus", config.corpus),
        *("--log-every", config.log_every, "--eval-every", config.eval_every),
        *("--train.max-steps", recipe.max_steps, "--train.accumulate", recipe.accumulate),
        *("--train.max-lr", recipe.max_lr),
    ]


def assert_is_the_run(out: Path, whole: Path) -> None:
    """Every line of the metrics once, and the same losses up to rounding."""
    ours, theirs = (MetricsLog(run / "metrics.jsonl").read() for run in (out, whole))
    assert [record["step"] for record in ours] == [record["step"] for record in theirs]
    assert [record.keys() for record in ours] == [record.keys() for record in theirs]
    for name in ("train_loss", "val_loss"):
        losses = [[r[name] for r in records if name in r] for records in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-4)
    names = [{path.name for path in run.iterdir()} for run in (out, whole)]
    assert names[0] == names[1]
    assert load_checkpoint(out / "last")["step"] == load_checkpoint(whole / "last")["step"]
    assert load_run(out)


def test_two_processes_train_as_one_does(config, alone, tmp_path):
    done = torchrun("-m", "tiny_transformer.capstone", *options(config, tmp_path / "run"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("best validation loss") == 1
    assert_is_the_run(tmp_path / "run", alone)


def test_a_killed_process_ends_the_run_with_a_checkpoint(config, alone, tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SIGNALED, encoding="utf-8")
    done = torchrun(script, 30, int(signal.SIGKILL), *options(config, out))
    assert done.returncode != 0
    assert "process 0 of 2 lost another one after step 29; to go on: torchrun" in done.stdout
    assert f"-m tiny_transformer.capstone train --out {out} --resume\n" in done.stdout
    assert "09_capstone" not in done.stdout, "a traceback"
    assert load_checkpoint(out / "last")["step"] == 29
    train(config, out, resume=True)
    assert_is_the_run(out, alone)


def test_a_run_goes_on_with_another_number_of_processes(config, alone, tmp_path, monkeypatch):
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SIGNALED, encoding="utf-8")
    with monkeypatch.context() as patch:
        original, taken = training.get_batch, []

        def get_batch(*args):
            taken.append(args)
            if len(taken) == 40:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*args)

        patch.setattr(training, "get_batch", get_batch)
        with pytest.raises(KeyboardInterrupt):
            train(config, out)
    # A signal to one process stops all of them after the same step.
    done = torchrun(script, 20, int(signal.SIGTERM), "train", "--out", out, "--resume")
    assert done.returncode != 0
    assert done.stdout.count("stopped; to go on: torchrun --nproc-per-node 2") == 1
    assert load_checkpoint(out / "last")["step"] == 60
    train(config, out, resume=True)
    assert_is_the_run(out, alone)


def test_a_batch_that_cannot_be_shared_is_one_sentence(config, tmp_path):
    done = torchrun(
        *("-m", "tiny_transformer.capstone", *options(config, tmp_path / "run")),
        *("--train.batch-size", 6),
    )
    assert done.returncode != 0
    sentence = "train.batch_size is 6; 2 processes times train.accumulate 2 must divide it"
    assert done.stdout.count(sentence) == 1
    assert "09_capstone" not in done.stdout, "a traceback"
    assert not (tmp_path / "run").exists()
