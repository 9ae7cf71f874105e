"""Module 09. `impl` is the reference in one run of each test and your exercises in the other."""

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_transformer.capstone.reference import STRATEGIES, build_model, load_run
from tiny_transformer.capstone.report import speak
from tiny_transformer.capstone.session import Session, claim_folder, let_go
from tiny_transformer.engineering.config import RunConfig, read_run_config
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint
from tiny_transformer.engineering.speed import Arithmetic
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training import reference as training
from tiny_transformer.training.reference import evaluate, split_corpus


@pytest.mark.exercise("build_model")
class TestBuildModel:
    @pytest.mark.parametrize("vocab_size", [3, 65])
    def test_the_vocabulary_is_that_of_the_text(self, impl, vocab_size):
        model, tokenizer = impl.build_model(ModelConfig(vocab_size=vocab_size), "to be or not")
        told = "It should return the model first and then the tokenizer."
        assert isinstance(model, torch.nn.Module), told
        ours = tokenizer.characters
        wanted = sorted(set("to be or not"))
        assert ours == wanted, f"The tokenizer has the characters {ours}; the text has {wanted}."
        assert model.config.vocab_size == 7, (
            f"The text has 7 different characters, and the model a vocab_size of "
            f"{model.config.vocab_size}; the config said {vocab_size}, which must not count."
        )
        shape = tuple(model(torch.tensor([tokenizer.encode("to")])).shape)
        assert shape == (1, 2, 7), f"Of 2 tokens the model gives logits {shape}, not (1, 2, 7)."

    def test_its_weights_are_drawn_anew(self, impl):
        drawn = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            model, _ = impl.build_model(ModelConfig(d_model=8, n_heads=2), "to be or not")
            drawn.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert not drawn[0].equal(drawn[1]), (
            "After the seeds 1 and 2 the model begins with the same weights: they should be drawn "
            "from PyTorch's random state as it is, which `train` seeds."
        )
        told = "After the same seed the model begins with other weights than before."
        assert drawn[0].equal(drawn[2]), told

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
def once(quick):
    """A run of a single step."""
    return replace(quick, train=replace(quick.train, max_steps=1))


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


@pytest.fixture(scope="session")
def cut(quick, interrupt_at, tmp_path_factory) -> Callable[[Any, int], Path]:
    """Gives a quick run of an implementation, interrupted in step 3, made once for each signal."""
    runs = {}

    def of(impl: Any, number: int = signal.SIGINT) -> Path:
        if (impl.train, number) in runs:
            return runs[impl.train, number]
        out = tmp_path_factory.mktemp("cut") / "run"
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # it would end pytest
        try:
            with pytest.MonkeyPatch.context() as patch:
                interrupt_at(patch, 3, number)
                impl.train(quick, out)
        except KeyboardInterrupt:
            runs[impl.train, number] = out
            return out
        finally:
            signal.signal(signal.SIGTERM, before)
        pytest.fail("A run that was interrupted in step 3 must raise KeyboardInterrupt after it.")

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
        steps = [record["step"] for record in MetricsLog(out / "metrics.jsonl").read()]
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

    def test_what_was_measured_is_saved(self, impl, finished):
        _, out = finished(impl)
        last, measured = load_checkpoint(out / "last"), recorded(out, "val_loss")
        assert last["step"] == 5, f"After 5 steps last/ holds the state after step {last['step']}."
        saved = last["val_loss"]
        when = next((f", that of step {k}" for k, v in measured.items() if v == saved), "")
        assert saved == measured[5], (
            f"After the last step, 5, a validation loss of {measured[5]} was reported, and last/ "
            f"was saved with {saved}{when}. First the session is given what was measured, then it "
            "saves."
        )

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

    def test_only_the_first_eval_tokens_of_the_validation_split_count(self, impl, once, tmp_path):
        config = replace(once, eval_tokens=50)
        best = impl.train(config, tmp_path / "run")
        model, tokens = load_run(tmp_path / "run")[0], validation(config, tmp_path / "run")
        loss = evaluate(model, tokens[:50])
        told = f"With eval_tokens = 50 the loss is {loss:.4f}, on these tokens alone"
        assert best == pytest.approx(loss, abs=1e-6), f"{told}; it returns {best:.4f}."

    def test_it_trains_on_the_training_split_alone(self, impl, once, tmp_path, monkeypatch):
        original, seen = training.get_batch, set()

        def get_batch(tokens, *args):
            seen.add(len(tokens))
            return original(tokens, *args)

        monkeypatch.setattr(training, "get_batch", get_batch)
        impl.train(once, tmp_path / "run")
        text = Path(once.corpus).read_text(encoding="utf-8")
        n = len(split_corpus(torch.arange(len(text)))[0])
        told = f"The training split has {n} tokens; batches are drawn from {sorted(seen)} of them"
        assert seen == {n}, f"{told}, and what it validates on must not be trained on."

    def test_batches_have_a_generator_of_their_own(self, impl, once, tmp_path, monkeypatch):
        original, seen = training.get_batch, []

        def get_batch(*args):
            seen.append((args[-1] is torch.default_generator, args[-1].initial_seed()))
            return original(*args)

        monkeypatch.setattr(training, "get_batch", get_batch)
        impl.train(replace(once, seed=7), tmp_path / "run")
        shared, seed = seen[0]
        assert not shared, "Batches must be drawn from a generator of their own, not PyTorch's."
        told = "The generator of the batches must be seeded by config.seed"
        assert seed == 7, f"{told}, 7; its seed is {seed}."

    def test_the_same_seed_gives_the_same_bytes(self, impl, quick, finished, tmp_path, weights):
        _, out = finished(impl)
        torch.manual_seed(9)  # whatever was drawn before
        impl.train(quick, tmp_path / "again")
        told = "Two runs of the same seed end with other weights: something is drawn unseeded"
        assert weights(tmp_path / "again") == weights(out), f"{told}, or before seeding."

    def test_another_seed_gives_other_bytes(self, impl, quick, finished, tmp_path, weights):
        _, out = finished(impl)
        other = quick.seed + 1
        impl.train(replace(quick, seed=other), tmp_path / "other")
        told = f"Runs of the seeds {quick.seed} and {other} end with the same weights."
        assert weights(tmp_path / "other") != weights(out), told

    def test_the_first_weights_are_drawn_by_the_seed(self, impl, once, tmp_path, monkeypatch):
        original, first = training.train_step, []

        def train_step(model, *args):
            first.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
            return original(model, *args)

        monkeypatch.setattr(training, "train_step", train_step)
        for seed in (1, 2):
            impl.train(replace(once, seed=seed), tmp_path / f"{seed}")
        assert not first[0].equal(first[1]), (
            "Runs of the seeds 1 and 2 begin with the same weights: the random states are not set "
            "by config.seed before the model is built."
        )

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

    @pytest.mark.parametrize("count", [None, 10])
    def test_a_split_one_token_longer_than_the_context_will_do(self, impl, once, count, tmp_path):
        config = replace(with_text(once, tmp_path / "words.txt", 161), eval_tokens=count)
        told = "A split of 17 tokens is longer than the context, 16"
        if count:
            told += f", and will do; with eval_tokens = {count} the first {count} of it count"
        try:
            impl.train(config, tmp_path / "run")
        except ValueError as error:
            pytest.fail(f"{told}. Here: {error}")

    def test_an_evaluation_is_reported_before_it_is_saved(self, impl, once, tmp_path, monkeypatch):
        original, found = Session.save_evaluated, []

        def save_evaluated(session: Session, out: Path, keep: int) -> None:
            found.append(list(recorded(out, "val_loss")))
            original(session, out, keep)

        monkeypatch.setattr(Session, "save_evaluated", save_evaluated)
        impl.train(once, tmp_path / "run")
        assert found, "After its evaluation a run must be saved by session.save_evaluated."
        assert found == [[1]], (
            "Evaluated after its only step, a run must report that, and then save; when it saves, "
            "metrics.jsonl does not have the validation loss yet. A kill in between would leave a "
            "run that goes on from here and has never told what it measured."
        )

    def test_as_many_checkpoints_are_kept_as_the_config_says(self, impl, quick, tmp_path):
        impl.train(replace(quick, keep=2), tmp_path / "run")
        folder = tmp_path / "run" / "checkpoints"
        kept = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        assert len(kept) == 2, f"With keep = 2 checkpoints/ must hold two; it holds {kept}."

    def test_the_model_speaks_by_the_seed(self, impl, once, tmp_path):
        impl.train(replace(once, seed=7), tmp_path / "run")
        told = "What the model says at an evaluation is not what it says with config.seed."
        said = recorded(tmp_path / "run", "sample")[1]
        assert said == speak(*load_run(tmp_path / "run"), seed=7), told

    def test_a_finished_run_resumes_to_itself(self, impl, quick, finished, tmp_path, weights):
        shutil.copytree(finished(impl)[1], tmp_path / "run")
        before = weights(tmp_path / "run")
        impl.train(quick, tmp_path / "run", resume=True)
        step = load_checkpoint(tmp_path / "run" / "last")["step"]
        told = "A run that was over after 5 steps was resumed, and must stay as it is; now its"
        assert weights(tmp_path / "run") == before, f"{told} weights differ, after step {step}."

    def test_a_run_is_not_written_over(self, impl, quick, finished, tmp_path, weights):
        shutil.copytree(finished(impl)[1], tmp_path / "run")
        before = weights(tmp_path / "run")
        try:
            impl.train(quick, tmp_path / "run")
        except ValueError:
            pass
        else:
            pytest.fail("A folder with a run in it, not to be resumed, must be a ValueError.")
        told = (
            "A folder with a run in it, not to be resumed, is refused, and yet its weights change."
        )
        assert weights(tmp_path / "run") == before, told

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
        step = load_checkpoint(tmp_path / "run" / "last")["step"]
        assert step == 5, f"It must take all 5 steps then; last/ is of step {step}."

    @pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
    def test_an_interruption_is_saved_after_its_step(self, impl, cut, sent):
        step = load_checkpoint(cut(impl, getattr(signal, sent)) / "last")["step"]
        told = (
            "Interrupted in step 3, a run must save last/ after it; the checkpoint in last/ is of"
        )
        assert step == 3, f"{told} step {step}."

    def test_an_interruption_in_the_last_step_comes_too_late(
        self, impl, quick, tmp_path, monkeypatch, interrupt_at
    ):
        interrupt_at(monkeypatch, 5, signal.SIGINT)
        try:
            impl.train(quick, tmp_path / "run")
        except KeyboardInterrupt:
            pytest.fail(
                "Interrupted in its last step, a run is finished after it and must end as always; "
                "here it raises KeyboardInterrupt."
            )
        told = "Interrupted in its last step, a run must end as always; here samples.md is missing."
        assert (tmp_path / "run" / "samples.md").exists(), told

    def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
        self, impl, quick, finished, cut, tmp_path, weights
    ):
        whole, out = finished(impl)[1], tmp_path / "cut"
        shutil.copytree(cut(impl), out)
        impl.train(quick, out, resume=True)
        steps = [load_checkpoint(run / "last")["step"] for run in (out, whole)]
        assert steps == [5, 5], f"Runs of 5 steps, cut and whole, end with the steps {steps}."
        told = (
            "A run that was interrupted and resumed ends with other weights than one that was not"
        )
        assert weights(out) == weights(whole), f"{told}."
        reported = list(recorded(out, "train_loss"))
        assert reported == [1, 2, 3, 4, 5], (
            "A run of 5 steps was interrupted in step 3 and resumed; metrics.jsonl has the "
            f"training loss after {reported}. A step is reported before it is saved."
        )

    def test_a_resumed_run_takes_the_steps_that_are_left(
        self, impl, quick, cut, tmp_path, monkeypatch
    ):
        shutil.copytree(cut(impl), tmp_path / "run")
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

    def test_what_the_machine_chose_is_printed(self, impl, once, tmp_path, monkeypatch, capsys):
        line = "Some GPU (sm_90): bfloat16"
        what = "tiny_transformer.engineering.speed.Arithmetic"
        monkeypatch.setattr(what, lambda *chosen: Arithmetic(*chosen[:3], line))
        impl.train(once, tmp_path / "run")
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
        other = evaluate(model, tokens, bf16=half != "bf16")
        kinds = ("bfloat16", "float32") if half == "bf16" else ("float32", "bfloat16")
        told = f", which is the one in {kinds[1]}" if best == pytest.approx(other, abs=1e-6) else ""
        assert best == pytest.approx(loss, abs=1e-6), (
            f"With {half} = True the validation loss is to be measured in {kinds[0]}, where it is "
            f"{loss}; yours is {best}{told}."
        )

    @pytest.mark.parametrize("compiled", [True, False])
    def test_its_steps_are_compiled_or_not(self, impl, once, compiled, tmp_path, monkeypatch):
        original, seen = training.train_step, set()

        def train_step(model, *args):
            seen.add(isinstance(model, Compiled))
            return original(model, *args)

        what = "tiny_transformer.engineering.speed.compile_obstacle"
        monkeypatch.setattr(what, lambda device: "")
        monkeypatch.setattr(torch, "compile", lambda model, **_: Compiled(model))
        monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
        monkeypatch.setattr(training, "train_step", train_step)
        impl.train(replace(once, compile=compiled), tmp_path / "run")
        told = f"With compile = {compiled} its steps train a model that is"
        assert seen == {compiled}, f"{told} {'not ' if compiled else ''}compiled."
        names = load_checkpoint(tmp_path / "run" / "last")["model"]
        named = [name for name in names if name.startswith("_orig_mod")]
        assert not named, f"The compiled model is saved, whose weights have names like {named[0]}."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "train")


def texts(page: str) -> list[str]:
    return re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)


@pytest.fixture
def speaker(config) -> tuple[torch.nn.Module, Any]:
    """A model and its tokenizer. Fresh weights would give all tokens nearly the same score."""
    text = Path(config.corpus).read_text(encoding="utf-8")
    model, tokenizer = build_model(replace(config.model, n_layers=1), text)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / 2)
    return model.eval(), tokenizer


@pytest.mark.exercise("gallery")
class TestGallery:
    def test_every_prompt_is_continued_by_every_strategy(self, impl, speaker):
        page = impl.gallery(*speaker, ["the cat", "a"], max_new_tokens=5)
        headings = [line for line in page.splitlines() if line.startswith("## ")]
        wanted = [f"## {strategy}" for strategy in STRATEGIES]
        assert headings == wanted, f"The headings are {headings}; they should be {wanted}."
        found = texts(page)
        told = (
            f"With {len(STRATEGIES)} strategies and 2 prompts there should be twice as many texts"
        )
        assert len(found) == 2 * len(STRATEGIES), f"{told}; there are {len(found)}."
        for i, text in enumerate(found):
            heading, prompt = wanted[i // 2], ("the cat", "a")[i % 2]
            assert text.startswith(prompt), (
                f"Text {i % 2 + 1} under '{heading}' should begin with its prompt, {prompt!r}; it "
                f"is {text!r}."
            )

    def test_no_strategy_depends_on_the_ones_before_it(self, impl, speaker, monkeypatch):
        before = impl.gallery(*speaker, ["a"], max_new_tokens=20)
        monkeypatch.delitem(STRATEGIES, list(STRATEGIES)[1])  # put back at the end, for others
        after = texts(impl.gallery(*speaker, ["a"], max_new_tokens=20))
        assert after == [text for i, text in enumerate(texts(before)) if i != 1], (
            "Without one strategy those behind it write other texts: they depend on what it has "
            "drawn, so their generator is not a new one, seeded by `seed`."
        )

    @pytest.mark.parametrize("seed", [1, 5])
    def test_each_strategy_draws_with_the_seed_and_its_own_options(self, impl, speaker, seed):
        model, tokenizer = speaker
        page = impl.gallery(model, tokenizer, ["the"], max_new_tokens=12, seed=seed)
        tokens = torch.tensor([tokenizer.encode("the")])
        for text, (name, options) in zip(texts(page), STRATEGIES.items(), strict=True):
            generator = torch.Generator().manual_seed(seed)
            row = generate(model, tokens, 12, generator=generator, **options)[0]
            wanted = tokenizer.decode(row)
            generator = torch.Generator().manual_seed(seed)
            plain = tokenizer.decode(generate(model, tokens, 12, generator=generator)[0])
            assert text == wanted or text != plain, (
                f"Under '{name}' the text is the one that comes without {options}, its options."
            )
            told = f"With a new generator of seed {seed}, {name} continues 'the' as {wanted!r}"
            assert text == wanted, f"{told}; the page has {text!r}."

    def test_the_prompts_of_a_strategy_are_one_batch(self, impl, speaker):
        model, tokenizer = speaker
        page = iter(texts(impl.gallery(model, tokenizer, ["the", "the"], max_new_tokens=12)))
        batch = torch.tensor([tokenizer.encode("the")] * 2)
        for name, options in STRATEGIES.items():
            generator = torch.Generator().manual_seed(1)
            rows = generate(model, batch, 12, generator=generator, **options)
            ours, wanted = [next(page), next(page)], [tokenizer.decode(row) for row in rows]
            assert ours == wanted, (
                f"Under '{name}' the prompt 'the', given twice, becomes {ours}. As one batch, "
                f"which draws from one generator, the two become {wanted}."
            )

    def test_pytorch_s_random_state_stays_as_it_was(self, impl, speaker):
        before = torch.get_rng_state()
        impl.gallery(*speaker, ["a"], max_new_tokens=2)
        assert torch.get_rng_state().equal(before), (
            "PyTorch's random state is another after the gallery: what is drawn should come from a "
            "generator of its own, not from the one that everything shares."
        )

    def test_every_text_is_its_prompt_and_the_tokens_added(self, impl, speaker):
        page = impl.gallery(*speaker, ["the cat", "a"], max_new_tokens=5)
        lengths = [len(text) for text in texts(page)][:2]
        assert lengths == [7 + 5, 1 + 5], (
            f"With 5 tokens added, the text of 'the cat' has a length of 12 and that of 'a' of 6, "
            f"which ends before the row does; here the lengths are {lengths}."
        )

    def test_a_short_prompt_fares_alike_alone_and_beside_a_longer_one(self, impl, speaker):
        alone = impl.gallery(*speaker, ["a"], max_new_tokens=20)
        both = impl.gallery(*speaker, ["the cat", "a"], max_new_tokens=20)
        assert texts(alone)[0] == texts(both)[1][:21], (  # greedy, which draws nothing
            f"Alone, 'a' becomes {texts(alone)[0]!r}, and beside the longer 'the cat' "
            f"{texts(both)[1]!r}: it must be continued from its own end, not behind its padding."
        )

    def test_200_tokens_are_added_unless_it_is_told_otherwise(self, impl, speaker, monkeypatch):
        for name in list(STRATEGIES)[1:]:  # put back at the end, for others
            monkeypatch.delitem(STRATEGIES, name)
        page = impl.gallery(*speaker, ["a"])
        told = "Without max_new_tokens and seed they are 200 and 1; the page is"
        assert "\n200 tokens each, seed 1, unedited.\n" in page, f"{told} {page[:60]!r}..."
        assert len(texts(page)[0]) == 201, f"{told} with {len(texts(page)[0]) - 1} added."
        added = len(texts(impl.gallery(*speaker, ["a"], max_new_tokens=202))[0]) - 1
        assert added == 202, f"With max_new_tokens = 202 as many are added; here {added}."

    def test_the_page_is_made_of_its_parts(self, impl, speaker):
        page = impl.gallery(*speaker, ["the cat", "a"], max_new_tokens=5, seed=3)
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
