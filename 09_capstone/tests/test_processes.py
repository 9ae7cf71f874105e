"""Module 09: a run of two processes is the run of one, whatever becomes of the processes."""

import importlib
import multiprocessing
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock

import pytest
import torch
from tqdm.auto import tqdm

from tiny_transformer.capstone.cli import main
from tiny_transformer.capstone.reference import load_run, train
from tiny_transformer.capstone.session import flatten
from tiny_transformer.engineering.config import PRESETS, RunConfig
from tiny_transformer.engineering.processes import Processes
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint
from tiny_transformer.training import reference as training

MEASURED = {"tokens_per_second", "gradient_norm"}  # where a process can: not with a part alone


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    corpus = tmp_path_factory.mktemp("corpus") / "letters.txt"
    letters = random.Random(0).choices("abcdefgh \n", weights=range(10, 0, -1), k=3000)
    corpus.write_text("".join(letters), encoding="utf-8")
    smoke = PRESETS["smoke"]
    # A higher learning rate multiplies differences of rounding: chaos, not another gradient.
    recipe = replace(smoke.train, max_steps=40, accumulate=2, max_lr=1e-3)
    return replace(smoke, corpus=str(corpus), log_every=1, eval_every=20, train=recipe)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """The whole run, by one process."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    train(config, out)
    return out


def in_two(
    command: Sequence[object], *folders: Path, at: tuple[int, signal.Signals] | None = None
) -> list[tuple[int | None, str]]:
    """The command in two processes, each in its folder: 1 may get a signal in one of its steps.

    They are begun as torchrun does it (.ci/test_gates.py has the real one), but without the seconds
    in which each imports PyTorch. Exit status of both, and what they printed.
    """
    for name in ("torch._dynamo", "tiny_transformer.engineering.sharding"):
        importlib.import_module(name)  # both would, in each test
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    words, here = [str(word) for word in command], 2 // len({*folders})
    runs = [
        how.Process(target=process, args=(rank, here, port, folders[rank], words, at))
        for rank in (0, 1)
    ]
    for run in runs:
        run.start()
    runs[1].join()
    if at and at[1] == signal.SIGKILL:
        runs[0].terminate()  # so torchrun does to the others of one that died
    runs[0].join()
    said = [printed(folders[i], i).read_text(encoding="utf-8") for i in (0, 1)]
    return [(run.exitcode, text) for run, text in zip(runs, said, strict=True)]


def printed(folder: Path, rank: int) -> Path:
    return folder / f".printed-by-{rank}"


def process(
    rank: int,
    here: int,
    port: int,
    folder: Path,
    command: list[str],
    at: tuple[int, signal.Signals] | None,
) -> None:
    """What one of two processes does, of which as many as `here` are on its machine."""
    os.chdir(folder)
    tqdm.set_lock(RLock())  # one from before the fork would stay locked by a process that is killed
    sys.stdout = sys.stderr = open(printed(folder, rank), "w", encoding="utf-8")
    os.environ.update(
        TORCHELASTIC_RUN_ID="1",
        RANK=str(rank),
        LOCAL_RANK=str(rank % here),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE=str(here),
        MASTER_ADDR="localhost",
        MASTER_PORT=str(port),
    )
    if at and rank == 1:
        training.get_batch = signaled(*at)
    sys.argv = ["tiny-transformer", *command]
    main()


def signaled(step: int, number: signal.Signals) -> Callable:
    """A get_batch that gives its own process a signal at the call number `step`."""
    original, taken = training.get_batch, []

    def get_batch(*args):
        taken.append(args)
        if len(taken) == step:
            os.kill(os.getpid(), number)
        return original(*args)

    return get_batch


def options(config: RunConfig, out: Path) -> list[object]:
    recipe = config.train
    return [
        *("train", "--preset", "smoke", "--out", out, "--corpus", config.corpus),
        *("--log-every", config.log_every, "--eval-every", config.eval_every),
        *("--train.max-steps", recipe.max_steps, "--train.accumulate", recipe.accumulate),
        *("--train.max-lr", recipe.max_lr, "--train.optimizer", recipe.optimizer),
        *(["--shard"] if config.shard else []),
    ]


def assert_is_the_run(out: Path, whole: Path) -> None:
    """Every line of the metrics once, and the same losses up to rounding."""
    ours, theirs = (MetricsLog(run / "metrics.jsonl").read() for run in (out, whole))
    assert [record["step"] for record in ours] == [record["step"] for record in theirs]
    names = [[{*record} - MEASURED for record in records] for records in (ours, theirs)]
    assert names[0] == names[1]
    for name in ("train_loss", "val_loss"):
        losses = [[r[name] for r in records if name in r] for records in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-4)
    files = [{path.name.split(".out.")[0] for path in run.iterdir()} for run in (out, whole)]
    assert files[0] == files[1]
    assert load_checkpoint(out / "last")["step"] == load_checkpoint(whole / "last")["step"]
    assert load_run(out)


def test_two_processes_train_as_one_does(config, alone, tmp_path):
    command = options(config, tmp_path / "run")
    (status, printed), (of_other, other_printed) = in_two(command, tmp_path, tmp_path)
    assert (status, of_other, other_printed) == (0, 0, ""), printed
    assert printed.count("best validation loss") == 1
    assert_is_the_run(tmp_path / "run", alone)


def test_a_killed_process_ends_the_run_with_a_checkpoint(config, alone, tmp_path):
    out, command = tmp_path / "run", options(config, tmp_path / "run")
    (status, printed), _ = in_two(command, tmp_path, tmp_path, at=(12, signal.SIGKILL))
    assert status != 0
    assert "process 0 of 2 lost another one after step 11; to go on: torchrun" in printed
    assert f"-m tiny_transformer.capstone train --out {out} --resume\n" in printed
    assert "09_capstone" not in printed, "a traceback"
    assert load_checkpoint(out / "last")["step"] == 11
    train(config, out, resume=True)
    assert_is_the_run(out, alone)


def test_a_run_goes_on_on_two_machines_of_which_one_has_its_folder(
    config, alone, tmp_path, monkeypatch
):
    out, machines = tmp_path / "one" / "run", (tmp_path / "one", tmp_path / "other")
    for machine in machines:
        machine.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(training, "get_batch", signaled(16, signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            train(config, out)
    # A signal to one process stops all of them after the same step.
    command = ("train", "--out", "run", "--resume")
    ended = in_two(command, *machines, at=(8, signal.SIGTERM))
    (status, printed), (of_other, other_printed) = ended
    assert status != 0 and of_other != 0
    assert "stopped; to go on: the same torchrun on every machine" in printed
    assert "to go on" not in other_printed and os.listdir(machines[1]) == [".printed-by-1"]
    assert load_checkpoint(out / "last")["step"] == 24
    train(config, out, resume=True)
    assert_is_the_run(out, alone)


def test_processes_that_share_the_weights_train_as_one_does_until_one_is_killed(
    config, alone, tmp_path
):
    out, config = tmp_path / "run", replace(config, shard=True)
    command = options(config, out)
    (status, printed), _ = in_two(command, tmp_path, tmp_path, at=(23, signal.SIGKILL))
    assert status != 0 and "09_capstone" not in printed, "a traceback"
    assert "after step 22; to go on from the last checkpoint: torchrun" in printed
    assert load_checkpoint(out / "last")["step"] == 20
    train(config, out, resume=True)
    assert_is_the_run(out, alone)


def test_a_run_goes_on_with_shared_weights_and_without(config, tmp_path, monkeypatch):
    # Unclipped: both optimizers and clipping would hide gradients that are twice as long.
    recipe = replace(config.train, max_steps=12, optimizer="muon", max_norm=100.0)
    config = replace(config, shard=True, eval_every=6, train=recipe)
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(config, whole)
    with monkeypatch.context() as patch:
        patch.setattr(training, "get_batch", signaled(3, signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            train(config, out)
    command = ("train", "--out", out, "--resume")
    ended = in_two(command, tmp_path, tmp_path, at=(5, signal.SIGTERM))
    assert "stopped; to go on: torchrun" in ended[0][1]
    saved, like = (load_checkpoint(run / "last") for run in (out, whole))
    assert saved["step"] == 8 and flatten(saved).keys() == flatten(like).keys()
    train(config, out, resume=True)
    assert_is_the_run(out, whole)
    ends = (load_checkpoint(run / "last")["optimizer"]["state"] for run in (out, whole))
    for ours, theirs in zip(*(end.values() for end in ends), strict=True):
        torch.testing.assert_close(ours["mean"], theirs["mean"], rtol=0, atol=1e-5)


def test_a_batch_that_cannot_be_shared_is_told_by_the_first(config, tmp_path):
    with pytest.raises(ValueError, match="6; 2 processes times train.accumulate 2 must divide it"):
        recipe = replace(config.train, batch_size=6)
        train(replace(config, train=recipe), tmp_path / "run", processes=Processes(0, count=2))
    assert not (tmp_path / "run").exists()


def test_the_others_end_without_a_word_where_the_first_has_ended(config, tmp_path, monkeypatch):
    def gone(values):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", gone)
    with pytest.raises(SystemExit) as end:
        train(config, tmp_path / "run", processes=Processes(1, count=2))
    assert end.value.code is None


def test_the_others_stop_where_the_first_was_interrupted_before_it_told(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda values: None)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", processes=Processes(1, count=2))
