"""The capstone from a learner's exercises: all of them, some of them, and wrong ones."""

import ast
import importlib.util
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tiny_transformer.capstone import mine, reference
from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.engineering.reference import load_checkpoint
from tiny_transformer.setup.grading.progress import folders
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import TrainConfig, train_step

ROOT = Path(__file__).parents[2]
ALL = folders(ROOT)
CLASSIC = ModelConfig(max_len=16, d_model=16, n_layers=2, n_heads=2, d_ff=32)
MODERN = replace(CLASSIC, positions="rope", norm="rms", bias=False)


@pytest.fixture
def solve(tmp_path, monkeypatch):
    """Make a copy of the course in which the exercises of some modules are solved."""

    def solve_some(solved: list[str], mistakes: dict[str, tuple[str, str]] | None = None) -> None:
        for folder in ALL:
            (tmp_path / folder / "tests").mkdir(parents=True)
            for test in (ROOT / folder / "tests").glob("test_*.py"):
                shutil.copy(test, tmp_path / folder / "tests")
            text = (ROOT / folder / "tests" / "solved.py").read_text(encoding="utf-8")
            if folder not in solved:
                text = stubs_of(text)
            right, wrong = (mistakes or {}).get(folder, ("", ""))
            assert right in text
            file = tmp_path / folder / "exercises.py"
            file.write_text(text.replace(right, wrong, 1), encoding="utf-8")
            name = f"tiny_transformer.{folder[3:]}.exercises"
            spec = importlib.util.spec_from_file_location(name, file)
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        monkeypatch.setattr(mine, "ROOT", tmp_path)

    return solve_some


def stubs_of(text: str) -> str:
    """The same file before anything in it was written."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = ast.parse("raise NotImplementedError").body
    return ast.unparse(tree)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    words = "the cat sat on a mat and saw that it was a good mat to sit on".split()
    chance = random.Random(0)
    corpus = tmp_path_factory.mktemp("corpus") / "words.txt"
    corpus.write_text(" ".join(chance.choices(words, k=800)), encoding="utf-8")
    steps = TrainConfig(batch_size=8, max_steps=12, warmup_steps=2, max_lr=1e-2)
    return replace(PRESETS["smoke"], corpus=str(corpus), eval_every=6, model=CLASSIC, train=steps)


def trained(config, out: Path) -> tuple[float, dict[str, torch.Tensor]]:
    return reference.train(config, out), load_checkpoint(out / "last")["model"]


@pytest.mark.parametrize("model", [CLASSIC, MODERN], ids=["classic", "modern"])
def test_a_run_of_your_own_throughout_ends_where_the_reference_ends(solve, config, model, tmp_path):
    config = replace(config, model=model)
    loss, weights = trained(config, tmp_path / "reference")
    solve(ALL)
    with mine.your_parts() as table:
        your_loss, your_weights = trained(config, tmp_path / "mine")
    assert "reference" not in table
    assert your_loss == pytest.approx(loss, abs=1e-3)
    assert your_weights.keys() == weights.keys()


def test_your_weights_speak_the_same_in_the_reference(solve, config, tmp_path):
    solve(ALL)
    with mine.your_parts():
        reference.train(config, tmp_path / "mine")
        yours, tokenizer = reference.load_run(tmp_path / "mine")
    ours, _ = reference.load_run(tmp_path / "mine")
    assert type(yours) is not type(ours)
    tokens = torch.tensor([tokenizer.encode("the cat sat")])
    torch.testing.assert_close(yours(tokens), ours(tokens))


def test_where_the_operations_are_the_same_so_is_every_bit(solve, config, tmp_path):
    _, weights = trained(config, tmp_path / "reference")
    solve(["07_sampling", "08_engineering", "09_capstone"])
    with mine.your_parts():
        _, your_weights = trained(config, tmp_path / "mine")
    assert all(torch.equal(your_weights[name], weights[name]) for name in weights)


def test_what_is_not_started_is_the_reference_and_the_table_says_so(solve, config, tmp_path):
    solve(
        ALL[:3],
        {
            "02_multihead": (
                "return torch.special.entr(weights).sum(-1)",
                "raise NotImplementedError",
            )
        },
    )
    with mine.your_parts() as table:
        assert reference.train(config, tmp_path / "mine") < 3
    lines = [line.split(maxsplit=2) for line in table.splitlines()]
    assert ["02_multihead", "yours", "split_heads, merge_heads, MultiHeadAttention"] in lines
    assert ["02_multihead", "reference", "attention_entropy"] in lines
    assert {folder for folder, whose, _ in lines if whose == "yours"} == set(ALL[:3])


def test_a_half_written_class_counts_as_not_started(solve):
    solve(
        ALL[:4],
        {
            "03_transformer_block": (
                "return self.drop(self.down(gelu(self.up(x))))",
                "raise NotImplementedError",
            )
        },
    )
    with mine.your_parts() as table:
        pass
    assert "03_transformer_block  reference  FeedForward" in table


@pytest.mark.parametrize(
    "folder, right, wrong, told",
    [
        ("01_attention", "* d_k**-0.5", "", "not scaled"),
        ("02_multihead", "permute(0, 2, 1, 3).reshape(B, T", "reshape(B, T", "merge_heads"),
        (
            "06_training",
            "inputs, targets\n\n\ndef cross",
            "inputs, inputs\n\n\ndef cross",
            "get_batch",
        ),
    ],
)
def test_a_wrong_exercise_stops_with_its_diagnosis(solve, folder, right, wrong, told):
    solve(ALL, {folder: (right, wrong)})
    with pytest.raises(
        ValueError, match=rf"^{folder}/exercises.py:\d+: \w+ is not right yet\.\n"
    ) as error:
        with mine.your_parts():
            pass
    assert told in str(error.value)


@pytest.mark.parametrize(
    "option", [dict(accumulate=2), dict(bf16=True), dict(scaler=torch.amp.GradScaler("cpu"))]
)
def test_a_train_step_of_yours_is_not_asked_for_what_its_exercise_does_without(option):
    step = mine.fitted(train_step, lambda *args: "trained")
    assert step(None, None, None, None, 1.0) == "trained"
    with pytest.raises(ValueError, match="whole batches in float32.*accumulate, bf16 or fp16"):
        step(None, None, None, None, 1.0, **option)


def test_afterwards_the_references_stand_where_they_stood(solve):
    before = reference.build_model, reference.TinyTransformerLM, reference.generate
    solve(ALL)
    with mine.your_parts():
        assert reference.build_model is not before[0]
    assert (reference.build_model, reference.TinyTransformerLM, reference.generate) == before


def test_a_run_of_yours_resumes_to_the_same_bytes(solve, config, tmp_path, monkeypatch):
    solve(ALL)
    with mine.your_parts():
        _, whole = trained(config, tmp_path / "whole")
        evaluate, done = reference.evaluate, []
        exercises = sys.modules["tiny_transformer.capstone.exercises"]

        def fail_once(*args):
            if done:
                raise OSError("the disk is full")
            done.append(1)
            return evaluate(*args)

        with monkeypatch.context() as patch:
            patch.setattr(exercises, "evaluate", fail_once)
            with pytest.raises(OSError):
                reference.train(config, tmp_path / "cut")
        reference.train(config, tmp_path / "cut", resume=True)
    cut = load_checkpoint(tmp_path / "cut" / "last")["model"]
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_weights_of_other_names_are_told(solve, config):
    solve(
        ALL,
        {
            "05_tiny_lm": (
                "self.config = config",
                'self.config = config\n        self.register_buffer("spare", torch.ones(1))',
            )
        },
    )
    with pytest.raises(ValueError, match=r"has \['spare'\]"):
        with mine.your_parts():
            reference.build_model(config.model, "abc")
