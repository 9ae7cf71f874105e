"""Module 09: the three sessions, the run folder, and the command line as a learner meets it."""

import functools
import hashlib
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_transformer.capstone import cli
from tiny_transformer.capstone.reference import STRATEGIES, load_run, train
from tiny_transformer.capstone.report import speak
from tiny_transformer.capstone.session import Session, claim_folder, let_go
from tiny_transformer.capstone.verify import verify
from tiny_transformer.data import encoded
from tiny_transformer.engineering.config import PRESETS, RunConfig, read_config, read_run_config
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint, save_checkpoint
from tiny_transformer.engineering.speed import Arithmetic, choose_arithmetic
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training import reference as training
from tiny_transformer.training.reference import TrainConfig, evaluate, split_corpus

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
def run(config, tmp_path_factory) -> Path:
    """A finished run, for the tests that only look."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(config, out)
    return out


@pytest.fixture(scope="session")
def brief(config):
    """A run of few steps, for the tests that need several."""
    return replace(config, eval_every=3, train=replace(config.train, max_steps=6))


def weights(out: Path, which: str = "last") -> str:
    """A digest: pytest takes a minute to say where two files of bytes differ."""
    return hashlib.sha256((out / which / "model.safetensors").read_bytes()).hexdigest()


def interrupt_at(monkeypatch, step: int, number: int) -> None:
    """Send this process a signal while its run takes step `step`."""
    original, taken = training.train_step, []

    def train_step(*args):
        taken.append(args)
        if len(taken) == step:
            os.kill(os.getpid(), number)
        return original(*args)

    monkeypatch.setattr(training, "train_step", train_step)


@pytest.mark.exercise("build_model")
class TestBuildModel:
    @pytest.mark.parametrize("vocab_size", [3, 65])
    def test_the_vocabulary_is_that_of_the_text(self, impl, vocab_size):
        model, tokenizer = impl.build_model(ModelConfig(vocab_size=vocab_size), "to be or not")
        told = "It should return the model first and then the tokenizer."
        assert isinstance(model, torch.nn.Module), told
        assert tokenizer.characters == sorted(set("to be or not"))
        assert model.config.vocab_size == 7, (
            f"The text has 7 different characters, and the model a vocab_size of "
            f"{model.config.vocab_size}; the config said {vocab_size}, which must not count."
        )
        assert model(torch.tensor([tokenizer.encode("to")])).shape == (1, 2, 7)

    def test_the_shape_is_that_of_the_config(self, impl):
        config = ModelConfig(max_len=8, d_model=8, n_layers=3, n_heads=2, d_ff=20, dropout=0.5)
        model, _ = impl.build_model(config, "to be or not")
        wanted = replace(config, vocab_size=7)
        assert model.config == wanted, f"The model's config is {model.config}, not {wanted}."

    def test_what_goes_beyond_gpt_2_is_put_in(self, impl):
        modern = dict(norm="rms", positions="rope", bias=False, vocab_size=7)
        config = ModelConfig(max_len=8, d_model=8, n_layers=1, n_heads=2, d_ff=16, **modern)
        model, _ = impl.build_model(config, "to be or not")
        ours, theirs = (
            {name: tensor.shape for name, tensor in m.state_dict().items()}
            for m in (model, build(config))
        )
        told = sorted(ours.keys() ^ theirs.keys())[:3]
        assert ours == theirs, (
            f"With norm='rms', positions='rope' and bias=False the model must be the modern one "
            f"that `build` makes; it differs in {', '.join(told)} and more."
        )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "build_model")


@pytest.fixture(scope="session")
def quick(config):
    """A run of five steps, evaluated after the second, the fourth and the last."""
    train, model = replace(config.train, max_steps=5), replace(config.model, n_layers=1)
    return replace(config, log_every=1, eval_every=2, train=train, model=model)


@pytest.fixture(scope="session")
def finished(quick, tmp_path_factory) -> Callable[[Any], tuple[float, Path]]:
    """Gives a quick run of an implementation, made once, for the tests that only look."""
    runs = {}

    def of(impl: Any) -> tuple[float, Path]:
        if impl.train not in runs:
            out = tmp_path_factory.mktemp("quick") / "run"
            runs[impl.train] = impl.train(quick, out), out
        return runs[impl.train]

    return of


def recorded(out: Path, name: str) -> dict[int, Any]:
    """What metrics.jsonl has of this name, by step."""
    records = MetricsLog(out / "metrics.jsonl").read()
    return {record["step"]: record[name] for record in records if name in record}


def validation(config: RunConfig, out: Path) -> torch.Tensor:
    tokens = load_run(out)[1].encode(Path(config.corpus).read_text(encoding="utf-8"))
    return split_corpus(torch.tensor(tokens))[1]


def with_text(config: RunConfig, path: Path, length: int) -> RunConfig:
    path.write_text(("to be or not " * length)[:length], encoding="utf-8")
    return replace(config, corpus=str(path))


def cut_at(step: int, number: int, monkeypatch, train: Callable, *args: Any) -> None:
    """Interrupt a run while it takes a step."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # it would end pytest
    try:
        with monkeypatch.context() as patch:
            interrupt_at(patch, step, number)
            train(*args)
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    pytest.fail(f"A run that was interrupted in step {step} must raise KeyboardInterrupt after it.")


class Compiled(torch.nn.Module):
    """What `torch.compile` makes of a model, without the time that it takes."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self._orig_mod = model

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            return super().__getattr__(name)
        return getattr(self._orig_mod, name)

    def forward(self, *args: Any, **options: Any) -> Any:
        return self._orig_mod(*args, **options)


@pytest.mark.exercise("train")
class TestTrain:
    def test_a_run_folder_holds_everything(self, impl, finished):
        _, out = finished(impl)
        names = {"config.toml", "metrics.jsonl", "last", "best", "loss.png", "samples.md"}
        lacking = sorted(names - {path.name for path in out.iterdir()})
        assert not lacking, f"After the run its folder lacks {', '.join(lacking)}."

    def test_every_other_step_reports_its_training_loss(self, impl, finished):
        _, out = finished(impl)
        steps = list(recorded(out, "train_loss"))
        told = f"With log_every = 1 each of the 5 steps must be reported once; here {steps} are."
        assert steps == [1, 2, 3, 4, 5], told

    def test_the_loss_is_measured_now_and_then_and_after_the_last_step(self, impl, finished):
        _, out = finished(impl)
        steps = list(recorded(out, "val_loss"))
        assert steps == [2, 4, 5], (
            f"Of 5 steps with eval_every = 2 the validation loss must be evaluated after 2, 4 and "
            f"the last step, 5; metrics.jsonl has it after {steps}."
        )

    def test_the_model_learns(self, impl, config, tmp_path):
        impl.train(config, tmp_path / "run")
        first = recorded(tmp_path / "run", "train_loss")[1]
        last = list(recorded(tmp_path / "run", "val_loss").values())[-1]
        assert last < first - 0.3, f"The loss hardly falls: it was {first:.2f}, and is {last:.2f}."

    def test_the_loss_it_returns_is_that_of_the_last_tenth_of_the_text(self, impl, quick, finished):
        best, out = finished(impl)
        loss = evaluate(load_run(out)[0], validation(quick, out))
        told = "the weights in best/ have on the validation split, the last tenth of the text"
        assert best == pytest.approx(loss, abs=1e-6), f"It returns {best}; {loss} is what {told}."

    def test_the_loss_it_returns_is_the_best(self, impl, quick, tmp_path):
        wild = replace(quick.train, max_lr=1.0, warmup_steps=2, max_norm=1e9)
        config = replace(quick, eval_every=1, train=wild)
        best = impl.train(config, tmp_path / "run")
        losses = list(recorded(tmp_path / "run", "val_loss").values())
        told = ", ".join(f"{loss:.4f}" for loss in losses)
        assert best == min(losses, default=None), (
            f"The validation losses are {told}; of these the best must be returned, not {best}."
        )

    def test_only_the_first_eval_tokens_of_the_validation_split_count(self, impl, quick, tmp_path):
        config = replace(quick, eval_tokens=50)
        best = impl.train(config, tmp_path / "run")
        model, tokens = load_run(tmp_path / "run")[0], validation(config, tmp_path / "run")
        loss = evaluate(model, tokens[:50])
        told = f"With eval_tokens = 50 the loss is {loss:.4f}, on these tokens alone"
        assert best == pytest.approx(loss, abs=1e-6), f"{told}; it returns {best:.4f}."

    def test_it_trains_on_the_training_split_alone(self, impl, quick, tmp_path, monkeypatch):
        original, seen = training.get_batch, set()

        def get_batch(tokens, *args):
            seen.add(len(tokens))
            return original(tokens, *args)

        monkeypatch.setattr(training, "get_batch", get_batch)
        impl.train(quick, tmp_path / "run")
        text = Path(quick.corpus).read_text(encoding="utf-8")
        n = len(split_corpus(torch.arange(len(text)))[0])
        told = f"The training split has {n} tokens; batches are drawn from {sorted(seen)} of them"
        assert seen == {n}, f"{told}, and what it validates on must not be trained on."

    def test_batches_have_a_generator_of_their_own(self, impl, quick, tmp_path, monkeypatch):
        original, seen = training.get_batch, []

        def get_batch(*args):
            seen.append((args[-1] is torch.default_generator, args[-1].initial_seed()))
            return original(*args)

        monkeypatch.setattr(training, "get_batch", get_batch)
        impl.train(replace(quick, seed=7), tmp_path / "run")
        shared, seed = seen[0]
        assert not shared, "Batches must be drawn from a generator of their own, not PyTorch's."
        told = "The generator of the batches must be seeded by config.seed"
        assert seed == 7, f"{told}, 7; its seed is {seed}."

    def test_the_same_seed_gives_the_same_bytes(self, impl, quick, tmp_path):
        for name in ("one", "two"):
            impl.train(quick, tmp_path / name)
        told = "Two runs of the same seed end with other weights: something is drawn unseeded"
        assert weights(tmp_path / "one") == weights(tmp_path / "two"), f"{told}, or before seeding."

    def test_another_seed_gives_other_bytes(self, impl, quick, tmp_path):
        for seed in (1, 2):
            impl.train(replace(quick, seed=seed), tmp_path / f"{seed}")
        told = "Runs of the seeds 1 and 2 end with the same weights."
        assert weights(tmp_path / "1") != weights(tmp_path / "2"), told

    def test_its_config_has_the_vocabulary_of_the_text(self, impl, quick, finished):
        _, out = finished(impl)
        size = len(set(Path(quick.corpus).read_text(encoding="utf-8")))
        saved = read_run_config(out).model.vocab_size
        told = f"The text has {size} characters; the run's config.toml says vocab_size = {saved}"
        assert saved == size, f"{told}, and is not the config of the model that is trained."

    @pytest.mark.parametrize("length", [100, 160])
    def test_a_split_no_longer_than_the_context_is_refused(self, impl, quick, length, tmp_path):
        config = with_text(quick, tmp_path / "words.txt", length)  # a context of 16 tokens
        n = len(split_corpus(torch.arange(length))[1])
        told = f"A validation split of {n} tokens is not longer than the context of 16, and must be"
        try:
            impl.train(config, tmp_path / "run")
        except ValueError:
            left = (tmp_path / "run").exists()
            assert not left, f"{told} refused before the folder is claimed, which is there now."
        else:
            pytest.fail(f"{told} refused with a ValueError; it is accepted.")

    def test_a_split_one_token_longer_than_the_context_will_do(self, impl, quick, tmp_path):
        config = with_text(quick, tmp_path / "words.txt", 161)
        try:
            impl.train(config, tmp_path / "run")
        except ValueError as error:
            pytest.fail(f"A split of 17 tokens is longer than the context, 16; here: {error}")

    def test_what_was_measured_is_saved(self, impl, finished):
        _, out = finished(impl)
        last = load_checkpoint(out / "last")
        assert last["step"] == 5, f"After 5 steps last/ holds the state after step {last['step']}."
        loss = recorded(out, "val_loss")[5]
        told = f"After the last step {loss} was measured, and last/ was saved with"
        assert last["val_loss"] == loss, f"{told} {last['val_loss']}."

    def test_as_many_checkpoints_are_kept_as_the_config_says(self, impl, quick, tmp_path):
        impl.train(replace(quick, keep=2), tmp_path / "run")
        folder = tmp_path / "run" / "checkpoints"
        kept = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        assert len(kept) == 2, f"With keep = 2 checkpoints/ must hold two; it holds {kept}."

    def test_the_model_speaks_by_the_seed(self, impl, quick, tmp_path):
        config = replace(quick, seed=7, train=replace(quick.train, max_steps=1))
        impl.train(config, tmp_path / "run")
        told = "What the model says at an evaluation is not what it says with config.seed."
        said = recorded(tmp_path / "run", "sample")[1]
        assert said == speak(*load_run(tmp_path / "run"), seed=7), told

    def test_a_finished_run_resumes_to_itself(self, impl, quick, tmp_path):
        impl.train(quick, tmp_path / "run")
        before = weights(tmp_path / "run")
        impl.train(quick, tmp_path / "run", resume=True)
        step = load_checkpoint(tmp_path / "run" / "last")["step"]
        told = "A run that was over after 5 steps was resumed, and must stay as it is; now its"
        assert weights(tmp_path / "run") == before, f"{told} weights differ, after step {step}."

    def test_a_run_is_not_written_over(self, impl, quick, tmp_path):
        impl.train(quick, tmp_path / "run")
        before = weights(tmp_path / "run")
        try:
            impl.train(quick, tmp_path / "run")
        except ValueError:
            pass
        else:
            pytest.fail("A folder with a run in it, not to be resumed, must be a ValueError.")
        assert weights(tmp_path / "run") == before

    def test_a_run_killed_before_its_first_checkpoint_starts_again(self, impl, quick, tmp_path):
        claim_folder(tmp_path / "run", quick, resume=False)
        let_go(tmp_path / "run")
        try:
            impl.train(quick, tmp_path / "run", resume=True)
        except FileNotFoundError as error:
            pytest.fail(
                f"A run that was killed before its first checkpoint has none to restore, which "
                f"claim_folder says; it must start from the beginning. Here: {error}"
            )
        assert load_checkpoint(tmp_path / "run" / "last")["step"] == 5

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interruption_is_saved_after_its_step(
        self, impl, quick, number, tmp_path, monkeypatch
    ):
        cut_at(3, number, monkeypatch, impl.train, quick, tmp_path / "run")
        step = load_checkpoint(tmp_path / "run" / "last")["step"]
        told = (
            "Interrupted in step 3, a run must save last/ after it; the checkpoint in last/ is of"
        )
        assert step == 3, f"{told} step {step}."

    def test_an_interruption_in_the_last_step_comes_too_late(
        self, impl, quick, tmp_path, monkeypatch
    ):
        interrupt_at(monkeypatch, 5, signal.SIGINT)
        try:
            impl.train(quick, tmp_path / "run")
        except KeyboardInterrupt:
            pytest.fail(
                "Interrupted in its last step, a run is finished after it and must end as always; "
                "here it raises KeyboardInterrupt."
            )
        assert (tmp_path / "run" / "samples.md").exists()

    def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
        self, impl, quick, tmp_path, monkeypatch
    ):
        impl.train(quick, tmp_path / "whole")
        cut_at(3, signal.SIGINT, monkeypatch, impl.train, quick, tmp_path / "cut")
        impl.train(quick, tmp_path / "cut", resume=True)
        states = [load_checkpoint(tmp_path / name / "last") for name in ("cut", "whole")]
        steps = [state["step"] for state in states]
        assert steps == [5, 5], f"Runs of 5 steps, cut and whole, end with the steps {steps}."
        told = (
            "A run that was interrupted and resumed ends with other weights than one that was not"
        )
        assert weights(tmp_path / "cut") == weights(tmp_path / "whole"), f"{told}."

    def test_a_resumed_run_takes_the_steps_that_are_left(self, impl, quick, tmp_path, monkeypatch):
        cut_at(3, signal.SIGINT, monkeypatch, impl.train, quick, tmp_path / "run")
        original, taken = training.train_step, []
        monkeypatch.setattr(training, "train_step", lambda *a: taken.append(a) or original(*a))
        impl.train(quick, tmp_path / "run", resume=True)
        told = "Of 5 steps 3 were taken before it was interrupted; resumed, it must take 2"
        assert len(taken) == 2, f"{told}, and takes {len(taken)}."

    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
    def test_the_device_is_that_of_the_config(self, impl, quick, tmp_path):
        try:
            impl.train(replace(quick, device="cuda"), tmp_path / "run")
        except ValueError:
            return
        pytest.fail(
            "With device = 'cuda' a machine without a GPU must refuse with a ValueError; it trains."
        )

    def test_what_the_machine_chose_is_printed(self, impl, quick, tmp_path, monkeypatch, capsys):
        line = "Some GPU (sm_90): bfloat16"
        what = "tiny_transformer.engineering.speed.Arithmetic"
        monkeypatch.setattr(what, lambda *chosen: Arithmetic(*chosen[:3], line))
        impl.train(quick, tmp_path / "run")
        said = capsys.readouterr().out.count(line)
        assert said == 1, f"What choose_arithmetic has to say is printed {said} times, not once."

    @pytest.mark.parametrize("half", ["bf16", "fp16"])
    def test_it_trains_in_what_was_chosen(self, impl, quick, half, tmp_path, monkeypatch):
        original, seen = training.train_step, []

        def train_step(model, optimizer, inputs, targets, max_norm, accumulate, bf16, *scaler):
            seen.append((bf16, any(s is not None and s.is_enabled() for s in scaler)))
            return original(model, optimizer, inputs, targets, max_norm, accumulate, bf16, *scaler)

        monkeypatch.setattr(training, "train_step", train_step)
        best = impl.train(replace(quick, **{half: True}), tmp_path / "run")
        told = f"With {half} = True the steps get bf16 = {seen[0][0]} and"
        assert set(seen) == {(half == "bf16", half == "fp16")}, (
            f"{told} {'a' if seen[0][1] else 'no'} scaler that works on this device."
        )
        model, tokens = load_run(tmp_path / "run")[0], validation(quick, tmp_path / "run")
        loss = evaluate(model, tokens, bf16=half == "bf16")
        kept = "scaler" in load_checkpoint(tmp_path / "run" / "last")
        told = "the session, and with it last/, must have the scaler if there is one"
        assert kept == (half == "fp16"), f"With {half} = True {told}."
        told = f"It is evaluated in {'bfloat16' if half == 'bf16' else 'float32'} then"
        assert best == pytest.approx(loss, abs=1e-6), f"{told}: {loss}, not {best}."

    @pytest.mark.parametrize("compiled", [True, False])
    def test_its_steps_are_compiled_or_not(self, impl, quick, compiled, tmp_path, monkeypatch):
        original, seen = training.train_step, set()

        def train_step(model, *args):
            seen.add(isinstance(model, Compiled))
            return original(model, *args)

        what = "tiny_transformer.engineering.speed.compile_obstacle"
        monkeypatch.setattr(what, lambda device: "")
        monkeypatch.setattr(torch, "compile", lambda model, **_: Compiled(model))
        monkeypatch.setattr(training, "train_step", train_step)
        impl.train(replace(quick, compile=compiled), tmp_path / "run")
        told = f"With compile = {compiled} its steps train a model that is"
        assert seen == {compiled}, f"{told} {'not ' if compiled else ''}compiled."
        names = load_checkpoint(tmp_path / "run" / "last")["model"]
        named = [name for name in names if name.startswith("_orig_mod")]
        assert not named, f"The compiled model is saved, whose weights have names like {named[0]}."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "train")


def texts(page: str) -> list[str]:
    return re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)


@pytest.mark.exercise("gallery")
class TestGallery:
    def test_every_prompt_is_continued_by_every_strategy(self, impl, run):
        page = impl.gallery(*load_run(run), ["the cat", "a"], max_new_tokens=5)
        headings = [line for line in page.splitlines() if line.startswith("## ")]
        wanted = [f"## {strategy}" for strategy in STRATEGIES]
        assert headings == wanted, f"The headings are {headings}; they should be {wanted}."
        begun = [text.startswith(("the cat", "a")[i % 2]) for i, text in enumerate(texts(page))]
        told = f"Under each heading there should be a text of 'the cat' and one of 'a': {begun}"
        assert begun == [True, True] * len(STRATEGIES), told

    def test_no_strategy_depends_on_the_ones_before_it(self, impl, run, monkeypatch):
        before = impl.gallery(*load_run(run), ["a"], max_new_tokens=20)
        monkeypatch.delitem(STRATEGIES, list(STRATEGIES)[1])  # put back at the end, for others
        after = texts(impl.gallery(*load_run(run), ["a"], max_new_tokens=20))
        assert after == [text for i, text in enumerate(texts(before)) if i != 1], (
            "Without one strategy those behind it write other texts: they depend on what it has "
            "drawn, so their generator is not a new one, seeded by `seed`."
        )

    @pytest.mark.parametrize("seed", [1, 5])
    def test_each_strategy_draws_with_the_seed_and_its_own_options(self, impl, run, seed):
        model, tokenizer = load_run(run)
        page = impl.gallery(model, tokenizer, ["the"], max_new_tokens=12, seed=seed)
        tokens = torch.tensor([tokenizer.encode("the")])
        for text, (name, options) in zip(texts(page), STRATEGIES.items(), strict=True):
            generator = torch.Generator().manual_seed(seed)
            row = generate(model, tokens, 12, generator=generator, **options)[0]
            wanted = tokenizer.decode(row)
            told = f"With a new generator of seed {seed}, {name} continues 'the' as {wanted!r}"
            assert text == wanted, f"{told}; the page has {text!r}."

    def test_every_text_is_its_prompt_and_the_tokens_added(self, impl, run):
        page = impl.gallery(*load_run(run), ["the cat", "a"], max_new_tokens=5)
        lengths = [len(text) for text in texts(page)][:2]
        assert lengths == [7 + 5, 1 + 5], (
            f"With 5 tokens added, the text of 'the cat' has a length of 12 and that of 'a' of 6, "
            f"which ends before the row does; here the lengths are {lengths}."
        )

    def test_a_short_prompt_fares_alike_alone_and_beside_a_longer_one(self, impl, run):
        alone = impl.gallery(*load_run(run), ["a"], max_new_tokens=20)
        both = impl.gallery(*load_run(run), ["the cat", "a"], max_new_tokens=20)
        assert texts(alone)[0] == texts(both)[1][:21], (  # greedy, which draws nothing
            f"Alone, 'a' becomes {texts(alone)[0]!r}, and beside the longer 'the cat' "
            f"{texts(both)[1]!r}: it must be continued from its own end, not behind its padding."
        )

    def test_200_tokens_are_added_unless_it_is_told_otherwise(self, impl, run, monkeypatch):
        for name in list(STRATEGIES)[1:]:  # put back at the end, for others
            monkeypatch.delitem(STRATEGIES, name)
        page = impl.gallery(*load_run(run), ["a"])
        told = "Without max_new_tokens and seed they are 200 and 1; the page is"
        assert "\n200 tokens each, seed 1, unedited.\n" in page, f"{told} {page[:60]!r}..."
        assert len(texts(page)[0]) == 201, f"{told} with {len(texts(page)[0]) - 1} added."

    def test_the_page_is_made_of_its_parts(self, impl, run):
        page = impl.gallery(*load_run(run), ["the cat", "a"], max_new_tokens=5, seed=3)
        blocks = iter(texts(page))
        parts = ["# Gallery", "5 tokens each, seed 3, unedited."]
        for name in STRATEGIES:
            parts += [f"## {name}", *(f"```text\n{next(blocks, '')}\n```" for _ in range(2))]
        wanted = "\n\n".join(parts) + "\n"
        assert page.endswith("\n"), "The page lacks the end of line at its end."
        ours, theirs = page.split("\n"), wanted.split("\n")
        line = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
        assert page == wanted, f"Line {line + 1} is {ours[line]!r}; it should be {theirs[line]!r}."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "gallery")


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

    def test_the_loss_curve_is_a_picture(self, run):
        assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")

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
        self, brief, tmp_path, monkeypatch, optimizer
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

    def test_a_run_goes_on_in_what_the_machine_is_best_at(self, brief, tmp_path, monkeypatch):
        out, half = tmp_path / "run", Arithmetic(False, True, False)
        for arithmetic in (None, half, None):  # moved to another machine, and back
            with monkeypatch.context() as patch:
                if arithmetic:
                    what = "tiny_transformer.capstone.reference.choose_arithmetic"
                    patch.setattr(what, lambda config, device: half)
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
        monkeypatch.setattr(what, lambda config, device: use)
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
    def test_the_same_seed_gives_the_same_bytes(self, config, run, tmp_path):
        train(config, tmp_path / "again")
        assert weights(tmp_path / "again") == weights(run)

    def test_another_seed_gives_another_model(self, config, run, tmp_path):
        train(replace(config, seed=2), tmp_path / "other")
        assert weights(tmp_path / "other") != weights(run)

    def test_how_often_the_run_is_watched_does_not_change_it(self, config, run, tmp_path):
        train(replace(config, log_every=1, eval_every=5), tmp_path / "watched")
        assert weights(tmp_path / "watched") == weights(run)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupted_run_resumes_to_the_same_bytes(
        self, config, run, tmp_path, monkeypatch, number
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

    def test_a_run_with_muon_resumes_to_the_same_bytes(self, brief, tmp_path, monkeypatch):
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
        self, config, run, tmp_path, monkeypatch
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

    def test_a_killed_process_resumes_to_the_same_bytes(self, corpus, tmp_path, monkeypatch):
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
        self, config, run, corpus, tmp_path, monkeypatch, shorts
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

    def test_a_changed_corpus_is_an_error(self, config, tmp_path):
        text = tmp_path / "words.txt"
        text.write_text("to be or not to be " * 50, encoding="utf-8")
        config = replace(config, corpus=str(text))
        train(config, tmp_path / "run")
        text.write_text("or not to be or to " * 50, encoding="utf-8")
        with pytest.raises(ValueError, match="corpus is not the text"):
            train(config, tmp_path / "run", resume=True)

    def test_a_run_is_never_overwritten(self, config, run):
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

    def test_resuming_nothing_starts_from_the_beginning(self, config, run, tmp_path, capsys):
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
    def test_what_is_no_number_is_not_saved_over_what_is(self, brief, tmp_path, monkeypatch, where):
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
        texts = [command("sample", "--run", run, "--prompt", "a", "--seed", s) for s in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]

    def test_a_draft_changes_nothing_but_the_time(self, command, run):
        args = ("sample", "--run", run, "--prompt", "a", "--tokens", 90)
        assert command(*args, "--draft") == command(*args)

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

    def test_ctrl_c_says_how_to_go_on(self, command, corpus, tmp_path, monkeypatch):
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
