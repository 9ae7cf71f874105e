"""What a contributor's change must leave true, and a learner's need not: run by `.ci/run` alone.

The tests that start processes work in a copy of the course, whose package is found before the
installed one.
"""

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny_transformer.setup.grading.diagnosis import misconceptions
from tiny_transformer.setup.grading.progress import FILE, folders, read_exercises
from tiny_transformer.setup.grading.reset import stubs_of

ROOT = Path(__file__).parents[1]
ALL = folders(ROOT)


def load(folder: str, part: str) -> object:
    return importlib.import_module(f"tiny_transformer.{folder[3:]}.{part}")


@pytest.mark.parametrize("folder", ALL)
def test_no_stub_was_committed_solved(folder):
    assert all(exercise.stub for exercise in read_exercises(ROOT, folder, {}))


@pytest.mark.parametrize("folder", ALL)
def test_the_copy_of_the_stubs_is_that_of_the_exercises(folder):
    exercises = (ROOT / folder / "exercises.py").read_text(encoding="utf-8")
    assert stubs_of(ROOT, folder).read_text(encoding="utf-8") == exercises, "run make stubs"


def test_no_progress_was_committed():
    known = subprocess.check_output(["git", "ls-files", FILE.as_posix()], cwd=ROOT)
    assert known == b""


@pytest.mark.parametrize("folder", ALL)
def test_every_exercise_is_graded_and_has_a_known_mistake(folder):
    names = {exercise.name for exercise in read_exercises(ROOT, folder, {})}
    module = load(folder, "exercises")
    written = {
        name
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__
    }
    assert names == written == {bug.exercise for bug in misconceptions(folder[3:])}


def test_there_are_at_least_90_known_mistakes():
    assert sum(len(misconceptions(folder[3:])) for folder in ALL) >= 90


@pytest.mark.parametrize(
    "folder, name", [(folder, e.name) for folder in ALL for e in read_exercises(ROOT, folder, {})]
)
def test_an_exercise_takes_and_returns_what_the_reference_does(folder, name):
    ours, theirs = (
        signatures(getattr(load(folder, part), name)) for part in ("exercises", "reference")
    )
    differences = [
        f"{folder}: {call} is {ours[call]}, in the reference {theirs.get(call, 'missing')}"
        for call in ours
        if ours[call] != theirs.get(call)
    ]
    assert not differences, "\n".join(differences)


def signatures(thing: Any) -> dict[str, str]:
    """Of a function, or of a class's constructor and each public method, as Python writes it."""
    calls = {thing.__name__: thing}
    if inspect.isclass(thing):
        calls = {
            f"{thing.__name__}.{name}": value.fget if isinstance(value, property) else value
            for name, value in inspect.getmembers(thing)
            if name == "__init__" or not name.startswith("_")
        }
    return {
        name: str(inspect.signature(call)).replace(".exercises.", ".reference.")
        for name, call in calls.items()
        if inspect.isroutine(call)
    }


@pytest.mark.parametrize("folder", ALL)
def test_an_exercise_s_example_is_true_of_the_reference(folder):
    exercises = load(folder, "exercises")
    names = vars(exercises) | vars(load(folder, "reference"))
    runner = doctest.DocTestRunner()
    for exercise in read_exercises(ROOT, folder, {}):
        stub = getattr(exercises, exercise.name)
        for example in doctest.DocTestFinder().find(stub, exercise.name, globs=dict(names)):
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_every_text_file_is_opened_with_its_encoding():
    silent = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in (path for folder in (*ALL, "data") for path in (ROOT / folder).glob("**/*.py"))
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and opens_text(call)
        if "encoding" not in {keyword.arg for keyword in call.keywords}
    ]
    assert silent == []


OTHER_OPENS = ("os.open", "webbrowser.open", "Image.open")


def opens_text(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in call.args[-1:])
    return name.endswith((".read_text", ".write_text")) or (
        (name == "open" or name.endswith(".open")) and name not in OTHER_OPENS and not binary
    )


@pytest.fixture
def course(tmp_path):
    """A copy of the course, and a function that runs a command in it."""
    files = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT
    )
    for name in filter(None, files.decode().split("\0")):
        if (ROOT / name).exists() and name != FILE.as_posix():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    links = tmp_path / ".links" / "tiny_transformer"
    links.mkdir(parents=True)
    for folder in (*ALL, "00_data"):
        source = tmp_path / (folder if folder in ALL else "data")
        (links / folder[3:]).symlink_to(source, target_is_directory=True)

    environment = {**os.environ, "PYTHONPATH": str(links.parent)}
    environment.pop("CI", None)  # with it pytest repeats each message in full

    def run(
        *command: str, without: tuple[str, ...] = (), hidden: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess:
        for folder in without:
            shutil.rmtree(tmp_path / folder)
        # None in sys.modules is a module that cannot be imported, wherever else it is installed.
        names = *(f"tiny_transformer.{folder[3:]}" for folder in without), *hidden
        lines = [f"sys.modules[{name!r}] = None" for name in names]
        module, *arguments = command
        code = "\n".join(
            [
                "import runpy, sys",
                *lines,
                f"sys.argv[1:] = {arguments!r}",
                f"runpy.run_module({module!r}, run_name='__main__')",
            ]
        )
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )

    return tmp_path, run


def solve(course: Path, *chosen: str) -> None:
    for folder in chosen:
        shutil.copy(course / folder / "tests" / "solved.py", course / folder / "exercises.py")


@pytest.mark.parametrize("n", range(len(ALL)))
def test_a_module_needs_none_above_it(course, n):
    _, run = course
    # To import PyTorch's compiler would cost a second a run.
    done = run("pytest", "-q", ALL[n], without=tuple(ALL[n + 1 :]), hidden=("torch._dynamo",))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("preset", ["cpu", "fast"])
def test_a_run_that_is_not_compiled_imports_no_compiler(course, preset):
    _, run = course
    options = ("--preset", preset, "--train.max-steps", "2", "--corpus", "README.md")
    done = run("tiny_transformer.capstone", "train", *options, hidden=("torch._dynamo",))
    assert done.returncode == 0, done.stderr


def test_two_processes_of_torchrun_train_as_one_does(course):
    root, run = course
    # A higher learning rate multiplies differences of rounding: chaos, not another gradient.
    command = [
        *("tiny_transformer.capstone", "train", "--preset", "smoke", "--corpus", "README.md"),
        *("--train.max-steps", "40", "--train.max-lr", "1e-3"),
    ]
    alone = run(*command, "--out", "one")
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    shared = run(*launch, *command, "--out", "two")
    for done in (alone, shared):
        assert done.returncode == 0 and done.stdout.count("best validation loss") == 1, done.stderr
    files = [root / name / "metrics.jsonl" for name in ("one", "two")]
    records = [file.read_text(encoding="utf-8").splitlines() for file in files]
    losses = [[json.loads(line).get("val_loss") for line in lines] for lines in records]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_learner_s_run_of_a_module_has_no_test_of_the_machinery():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "00_setup"]
    collected = subprocess.check_output(command, cwd=ROOT, encoding="utf-8").splitlines()
    files = {line.partition("::")[0] for line in collected if "::" in line}
    assert files == {"00_setup/tests/test_setup.py", "00_setup/theory.md"}


@pytest.mark.timeout(600)
def test_the_solved_set_passes_everything_and_trains(course):
    root, run = course
    solve(root, *ALL)
    tests = [
        str(file.relative_to(root))
        for file in sorted(root.glob("0*_*/tests/test_*.py"))
        if "mark.exercise" in file.read_text(encoding="utf-8")
    ]
    graded = run("pytest", "-q", "--grade", *tests)
    assert graded.returncode == 0, graded.stdout
    assert "skipped" not in graded.stdout.splitlines()[-1].replace("1 skipped", "")  # a GPU's test
    progress = run("tiny_transformer.capstone", "progress").stdout
    assert re.findall(r"(\d+) begun, (\d+) not started", progress) == [("0", "0")] * len(ALL)
    losses = []
    for name, option in (("reference", []), ("mine", ["--mine"])):
        trained = run(
            "tiny_transformer.capstone", "train", "--preset", "smoke", "--out", name, *option
        )
        assert trained.returncode == 0, trained.stderr
        records = (root / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append(json.loads(records[-1])["val_loss"])
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


def test_a_half_solved_set_is_told_as_it_is(course):
    root, run = course
    solve(root, *ALL[:2])
    run("pytest", "-q", *ALL[:3])
    lines = run("tiny_transformer.capstone", "progress").stdout.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["7", "5", *["0"] * 8]
    assert lines[-1].startswith("next: 02_multihead/exercises.py")
    trained = run("tiny_transformer.capstone", "train", "--preset", "smoke", "--mine")
    assert trained.returncode == 0, trained.stderr
    assert {*re.findall(r"^(\S+) +yours", trained.stderr, re.M)} == {*ALL[:2]}
    assert {*re.findall(r"^(\S+) +reference", trained.stderr, re.M)} == {*ALL[2:]}


def plant(course: Path) -> str:
    """Let attention's scores be unscaled; returns what is said of it."""
    file = course / "01_attention" / "exercises.py"
    text = file.read_text(encoding="utf-8")
    assert " * d_k**-0.5" in text
    file.write_text(text.replace(" * d_k**-0.5", ""), encoding="utf-8")
    return "The scores are not scaled"


def test_a_planted_mistake_stops_a_run_with_its_diagnosis(course):
    root, run = course
    solve(root, *ALL)
    told = plant(root)
    trained = run("tiny_transformer.capstone", "train", "--preset", "smoke", "--mine")
    assert trained.returncode == 1
    assert told in trained.stderr and "attention_scores" in trained.stderr
    assert "Traceback" not in trained.stderr
    assert not (root / "runs").exists()


def test_a_planted_mistake_that_the_tests_have_told_is_the_reference_in_a_run(course):
    root, run = course
    solve(root, *ALL)
    told = plant(root)
    graded = run("pytest", "-q", "01_attention")
    assert graded.returncode == 1 and told in graded.stdout
    trained = run("tiny_transformer.capstone", "train", "--preset", "smoke", "--mine")
    assert trained.returncode == 0, trained.stderr
    assert re.search(
        r"attention_scores is the reference here: \d+ of its \d+ tests", trained.stderr
    )


def test_check_tells_what_is_wrong_by_its_exit_status_too(course):
    root, run = course
    capstone = "tiny_transformer.capstone"
    solve(root, "00_setup", "01_attention")
    told = plant(root)
    checked = run(capstone, "check")
    assert checked.returncode == 1 and told in checked.stdout
    assert "01_attention          [##+" in checked.stdout
    assert "Traceback" not in checked.stdout and checked.stderr == ""
    assert max(map(len, checked.stdout.splitlines())) <= 80
    assert run(capstone, "check", "00").returncode == 0
    assert run(capstone, "reset", "attention_scores").returncode == 0
    assert "attention_scores" in run(capstone, "progress").stdout.splitlines()[-1]
    assert run(capstone, "check", "00_setup").returncode == 0


def test_learn_without_a_terminal_prints_what_each_save_brings(course):
    root, _ = course
    environment = {**os.environ, "PYTHONPATH": str(root / ".links"), "PYTHONUNBUFFERED": "1"}
    learning = subprocess.Popen(
        [sys.executable, "-m", "tiny_transformer.capstone", "learn", "01_attention"],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert any("Turn scores into" in line for line in learning.stdout)
        solve(root, "01_attention")
        told = plant(root)
        assert any(told in line for line in learning.stdout)
        solve(root, "01_attention")
        assert any("attention_scores is solved" in line for line in learning.stdout)
        assert "You have built" in learning.stdout.read()
        assert learning.wait() == 0
    finally:
        learning.kill()


def test_a_file_with_a_syntax_error_stops_a_run_in_one_sentence(course):
    root, run = course
    (root / "04_embeddings" / "exercises.py").write_text("def broken(:\n", encoding="utf-8")
    trained = run("tiny_transformer.capstone", "train", "--preset", "smoke", "--mine")
    assert trained.stderr.splitlines()[-1].startswith(
        "tiny-transformer: 04_embeddings/exercises.py:1: SyntaxError"
    )
    graded = run("pytest", "-q", "04_embeddings")
    assert graded.stdout.count("04_embeddings/exercises.py:1: SyntaxError") == 1
    assert re.search(r"\d+ passed, \d+ skipped, 1 error", graded.stdout)
