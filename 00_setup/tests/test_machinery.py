"""The grading machinery (conftest.py and diagnosis.py), run on a toy module of one exercise."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tiny_transformer.setup.diagnosis import Misconception, diagnose, probe

CONFTEST = Path(__file__).parents[2] / "conftest.py"

REFERENCE = """
def double(x):
    return 2 * x

class Doubler:
    def run(self, x):
        return double(x)
"""
NOT_STARTED = """
def double(x):
    raise NotImplementedError

class Doubler:
    def __init__(self):
        raise NotImplementedError
"""
MISCONCEPTIONS = """
from tiny_transformer.setup.diagnosis import Misconception, probe

@probe("double")
def three(double):
    import torch
    return [double(torch.tensor(3.0))]

MISCONCEPTIONS = [Misconception("double", wrong=lambda x: x * x, hint="You squared.")]
"""
TESTS = """
import pytest

@pytest.mark.exercise("double")
def test_three_becomes_six(impl):
    assert impl.double(3) == 6

@pytest.mark.exercise("Doubler")
def test_a_doubler_doubles(impl):
    assert impl.Doubler().run(3) == 6

def test_that_grades_nothing():
    pass
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run the toy module's tests under the course's conftest, with some of its files replaced."""
    monkeypatch.delitem(sys.modules, "conftest")
    package = ModuleType("tiny_transformer.toy")
    package.__path__ = [str(pytester.path / "77_toy")]
    monkeypatch.setitem(sys.modules, "tiny_transformer.toy", package)
    pytester.makeini("[pytest]\naddopts = --import-mode=importlib -rs")
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))

    def run_toy(*options: str, **changed: str | None) -> pytest.RunResult:
        files = {
            "reference": REFERENCE,
            "exercises": NOT_STARTED,
            "misconceptions": MISCONCEPTIONS,
            "tests/deep/test_toy": TESTS,
            **changed,
        }
        for name, text in files.items():
            if text is not None:
                file = pytester.path / "77_toy" / f"{name}.py"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        return pytester.runpytest_inprocess(*options)

    return run_toy


def test_a_stub_is_skipped_and_its_line_named(run):
    result = run()
    result.assert_outcomes(passed=3, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "*77_toy/exercises.py:3: not started: double",
            "*77_toy/exercises.py:7: not started: Doubler",
        ]
    )


def test_an_exercise_that_calls_a_stub_says_which(run):
    begun = NOT_STARTED.replace("def __init__(self):", "def run(self, x):").replace(
        " " * 8 + "raise NotImplementedError", " " * 8 + "return double(x)"
    )
    result = run(exercises=begun)
    result.assert_outcomes(passed=3, skipped=2)
    result.stdout.fnmatch_lines(
        ["*77_toy/exercises.py:3: Doubler needs double, which is not started"]
    )


def test_not_implemented_elsewhere_is_a_failure(run):
    exercises = "import torch\ndouble = torch.nn.Module()\n"  # torch raises it: no forward
    run(exercises=exercises).assert_outcomes(passed=3, failed=1, skipped=1)


def test_grade_fails_a_stub(run):
    run("--grade").assert_outcomes(passed=3, failed=2)


def test_absent_exercises_are_skipped_with_the_reason(run):
    result = run(exercises=None)
    result.assert_outcomes(passed=3, skipped=2)
    result.stdout.fnmatch_lines(["*there is no 77_toy/exercises.py"])


def test_an_exercise_absent_from_the_file_is_skipped_with_the_reason(run):
    result = run(exercises="def double(x):\n    return x + x\n")
    result.assert_outcomes(passed=4, skipped=1)
    result.stdout.fnmatch_lines(["*77_toy/exercises.py has no Doubler"])


def test_grade_fails_an_absent_exercise(run):
    run("--grade", exercises=None).assert_outcomes(passed=3, errors=2)


def test_a_known_mistake_is_diagnosed(run):
    result = run(exercises="def double(x):\n    return x**2\n")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*Diagnosis*", "You squared."])


def test_an_unknown_mistake_gets_no_diagnosis(run):
    result = run(exercises="def double(x):\n    return x + 1\n")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    result.stdout.no_fnmatch_line("*Diagnosis*")


def test_a_mistake_in_a_module_without_misconceptions_fails_plainly(run):
    result = run(exercises="def double(x):\n    return x**2\n", misconceptions=None)
    result.assert_outcomes(passed=3, failed=1, skipped=1)


def test_a_planted_bug_that_fails_a_test_is_caught(run):
    result = run("--misconceptions")
    result.assert_outcomes(passed=1, skipped=1, deselected=1)
    result.stdout.fnmatch_lines(["1 of 1 known bugs caught", "*no misconception of Doubler*"])
    assert result.ret == pytest.ExitCode.OK


def test_a_planted_bug_that_no_test_notices_fails_the_session(run):
    result = run("--misconceptions", **{"tests/deep/test_toy": TESTS.replace("3) == 6", "2) == 4")})
    result.stdout.fnmatch_lines(["NOT CAUGHT toy.double: You squared.", "0 of 1 known bugs caught"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_bug_that_breaks_a_fixture_is_caught(run):
    tests = TESTS.replace("(impl):\n    assert impl.double(3) == 6", "(six):\n    assert six") + (
        "\n@pytest.fixture\ndef six(impl):\n    assert impl.double(3) == 6\n    return 6\n"
    )
    result = run("--misconceptions", **{"tests/deep/test_toy": tests})
    result.stdout.fnmatch_lines(["1 of 1 known bugs caught"])
    assert result.ret == pytest.ExitCode.OK


def test_a_test_that_skips_has_not_caught_a_bug(run):
    tests = TESTS.replace("assert impl.double(3) == 6", "pytest.skip('no GPU')")
    result = run("--misconceptions", **{"tests/deep/test_toy": tests})
    result.stdout.fnmatch_lines(["0 of 1 known bugs caught"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_misconceptions_skips_a_module_that_has_none(run):
    result = run("--misconceptions", misconceptions=None)
    result.assert_outcomes(skipped=2, deselected=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_test_that_names_no_exercise_is_refused(run):
    result = run(**{"tests/deep/test_toy": "def test_nothing(impl):\n    pass\n"})
    result.stdout.fnmatch_lines(["*test_nothing uses `impl`; mark the exercise it grades*"])


class TestDiagnose:
    @pytest.fixture(autouse=True)
    def bugs(self, monkeypatch):
        known = [
            Misconception("triple", wrong=lambda x: x**3, hint="You cubed."),
            Misconception("triple", wrong=lambda x: x / 0 * 0, hint="You made it NaN."),
            Misconception("triple", wrong=lambda x: x.missing, hint="It crashes."),
        ]
        monkeypatch.setattr("tiny_transformer.setup.diagnosis.misconceptions", lambda topic: known)
        probe("triple")(lambda triple: [triple(torch.tensor([1.0, 2.0]))])

    def test_names_the_bug_that_behaves_the_same(self):
        assert diagnose("toy", "triple", lambda x: x * x * x) == "You cubed."

    def test_knows_two_nans_for_the_same(self):
        assert diagnose("toy", "triple", lambda x: x * float("nan")) == "You made it NaN."

    def test_finds_nothing_wrong_in_a_right_answer(self):
        assert diagnose("toy", "triple", lambda x: x + x + x) is None

    def test_a_crash_is_no_known_bug(self):
        assert diagnose("toy", "triple", lambda x: x.missing) is None

    def test_the_same_numbers_in_another_dtype_are_another_bug(self):
        assert diagnose("toy", "triple", lambda x: (x**3).double()) is None

    def test_an_exercise_without_probe_is_not_diagnosed(self):
        assert diagnose("toy", "unheard_of", lambda x: x) is None
