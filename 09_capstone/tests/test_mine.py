"""The capstone from a learner's exercises: all of them, some, wrong ones, and all but the doors."""

import ast
import importlib.util
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from tiny_transformer.capstone import doors, mine, reference, report
from tiny_transformer.engineering import speed
from tiny_transformer.engineering.config import PRESETS, RunConfig, write_config
from tiny_transformer.engineering.reference import load_checkpoint, override
from tiny_transformer.engineering.speed import choose_arithmetic
from tiny_transformer.sampling import reference as sampling
from tiny_transformer.setup.grading.progress import folders, graded, read_exercises, remember
from tiny_transformer.setup.links import lead
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import TrainConfig

ROOT = Path(__file__).parents[2]
ALL = folders(ROOT)
CLASSIC = ModelConfig(max_len=16, d_model=16, n_layers=2, n_heads=2, d_ff=32)
DOORS = {
    "rotate": None,
    "remember": None,
    "start": 0,
    "cache": None,
    "accumulate": 1,
    "bf16": False,
    "scaler": None,
    "lengths": None,
    "use_cache": False,  # as one does who has not come to the cache
}


def stubs_of(text: str) -> str:
    """The same file before anything in it was written."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = ast.parse("raise NotImplementedError").body
    return ast.unparse(tree)


def deaf(text: str) -> str:
    """The same file, in which no function hears what comes through a door."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for name in sorted({arg.arg for arg in node.args.args} & DOORS.keys()):
                node.body[:0] = ast.parse(f"{name} = {DOORS[name]}").body
    return ast.unparse(tree)


def without_doors(text: str) -> str:
    """The same file, in which no function has a door."""
    tree = ast.parse(deaf(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            args, optional = node.args.args, len(node.args.args) - len(node.args.defaults)
            kept = [i for i, arg in enumerate(args) if arg.arg not in DOORS or i < optional]
            node.args.defaults = [node.args.defaults[i - optional] for i in kept if i >= optional]
            node.args.args = [args[i] for i in kept]
    return ast.unparse(tree)


@cache
def changed(folder: str, change: Callable[[str], str]) -> str:
    return change((ROOT / folder / "tests" / "solved.py").read_text(encoding="utf-8"))


@pytest.fixture
def solve(tmp_path, monkeypatch):
    """Make a copy of the course in which the exercises of some modules are solved."""

    def solve_some(solved=ALL, mistakes=None, change=str) -> None:
        for folder in ALL:
            (tmp_path / folder).mkdir()
            lead(tmp_path / folder / "tests", ROOT / folder / "tests")
            text = changed(folder, change if folder in solved else stubs_of)
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


@pytest.fixture
def trusting(monkeypatch):
    """The diagnosis of 55 exercises takes longer than all that these tests are about."""
    monkeypatch.setattr(mine, "is_right", lambda *_: True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    words = "the cat sat on a mat and saw that it was a good mat to sit on".split()
    file = tmp_path_factory.mktemp("corpus") / "words.txt"
    file.write_text(" ".join(random.Random(0).choices(words, k=800)), encoding="utf-8")
    return str(file)


@pytest.fixture
def config(corpus):
    steps = TrainConfig(batch_size=8, max_steps=12, warmup_steps=2, max_lr=1e-2)
    return replace(PRESETS["smoke"], corpus=corpus, eval_every=6, model=CLASSIC, train=steps)


def shrunk(preset: str, corpus: str):
    """A preset with all its switches, for seconds on a CPU; not compiled, which takes longer."""
    small = {"max_len": 16, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
    steps = {"max_steps": 4, "warmup_steps": 2, "batch_size": 4 * PRESETS[preset].train.accumulate}
    settings = {"device": "cpu", "compile": False, "corpus": corpus, "eval_every": 2, "mine": True}
    return override(PRESETS[preset], {**settings, "model": small, "train": steps})


def trained(config, out: Path) -> tuple[float, dict[str, torch.Tensor]]:
    return reference.train(config, out), load_checkpoint(out / "last")["model"]


def rows(table: str) -> dict[str, str]:
    """Whose each exercise is, by the table."""
    whose, label = {}, ""
    for line in table.splitlines():
        if line[:2].isdigit() or line.startswith(" "):
            label = line[22:44].strip() or label  # long lists go on in the next line
            whose |= {name.strip(): label for name in line[44:].split(",") if name}
    return whose


def used(table: str) -> set[str]:
    return {name for name, label in rows(table).items() if label == "yours, in this run"}


def notes(table: str) -> str:
    """What stands below the table, in one line."""
    return " ".join(
        line for line in table.splitlines() if not line[:1].isdigit() and line[:1] != " "
    )


def sampled(run: Path, use_cache: bool) -> torch.Tensor:
    """Past the context, where the window moves on."""
    model, _ = reference.load_run(run)
    prompt = torch.zeros(2, 3, dtype=torch.long)
    return sampling.generate(model, prompt, 24, temperature=0, use_cache=use_cache)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_what_you_wrote_and_your_cache_changes_no_token(
    solve, trusting, corpus, tmp_path, preset
):
    config = shrunk(preset, corpus)
    solve()
    rehearsal = partial(mine.rehearse, config)
    with mine.your_parts(config, doors.of_training(config), rehearsal) as table:
        best, _ = trained(config, tmp_path / "mine")
        assert sampled(tmp_path / "mine", True).equal(sampled(tmp_path / "mine", False))
    assert best < 4
    assert "reference" not in rows(table).values()
    unused = {name for name, label in rows(table).items() if label == "yours, not used here"}
    model, train = config.model, config.train
    assert {
        "FeedForward": model.activation == "relu2",
        "LayerNorm": model.norm == "rms",
        "RMSNorm": model.norm == "layer",
        "LearnedPositions": model.positions != "learned",
        "rotate": model.positions != "rope",
        "AdamW": train.optimizer == "muon",
        "warmup_cosine": train.schedule == "wsd",
        "get_batch": train.order == "even",
        "KVCache": False,
        "init_weights": False,
        "count_parameters": False,
        "attention_entropy": False,
        "next_token_distribution": False,
        "perplexity": False,
        "SelfAttention": True,
    }.items() <= {name: name in unused for name in rows(table)}.items()


@pytest.mark.parametrize("last", range(len(ALL)))
def test_a_course_solved_so_far_runs_too(solve, trusting, corpus, tmp_path, last):
    config = shrunk([*PRESETS][last % len(PRESETS)], corpus)
    solve(ALL[: last + 1])
    with mine.your_parts(config, doors.of_training(config)) as table:
        best, _ = trained(config, tmp_path / "mine")
        assert sampled(tmp_path / "mine", True).equal(sampled(tmp_path / "mine", False))
    assert best < 4
    solved = {line[:22].strip() for line in table.splitlines() if line[22:].startswith("yours")}
    assert solved == set(ALL[: last + 1])


ROPE_NEEDS = {"MultiHeadAttention", "TransformerBlock"}
IN_BFLOAT16 = choose_arithmetic(PRESETS["fast"], torch.device("cpu")).bf16  # by the machine
FAST_NEEDS = ROPE_NEEDS | ({"train_step"} if IN_BFLOAT16 else set())
REPLACED = {  # where nobody listens at the doors
    "smoke": set(),
    "cpu": ROPE_NEEDS,
    "fast": FAST_NEEDS,
    "minute": FAST_NEEDS,
    "small": ROPE_NEEDS | {"train_step"},
    "gpu": ROPE_NEEDS | {"train_step"},
}


@pytest.mark.parametrize("change", [deaf, without_doors])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_does_not_do_what_the_preset_needs_is_the_reference_and_the_table_says_so(
    solve, trusting, corpus, tmp_path, preset, change
):
    config = shrunk(preset, corpus)
    solve(change=change)
    with mine.your_parts(config, doors.of_training(config)) as table:
        best, _ = trained(config, tmp_path / "mine")
    whose = rows(table)
    assert best < 4
    assert {name for name, label in whose.items() if label == "reference"} == REPLACED[preset]
    for name in REPLACED[preset]:
        does = "use" if change is deaf else "take"
        assert f"{name} is the reference here: yours does not {does} `" in notes(table)
    assert "sampling does without a cache: your " in notes(table)


def test_a_door_that_gives_something_else_is_told_as_that(solve, trusting, corpus):
    config = shrunk("cpu", corpus)
    solve(mistakes={"02_multihead": ("k = rotate(k)", "k = k + rotate(k)")})
    with mine.your_parts(config, doors.of_training(config)) as table:
        pass
    assert (
        "MultiHeadAttention is the reference here: yours gives something else with `rotate` than "
        "the reference"
    ) in notes(table)


@pytest.mark.parametrize("name", ["classic", "modern"])
def test_from_the_same_start_a_run_of_yours_ends_where_the_reference_ends(
    solve, config, tmp_path, name
):
    if name == "modern":
        config = replace(config, model=replace(CLASSIC, positions="rope", norm="rms", bias=False))
    loss, weights = trained(config, tmp_path / "reference")
    solve()
    with mine.your_parts(replace(config, same_start=True)):
        your_loss, your_weights = trained(config, tmp_path / "mine")
    assert your_loss == pytest.approx(loss, abs=1e-3)
    assert your_weights.keys() == weights.keys()


def test_first_weights_are_those_of_your_init_weights(solve, trusting, config):
    solve(mistakes={"05_tiny_lm": ("torch.nn.init.ones_(p)", "torch.nn.init.constant_(p, 3.0)")})
    with mine.your_parts(config):
        model, _ = reference.build_model(config.model, "abc")
    assert (model.ln_f.weight == 3).all()


def test_your_weights_speak_the_same_in_the_reference(solve, trusting, config, tmp_path):
    solve()
    with mine.your_parts():
        reference.train(config, tmp_path / "mine")
        yours, tokenizer = reference.load_run(tmp_path / "mine")
    ours, _ = reference.load_run(tmp_path / "mine")
    assert type(yours) is not type(ours)
    tokens = torch.tensor([tokenizer.encode("the cat sat")])
    torch.testing.assert_close(yours(tokens), ours(tokens))


def test_where_the_operations_are_the_same_so_is_every_bit(solve, trusting, config, tmp_path):
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
    whose = rows(table)
    assert whose["MultiHeadAttention"] == "yours"
    assert whose["attention_entropy"] == whose["gelu"] == "reference"


def test_a_half_written_class_counts_as_not_started(solve):
    half = ("return self.drop(self.down(gelu(self.up(x))))", "raise NotImplementedError")
    solve(ALL[:4], {"03_transformer_block": half})
    with mine.your_parts() as table:
        pass
    assert rows(table)["FeedForward"] == "reference"


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


def failed(root: Path, folder: str, name: str, failures: int) -> str:
    """Write down that so many tests of an exercise have failed on it, and say it."""
    tests = graded(root, folder)[name]
    code = next(e.code for e in read_exercises(root, folder, {}) if e.name == name)
    result = {"code": code, "tests": {test: i >= failures for i, test in enumerate(tests)}}
    remember(root, lambda book: book["results"].setdefault(folder, {}).update({name: result}))
    return f"{failures} of its {len(tests)} tests fail"


class TestWhatItsLastTestsCalledWrong:
    """On plain input it is right: only its tests know better."""

    def test_is_not_taken_and_the_table_says_how_many_failed(self, solve, tmp_path):
        solve(["06_training"])
        told = failed(tmp_path, "06_training", "AdamW", 2)
        with mine.your_parts() as table:
            pass
        assert rows(table)["AdamW"] == "reference"
        assert rows(table)["train_step"] == "yours"
        assert notes(table) == f"AdamW is the reference here: {told} on yours"

    def test_is_not_held_against_what_calls_it(self, solve, tmp_path):
        solve(["06_training"], {"06_training": ("[..., None]).mean()", "[..., None]).sum()")})
        failed(tmp_path, "06_training", "cross_entropy", 1)
        with mine.your_parts() as table:
            pass
        assert rows(table)["cross_entropy"] == "reference"
        assert rows(table)["train_step"] == "yours"

    @pytest.mark.parametrize(
        "line, whose", [("    # another word\n", "reference"), ("    other = 1\n", "yours")]
    )
    def test_is_that_very_code_and_no_other(self, solve, tmp_path, line, whose):
        solve(["06_training"])
        failed(tmp_path, "06_training", "AdamW", 1)
        file = tmp_path / "06_training" / "exercises.py"
        text = re.sub(r"(class AdamW.*\n)", rf"\1{line}", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")
        with mine.your_parts() as table:
            pass
        assert rows(table)["AdamW"] == whose


def test_afterwards_the_references_stand_where_they_stood(solve, trusting):
    before = reference.build_model, reference.build, reference.generate
    solve()
    with mine.your_parts(RunConfig(same_start=True)):
        assert reference.build_model is not before[0]
    assert (reference.build_model, reference.build, reference.generate) == before


def test_a_run_of_yours_resumes_to_the_same_bytes(solve, trusting, config, tmp_path, monkeypatch):
    solve()
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


def test_weights_of_other_names_are_told(solve, trusting):
    spare = 'self.config = config\n        self.register_buffer("spare", torch.ones(1))'
    solve(mistakes={"05_tiny_lm": ("self.config = config", spare)})
    with pytest.raises(ValueError, match=r"has \['spare'\]$"):
        with mine.your_parts():
            pass


class TestWhatFails:
    CRASH = ("q = split_heads", 'assert x.size(1) < 9, "too many tokens"\n        q = split_heads')

    def test_what_crashes_in_your_code_is_a_sentence_with_its_line(
        self, solve, trusting, config, tmp_path
    ):
        solve(mistakes={"02_multihead": self.CRASH})
        line = (tmp_path / "02_multihead/exercises.py").read_text(encoding="utf-8")
        line = line[: line.index("assert x.size")].count("\n") + 1
        told = rf"^02_multihead/exercises.py:{line}: AssertionError: too many tokens$"
        with pytest.raises(RuntimeError, match=told):
            with mine.your_parts(config):
                reference.train(config, tmp_path / "run")

    def test_the_command_says_it_without_a_traceback_and_the_folder_is_free_again(
        self, solve, trusting, config, tmp_path, command
    ):
        write_config(tmp_path / "mine.toml", config)
        args = "train", "--config", tmp_path / "mine.toml", "--mine", "--out", tmp_path / "run"
        solve(mistakes={"02_multihead": self.CRASH})
        status, _, err = command(*args)
        assert status == 1 and err.splitlines()[-1].startswith("tiny-transformer: 02_multihead/")
        status, out, _ = command(*args[:3], "--out", tmp_path / "run")
        assert status == 0 and "no checkpoint in" in out


class TestSampling:
    @pytest.fixture
    def run(self, config, tmp_path):
        reference.train(config, tmp_path / "run")
        return tmp_path / "run"

    def test_a_page_of_samples_is_made_by_your_code(self, solve, trusting, run, command):
        solve()
        status, _, err = command("gallery", "--run", run, "--mine", "--tokens", 20)
        ways = {"greedy", "apply_temperature", "top_k_filter", "top_p_filter", "sample"}
        assert status == 0
        assert used(err) >= {*ways, "generate", "KVCache", "gallery", "load_checkpoint"}
        assert rows(err)["train_step"] == "yours, not used here"

    def test_prompts_of_several_lengths_need_a_generate_that_takes_them(
        self, solve, trusting, run, command
    ):
        solve(change=deaf)
        _, _, err = command("gallery", "--run", run, "--mine", "--tokens", 20)
        assert "generate is the reference here: yours does not use `lengths`" in notes(err)
        _, _, err = command("sample", "--run", run, "--mine", "--tokens", 20)
        assert "generate" in used(err)

    def test_yours_and_the_reference_write_the_same(self, solve, trusting, run, command):
        args = "sample", "--run", run, "--tokens", 40, "--prompt", "the"
        _, text, _ = command(*args)
        solve()
        assert command(*args, "--mine")[1] == text
        assert command(*args, "--mine", "--draft")[1] == text

    def test_guessing_ahead_needs_a_cache(self, solve, trusting, run, command):
        solve(change=without_doors)
        status, _, err = command("sample", "--run", run, "--mine", "--draft", "--prompt", "the")
        assert status == 1
        assert err.splitlines()[-1] == (
            "tiny-transformer: --draft needs a cache, and your MultiHeadAttention does not use "
            "`remember`: leave it out"
        )


def test_where_your_code_cannot_be_compiled_the_run_is_eager_and_says_so(
    config, monkeypatch, capsys
):
    def fail(model):
        raise TypeError("no graph for this")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(speed, "compile_obstacle", lambda _: "")
    assert mine.eager_unless_compiled(config) == config
    eager = mine.eager_unless_compiled(replace(config, compile=True))
    assert eager == replace(config, compile=False)
    said = "not compiled, since your code cannot be: TypeError: no graph for this\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "settings, argument", [({"bf16": True}, "bf16"), ({"fp16": True}, "scaler")]
)
def test_half_precision_needs_a_train_step_that_knows_it(
    solve, trusting, config, settings, argument
):
    solve(change=deaf)
    with mine.your_parts(config, doors.of_training(replace(config, **settings))) as table:
        pass
    assert f"train_step is the reference here: yours does not use `{argument}`" in notes(table)


@pytest.mark.parametrize("last", [0, 4])
def test_the_same_start_is_the_reference_s_however_much_is_solved(solve, trusting, config, last):
    torch.manual_seed(1)
    ours, _ = reference.build_model(config.model, "abc")
    solve(ALL[: last + 1])
    with mine.your_parts(replace(config, same_start=True)):
        torch.manual_seed(1)
        yours, _ = reference.build_model(config.model, "abc")
    for name, weight in ours.state_dict().items():
        assert weight.equal(yours.state_dict()[name])


def test_a_build_model_that_puts_nothing_in_is_the_reference(solve, trusting, corpus):
    config = shrunk("fast", corpus)
    solve(mistakes={"09_capstone": ("build(replace", "TinyTransformerLM(replace")})
    with mine.your_parts(config, doors.of_training(config)) as table:
        model, _ = reference.build_model(config.model, "abc")
    assert "build_model is the reference here: yours fails with `config`: " in notes(table)
    assert "shift.share" in model.state_dict()


def test_what_a_class_of_yours_inherits_is_yours(solve, trusting, config):
    def inherit(text: str) -> str:
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == "LayerNorm":
                node.bases = [ast.parse("nn.LayerNorm").body[0].value]
                init = "def __init__(self, d_model, eps=1e-5):\n    super().__init__(d_model, eps)"
                node.body = ast.parse(init).body
        return ast.unparse(tree)

    solve(change=inherit)
    with mine.your_parts(config, rehearsal=partial(mine.rehearse, config)) as table:
        pass
    assert "LayerNorm" in used(table)


def test_a_forward_of_another_name_is_wrong_and_not_a_stub(solve):
    solve(
        mistakes={
            "03_transformer_block": (
                "def forward(self, x: Tensor) -> Tensor:\n        return self.drop",
                "def foward(self, x: Tensor) -> Tensor:\n        return self.drop",
            )
        }
    )
    with pytest.raises(ValueError, match="FeedForward is not right yet"):
        with mine.your_parts():
            pass


def test_a_generator_that_runs_dry_in_your_code_is_told_too(solve, trusting, config):
    with pytest.raises(RuntimeError, match=r"StopIteration"):
        with mine.told_in_a_sentence():
            next(iter(()))


def test_attention_is_seen_however_a_block_hands_on_what_it_was_given(solve, trusting, config):
    config = replace(config, model=replace(config.model, positions="rope"))
    torch.manual_seed(0)
    model, _ = reference.build_model(config.model, "abc")
    maps = report.attention_maps(model, torch.tensor([[0, 1, 2]]))
    solve(
        mistakes={
            "03_transformer_block": ("rotate=rotate, remember=remember", "False, rotate, remember")
        }
    )
    with mine.your_parts(config):
        yours, _ = reference.build_model(config.model, "abc")
        yours.load_state_dict(model.state_dict())
        torch.testing.assert_close(report.attention_maps(yours, torch.tensor([[0, 1, 2]])), maps)


def test_ctrl_c_before_a_run_has_begun_leaves_nothing_to_go_on_from(
    solve, trusting, config, tmp_path, command, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    write_config(tmp_path / "mine.toml", config)
    solve()
    monkeypatch.setattr(mine, "find_parts", interrupt)
    args = "--config", tmp_path / "mine.toml", "--out", tmp_path / "run"
    status, out, _ = command("train", "--mine", *args)
    assert status == 130 and out == "\nstopped; nothing had begun\n"
