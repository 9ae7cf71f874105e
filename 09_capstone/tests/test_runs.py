"""Module 09: the run folder, what a run can be relied on for, and the command line."""

import functools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tiny_transformer.capstone import cli, report
from tiny_transformer.capstone.reference import load_run, train
from tiny_transformer.capstone.session import Session, claim_folder
from tiny_transformer.capstone.verify import verify
from tiny_transformer.data import encoded
from tiny_transformer.engineering import speed
from tiny_transformer.engineering.config import (
    PRESETS,
    RunConfig,
    read_config,
    read_run_config,
    write_config,
)
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint, save_checkpoint
from tiny_transformer.engineering.speed import Arithmetic, choose_arithmetic
from tiny_transformer.setup.device import multiplies_float16
from tiny_transformer.training import reference as training
from tiny_transformer.training.reference import (
    TrainConfig,
    evaluate,
    learning_rate,
    split_corpus,
)


@pytest.fixture(scope="session")
def run(config, tmp_path_factory) -> Path:
    """A finished run, for the tests that only look."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(config, out)
    return out


@pytest.fixture(scope="session")
def brief(config):
    """A run of few steps, for the tests that need several."""
    return replace(config, eval_every=3, train=replace(config.train, max_steps=6))


class TestTheRunFolder:
    def test_metrics_have_the_promised_names(self, run, config):
        records = MetricsLog(run / "metrics.jsonl").read()
        assert [record["step"] for record in records] == [1, 3, 6, 9, 12, 15, 18, 20]
        assert [record["step"] for record in records if "val_loss" in record] == [6, 12, 18, 20]
        for record in records:
            assert record["tokens"] == record["step"] * 8 * 16
            assert record["train_loss"] > 0
        seconds = [record["seconds"] for record in records]
        assert seconds == sorted(seconds)

    def test_snapshots_are_its_weights_at_moments_evenly_over_log_step(self, brief, tmp_path):
        out = tmp_path / "run"
        train(replace(brief, snapshots=3), out)
        assert sorted(p.name for p in (out / "snapshots").iterdir()) == [
            "step-000001",
            "step-000002",
            "step-000006",
        ]
        young, old = (load_checkpoint(out / "snapshots" / f"step-00000{i}") for i in (1, 6))
        whole = load_checkpoint(out / "last")["model"]
        for name, weight in old["model"].items():
            assert torch.equal(weight, whole[name].bfloat16())
        assert old["step"] == 6 and old.keys() == young.keys()
        assert not torch.equal(young["model"]["head.weight"], old["model"]["head.weight"])

    def test_the_config_is_the_run(self, run, config):
        saved = read_config(run / "config.toml", PRESETS["gpu"])
        vocab_size = load_run(run)[1].vocab_size
        assert saved == replace(config, model=replace(config.model, vocab_size=vocab_size))

    def test_best_is_the_best_and_its_loss_is_true(self, run, config):
        records = MetricsLog(run / "metrics.jsonl").read()
        recorded = min(record["val_loss"] for record in records if "val_loss" in record)
        model, tokenizer = load_run(run)
        tokens = torch.tensor(tokenizer.encode(Path(config.corpus).read_text(encoding="utf-8")))
        assert evaluate(model, split_corpus(tokens)[1]) == pytest.approx(recorded, abs=1e-6)

    def test_each_record_says_how_the_step_was_taken(self, run, config):
        for record in MetricsLog(run / "metrics.jsonl").read():
            assert record["learning_rate"] == learning_rate(record["step"] - 1, config.train)
            assert 0 < record["gradient_norm"] < 1.0001 * config.train.max_norm
            measured = record["step"] > 1 and "val_loss" not in record
            assert measured == ("tokens_per_second" in record)

    def test_a_run_leaves_its_pages_when_it_is_stopped_and_whole_ones_when_it_goes_on(
        self, config, run, tmp_path, monkeypatch, interrupt_at
    ):
        def told(out):
            page = (out / "samples.md").read_text(encoding="utf-8")
            return re.findall("^## Step .*", page, re.M)

        out = tmp_path / "run"
        with monkeypatch.context() as patch:
            interrupt_at(patch, 8, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train(config, out)
        assert told(out) == told(run)[:1]
        assert (out / "loss.png").exists()
        train(config, out, resume=True)
        assert told(out) == told(run)

    def test_the_bar_counts_steps_and_says_nothing_of_a_loss_that_is_not_known(
        self, brief, tmp_path, monkeypatch, capsys, interrupt_at
    ):
        monkeypatch.setattr(report.tqdm, "monitor_interval", 0)
        with monkeypatch.context() as patch:
            interrupt_at(patch, 2, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train(brief, tmp_path / "run")
        stopped = capsys.readouterr().err
        assert "step 2/6 |" in stopped and "validation" not in stopped and "None" not in stopped
        train(brief, tmp_path / "run", resume=True)
        out, resumed = capsys.readouterr()
        assert "going on after step 2 of 6, by its own settings" in out
        assert resumed.lstrip("\r").startswith("step 2/6 |")
        assert re.search(r"step 6/6 \|.*, loss \d\.\d\d, validation \d\.\d\d", resumed)
        train(brief, tmp_path / "run", resume=True)
        assert "all of its 6 steps are done: nothing is left" in capsys.readouterr().out

    def test_tensorboard_has_its_own_name_its_curves_and_what_the_model_said(self, run):
        from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

        logs = EventMultiplexer().AddRunsFromDirectory(str(run.parent)).Reload()
        assert list(logs.Runs()) == [run.name]
        log = logs.GetAccumulator(run.name)
        assert {*log.Tags()["scalars"]} == {*report.SHOWN.values()} - {"sample"}
        last = log.Tensors("sample")[-1]
        record = MetricsLog(run / "metrics.jsonl").read()[-1]
        shown = last.tensor_proto.string_val[0].decode().splitlines()
        assert last.step == record["step"]
        assert shown == [f"    {line}" for line in record["sample"].splitlines()]

    def test_samples_show_each_evaluation(self, run):
        page = (run / "samples.md").read_text(encoding="utf-8")
        assert [line for line in page.splitlines() if line.startswith("## Step")] == [
            f"## Step {record['step']}, validation loss {record['val_loss']:.4f}"
            for record in MetricsLog(run / "metrics.jsonl").read()
            if "val_loss" in record
        ]

    def test_numbered_checkpoints_are_the_best_ones(self, config, tmp_path):
        train(replace(config, keep=2), tmp_path / "run")
        kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
        records = MetricsLog(tmp_path / "run" / "metrics.jsonl").read()
        losses = {r["step"]: r["val_loss"] for r in records if "val_loss" in r}
        best = sorted(losses, key=losses.__getitem__)[:2]
        assert kept == sorted(f"step-{step:06}" for step in best)

    def test_products_are_as_precise_as_the_settings_say(self, brief, tmp_path, monkeypatch):
        what = "tiny_transformer.engineering.speed.multiplies_bfloat16"
        monkeypatch.setattr(what, lambda: True)
        seen = []

        def spy(*args):
            seen.append(torch.get_float32_matmul_precision())
            return evaluate(*args)

        monkeypatch.setattr("tiny_transformer.capstone.reference.evaluate", spy)
        train(replace(brief, matmul_precision="medium"), tmp_path / "rounded")
        train(brief, tmp_path / "exact")
        assert list(dict.fromkeys(seen)) == ["medium", "highest"]

    def test_only_the_steps_of_a_compiled_run_are_bound_to_one_order_of_sums(
        self, brief, tmp_path, monkeypatch
    ):
        what = "tiny_transformer.engineering.speed.compile_obstacle"
        monkeypatch.setattr(what, lambda device: "")
        monkeypatch.setattr(torch, "compile", lambda model: model)
        original, seen = training.train_step, []

        def spy(*args):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return original(*args)

        monkeypatch.setattr(training, "train_step", spy)
        for compiled in (True, False):
            train(replace(brief, compile=compiled), tmp_path / str(compiled))
            assert not torch.are_deterministic_algorithms_enabled()
        assert seen == [True] * 6 + [False] * 6


class TestArithmetic:
    """What a GPU would do, done by a CPU, which is slower at it but does not do it differently."""

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_a_float16_run_resumes_to_the_same_bytes_its_scale_included(
        self, brief, tmp_path, monkeypatch, optimizer, weights, interrupt_at
    ):
        scaler = functools.partial(torch.amp.GradScaler, growth_interval=3)
        monkeypatch.setattr(torch.amp, "GradScaler", scaler)
        recipe = replace(brief.train, optimizer=optimizer)
        config = replace(brief, fp16=True, train=recipe)
        train(config, tmp_path / "straight")
        with monkeypatch.context() as patch:
            interrupt_at(patch, 5, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train(config, tmp_path / "cut")
        assert load_checkpoint(tmp_path / "cut" / "last")["scaler"]["_growth_tracker"] == 2
        train(config, tmp_path / "cut", resume=True)
        assert weights(tmp_path / "cut") == weights(tmp_path / "straight")
        states = [load_checkpoint(tmp_path / out / "last") for out in ("cut", "straight")]
        assert states[0]["scaler"] == states[1]["scaler"]
        assert states[0]["scaler"]["scale"] == 2.0**18

    def test_a_float16_run_is_evaluated_in_float32(self, brief, tmp_path):
        out = tmp_path / "run"
        best = train(replace(brief, fp16=True), out)
        model, tokenizer = load_run(out)
        tokens = torch.tensor(tokenizer.encode(Path(brief.corpus).read_text(encoding="utf-8")))
        assert best == evaluate(model, split_corpus(tokens)[1])

    def test_a_run_goes_on_in_what_the_machine_is_best_at(
        self, brief, tmp_path, monkeypatch, interrupt_at
    ):
        out, half = tmp_path / "run", Arithmetic(False, True, False)
        for arithmetic in (None, half, None):  # moved to another machine, and back
            with monkeypatch.context() as patch:
                if arithmetic:
                    what = "tiny_transformer.capstone.reference.choose_arithmetic"
                    patch.setattr(what, lambda *_: half)
                interrupt_at(patch, 1, signal.SIGINT)
                with pytest.raises(KeyboardInterrupt):
                    train(brief, out, resume=(out / "config.toml").exists())
            assert ("scaler" in load_checkpoint(out / "last")) is bool(arithmetic)

    def test_settings_from_before_float16_are_float32_and_resume(self, brief, tmp_path):
        claim_folder(tmp_path / "run", replace(brief, bf16=False, compile=False), resume=False)
        file = tmp_path / "run" / "config.toml"
        assert "fp16" not in file.read_text(encoding="utf-8")
        config = read_config(file, RunConfig())
        claim_folder(tmp_path / "run", config, resume=True)
        assert choose_arithmetic(config, torch.device("cuda")) == Arithmetic(False, False, False)

    def test_what_the_machine_chose_is_said_once(self, brief, tmp_path, monkeypatch, capsys):
        line = "Tesla T4 (sm_75): float16 with a gradient scaler, compiled; otherwise: ..."
        use = Arithmetic(False, True, False, line)
        what = "tiny_transformer.capstone.reference.choose_arithmetic"
        monkeypatch.setattr(what, lambda *_: use)
        train(replace(brief, train=replace(brief.train, max_steps=1)), tmp_path / "run")
        assert capsys.readouterr().out.count(line) == 1

    def test_a_run_that_cannot_be_compiled_is_refused_before_there_is_a_folder(
        self, brief, tmp_path, monkeypatch
    ):
        what = "tiny_transformer.engineering.speed.compile_obstacle"
        monkeypatch.setattr(what, lambda device: "there is no compiler")
        with pytest.raises(ValueError, match="compile is True, but there is no compiler"):
            train(replace(brief, compile=True), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestDeterminism:
    def test_the_same_seed_gives_the_same_bytes(self, config, run, tmp_path, weights):
        train(config, tmp_path / "again")
        assert weights(tmp_path / "again") == weights(run)

    def test_another_seed_gives_another_model(self, config, run, tmp_path, weights):
        train(replace(config, seed=2), tmp_path / "other")
        assert weights(tmp_path / "other") != weights(run)

    def test_how_often_the_run_is_watched_does_not_change_it(self, config, run, tmp_path, weights):
        train(replace(config, log_every=1, eval_every=5), tmp_path / "watched")
        assert weights(tmp_path / "watched") == weights(run)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupted_run_resumes_to_the_same_bytes(
        self, config, run, tmp_path, monkeypatch, number, weights, interrupt_at
    ):
        out = tmp_path / "run"
        with monkeypatch.context() as patch:
            interrupt_at(patch, 8, number)
            with pytest.raises(KeyboardInterrupt):
                train(config, out)
        assert load_checkpoint(out / "last")["step"] == 8
        train(config, out, resume=True)
        assert weights(out) == weights(run)
        assert weights(out, "best") == weights(run, "best")

    def test_a_run_with_muon_resumes_to_the_same_bytes(
        self, brief, tmp_path, monkeypatch, weights, interrupt_at
    ):
        fast = PRESETS["fast"]
        modern = dict(norm="rms", positions="rope", bias=False, qk_norm=True, token_shift=True)
        model = replace(brief.model, **modern)
        config = replace(brief, model=model, train=replace(fast.train, batch_size=8, max_steps=6))
        train(config, tmp_path / "straight")
        with monkeypatch.context() as patch:
            interrupt_at(patch, 4, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train(config, tmp_path / "cut")
        train(config, tmp_path / "cut", resume=True)
        assert weights(tmp_path / "cut") == weights(tmp_path / "straight")

    def test_a_failure_between_checkpoints_repeats_from_the_last_one(
        self, config, run, tmp_path, monkeypatch, weights
    ):
        out = tmp_path / "run"

        def save(session, path):
            if session.step == 12 and path.name == "last":
                raise OSError("the power went out")
            original(session, path)

        original = Session.save
        with monkeypatch.context() as patch:
            patch.setattr(Session, "save", save)
            with pytest.raises(OSError):
                train(config, out)
        assert load_checkpoint(out / "last")["step"] == 6
        train(config, out, resume=True)
        assert weights(out) == weights(run)
        steps = [record["step"] for record in MetricsLog(out / "metrics.jsonl").read()]
        assert steps == sorted(set(steps))

    def test_a_killed_process_resumes_to_the_same_bytes(
        self, corpus, tmp_path, monkeypatch, weights
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in conftest.py
        train_command = [sys.executable, "-m", "tiny_transformer.capstone", "train"]
        train_command += ["--preset", "smoke", "--corpus", str(corpus), "--log-every", "1"]
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        process = subprocess.Popen([*train_command, "--out", killed], stderr=subprocess.DEVNULL)
        while len(MetricsLog(killed / "metrics.jsonl").read()) < 27 and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        assert process.wait() != 0, "the run was over before it could be killed"
        assert load_checkpoint(killed / "last")["step"] == 20
        for out in (killed, whole):
            train(read_run_config(killed), out, resume=True)
        assert weights(killed) == weights(whole)

    @pytest.mark.parametrize("shorts", [(0, 10**6), (10**6, 0)], ids=["first", "then"])
    def test_a_text_in_a_file_of_ids_gives_the_same_bytes(
        self, config, run, corpus, tmp_path, monkeypatch, shorts, weights, interrupt_at
    ):
        out, text = tmp_path / "run", tmp_path / "words.txt"
        config = replace(config, corpus=str(shutil.copyfile(corpus, text)))
        monkeypatch.setattr(encoded, "SHORT", shorts[0])
        with monkeypatch.context() as patch:
            interrupt_at(patch, 8, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train(config, out)
        monkeypatch.setattr(encoded, "SHORT", shorts[1])
        train(config, out, resume=True)
        assert weights(out) == weights(run)
        assert verify(out)
        assert (tmp_path / "words.txt.tokens").exists()


class TestResume:
    @pytest.mark.parametrize(
        "change, sentence",
        [
            (dict(seed=2), "seed is 2, but .* was started with 1"),
            (dict(train=TrainConfig()), "train.batch_size is 12, but .* was started with 8"),
        ],
    )
    def test_a_changed_setting_is_named(self, config, run, change, sentence):
        with pytest.raises(ValueError, match=sentence):
            train(replace(config, **change), run, resume=True)

    def test_a_resumed_run_has_the_snapshots_of_a_whole_one(
        self, brief, tmp_path, monkeypatch, interrupt_at
    ):
        config, whole, cut = replace(brief, snapshots=4), tmp_path / "whole", tmp_path / "cut"
        train(config, whole)
        with monkeypatch.context() as patch:
            interrupt_at(patch, 4, signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                train(config, cut)
        train(config, cut, resume=True)
        files = [
            {p.relative_to(out): p.read_bytes() for p in out.rglob("snapshots/*/model.*")}
            for out in (whole, cut)
        ]
        assert files[0] == files[1] and len(files[0]) == 4

    def test_a_changed_corpus_is_an_error(self, config, tmp_path):
        text = tmp_path / "words.txt"
        text.write_text("to be or not to be " * 50, encoding="utf-8")
        config = replace(config, corpus=str(text))
        train(config, tmp_path / "run")
        text.write_text("or not to be or to " * 50, encoding="utf-8")
        with pytest.raises(ValueError, match="corpus is not the text"):
            train(config, tmp_path / "run", resume=True)

    def test_a_run_is_never_overwritten(self, config, run, weights):
        before = weights(run)
        with pytest.raises(ValueError, match="add --resume, or choose a new folder"):
            train(config, run)
        assert weights(run) == before

    def test_a_folder_with_other_things_is_left_alone(self, config, tmp_path):
        (tmp_path / "thesis.txt").write_text("two years of work", encoding="utf-8")
        with pytest.raises(ValueError, match="choose a new folder"):
            train(config, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_kill_before_the_settings_were_written_leaves_a_free_folder(self, config, tmp_path):
        (tmp_path / "config.toml.new").write_text("seed = ", encoding="utf-8")
        train(replace(config, train=TrainConfig(max_steps=1)), tmp_path)
        assert load_checkpoint(tmp_path / "last")["step"] == 1

    def test_resuming_nothing_starts_from_the_beginning(
        self, config, run, tmp_path, capsys, weights
    ):
        train(config, tmp_path / "new", resume=True)
        assert "nothing to resume" in capsys.readouterr().out
        assert weights(tmp_path / "new") == weights(run)


class TestDivergence:
    def test_a_loss_that_is_not_a_number_stops_the_run(self, config, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "cross_entropy", lambda logits, _: logits.sum() * math.nan)
        with pytest.raises(ValueError, match="not finite at step 1: lower the learning rate"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run" / "last").exists()

    @pytest.mark.parametrize("max_lr", [1e6, 1e30])
    @pytest.mark.parametrize("log_every, eval_every", [(1000, 6), (1000, 1), (3, 6)])
    def test_the_loss_is_looked_at_before_anything_is_drawn(
        self, brief, tmp_path, max_lr, log_every, eval_every
    ):
        recipe = replace(brief.train, max_lr=max_lr, max_norm=1e30)
        config = replace(brief, log_every=log_every, eval_every=eval_every, train=recipe)
        try:
            assert math.isfinite(train(config, tmp_path / "run"))
        except ValueError as error:
            assert "not finite" in str(error)

    @pytest.mark.parametrize("where", ["weights", "averages"])
    def test_what_is_no_number_is_not_saved_over_what_is(
        self, brief, tmp_path, monkeypatch, where, weights
    ):
        """A gradient that turns NaN between evaluations, and a signal before the next one."""
        original, taken = training.train_step, []

        def train_step(model, optimizer, *args):
            loss = original(model, optimizer, *args)
            taken.append(loss)
            if len(taken) == 4:
                weight = next(model.parameters())
                broken = weight if where == "weights" else optimizer.state[weight]["exp_avg"]
                broken.data[0] = math.nan
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

        out = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(training, "train_step", train_step)
            with pytest.raises(ValueError, match="after step 4 .* is not finite, so this state"):
                train(brief, out)
        assert load_checkpoint(out / "last")["step"] == 3
        train(brief, tmp_path / "whole")
        train(brief, out, resume=True)
        assert weights(out) == weights(tmp_path / "whole")


@pytest.fixture(scope="module")
def short(brief, tmp_path_factory):
    """The best loss and the folder of a run whose evaluations read 50 tokens."""
    out = tmp_path_factory.mktemp("short") / "run"
    return train(replace(brief, eval_tokens=50), out), out


class TestEvaluatedTokens:
    """Of a long text only the first so many tokens of the validation split are read."""

    def test_the_loss_is_that_of_the_part(self, brief, short):
        model, tokenizer = load_run(short[1])
        tokens = torch.tensor(tokenizer.encode(Path(brief.corpus).read_text(encoding="utf-8")))
        assert evaluate(model, split_corpus(tokens)[1][:50]) == pytest.approx(short[0], abs=1e-6)

    def test_report_and_verify_say_which_part(self, short, capsys):
        page = (short[1] / "samples.md").read_text(encoding="utf-8")
        assert "on its first 50 tokens at most" in page
        assert verify(short[1])
        assert "on 50 tokens" in capsys.readouterr().out

    def test_a_run_that_was_written_without_it_keeps_the_whole(self, brief, short, tmp_path):
        copy = shutil.copytree(short[1], tmp_path / "run")
        file = copy / "config.toml"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("eval_tokens = 50\n", ""), encoding="utf-8")
        assert read_run_config(copy).eval_tokens is None


class TestVerify:
    def test_a_finished_run_holds(self, run, capsys):
        assert verify(run)
        assert "FAILED" not in capsys.readouterr().out

    def test_a_changed_weight_is_found(self, run, tmp_path, capsys):
        copy = shutil.copytree(run, tmp_path / "copy")
        file = copy / "best" / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert not verify(copy)
        assert "model.safetensors is damaged" in capsys.readouterr().out

    def test_a_false_loss_is_found(self, run, tmp_path, capsys):
        copy = shutil.copytree(run, tmp_path / "copy")
        state = load_checkpoint(copy / "best")
        save_checkpoint(copy / "best", state | {"val_loss": state["val_loss"] - 0.1})
        assert not verify(copy)
        assert re.search("FAILED +validation loss", capsys.readouterr().out)


class TestCommandLine:
    def test_train_and_sample(self, command, corpus, tmp_path):
        out = tmp_path / "run"
        settings = ("--corpus", corpus, "--seed", 3, "--train.max-steps", 2)
        status, printed, _ = command("train", "--preset", "smoke", "--out", out, *settings)
        assert status == 0 and "best validation loss" in printed
        config = read_config(out / "config.toml", PRESETS["gpu"])
        assert (config.seed, config.train.max_steps, config.model.max_len) == (3, 2, 32)
        status, text, _ = command("sample", "--run", out, "--prompt", "the cat", "--tokens", 50)
        assert status == 0 and text.startswith("the cat") and len(text) == len("the cat") + 50 + 1

    def test_the_same_seed_gives_the_same_text(self, command, run):
        args = ("sample", "--run", run, "--prompt", "a", "--tokens", 40)
        texts = [command(*args, "--seed", seed) for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]

    def test_a_draft_changes_nothing_but_the_time(self, command, run):
        args = ("sample", "--run", run, "--prompt", "a", "--tokens", 90)
        assert command(*args, "--draft") == command(*args)

    def test_a_draft_from_another_text_is_one_sentence(self, command, run, tmp_path):
        copy, text = shutil.copytree(run, tmp_path / "run"), tmp_path / "new.txt"
        text.write_text("Ж", encoding="utf-8")
        write_config(copy / "config.toml", replace(read_run_config(run), corpus=str(text)))
        status, _, err = command("sample", "--run", copy, "--draft")
        assert status == 1 and "the corpus that --draft reads: text has 'Ж' at position 0" in err

    @pytest.mark.skipif(not multiplies_float16(), reason="a CPU without instructions for it")
    def test_weights_of_a_large_model_are_in_float16_and_one_line_says_so(
        self, command, run, monkeypatch
    ):
        args = ("sample", "--run", run, "--prompt", "a", "--tokens", 40)
        line = "weights in float16, which this CPU reads sooner; otherwise: --fp16 False\n"
        exact, forced = command(*args), command(*args, "--fp16", "True")
        assert line not in exact[2] + forced[2]
        monkeypatch.setattr(speed, "LARGE", 1)
        chosen = command(*args)
        assert chosen == (*forced[:2], forced[2] + line)
        assert command(*args, "--draft") == chosen
        assert command(*args, "--fp16", "False") == exact
        assert command(*args, "--fp16", "True", "--mine")[2].endswith("leave one of them out")

    def test_the_gallery_is_a_page(self, command, run):
        status, printed, _ = command("gallery", "--run", run, "--prompts", "the", "--tokens", 4)
        assert status == 0 and printed.strip() == str(run / "gallery.md")
        assert "## top-p 0.9" in (run / "gallery.md").read_text(encoding="utf-8")

    def test_verify_prints_a_table(self, command, run):
        status, printed, _ = command("verify", "--run", run)
        assert status == 0 and "validation loss" in printed

    def test_a_settings_file_goes_over_the_preset_and_options_over_both(
        self, command, corpus, tmp_path
    ):
        file = tmp_path / "my.toml"
        settings = f"corpus = '{corpus}'\nseed = 5\n[train]\nmax_steps = 3\n"
        file.write_text(settings, encoding="utf-8")
        options = ("--config", file, "--out", tmp_path / "run", "--train.max-steps", 1)
        assert command("train", "--preset", "smoke", *options)[0] == 0
        config = read_config(tmp_path / "run" / "config.toml", PRESETS["gpu"])
        assert (config.seed, config.train.max_steps, config.train.warmup_steps) == (5, 1, 5)

    @pytest.mark.parametrize(
        "args, preset",
        [
            ([], "gpu"),
            (["--mine"], "gpu"),
            (["--config", "mine.toml"], "gpu"),
            (["--config", "mine.toml", "--preset", "fast"], "fast"),
        ],
    )
    def test_with_a_gpu_a_run_takes_its_preset(self, tmp_path, monkeypatch, args, preset):
        monkeypatch.chdir(tmp_path)
        Path("mine.toml").write_text("mine = true", encoding="utf-8")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        command = cli.parse(["train", *args])
        assert command.preset == preset
        assert command.settings.train == PRESETS[preset].train
        assert command.folder().name.startswith(preset)

    def test_ctrl_c_says_how_to_go_on(self, command, corpus, tmp_path, monkeypatch, interrupt_at):
        out = tmp_path / "run"
        interrupt_at(monkeypatch, 2, signal.SIGINT)
        options = ("--preset", "smoke", "--corpus", corpus, "--out", out)
        status, printed, _ = command("train", *options)
        assert status == 130
        assert f"tiny-transformer train --out {out} --resume" in printed
        assert command("train", "--out", out, "--resume")[0] == 0

    def test_a_damaged_run_fails_the_check(self, command, run, tmp_path):
        shutil.copytree(run, tmp_path / "cut")
        os.truncate(tmp_path / "cut" / "best" / "model.safetensors", 1000)
        status, printed, _ = command("verify", "--run", tmp_path / "cut")
        assert status == 1 and re.search("FAILED .*damaged", printed)

    def test_ctrl_c_elsewhere_ends_quietly(self, command, run, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "load_run", interrupted)
        assert command("sample", "--run", run) == (130, "", "")

    def test_without_a_run_sample_speaks_with_the_pretrained_model(
        self, command, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        status, printed, err = command("sample", "--tokens", 20)
        assert status == 0 and "not trained yet" in err
        assert printed == command("sample", "--run", cli.PRETRAINED, "--tokens", 20)[1]

    def test_without_a_run_verify_says_how_to_get_one(self, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        status, _, err = command("verify")
        assert status == 1 and "tiny-transformer train" in err
