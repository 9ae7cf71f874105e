"""The grading machinery, run by the course's conftest.py on a toy module of two exercises."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tiny_transformer.setup.grading import grades
from tiny_transformer.setup.grading.progress import FILE, read_exercises, read_results

CONFTEST = Path(__file__).parents[3] / "conftest.py"

REFERENCE = """
def double(x, times=1):
    return 2**times * x

class Doubler:
    def run(self, x):
        return double(x)
"""
NOT_STARTED = """
def double(x, times=1):
    raise NotImplementedError

class Doubler:
    def __init__(self):
        raise NotImplementedError
"""
SOLVED = NOT_STARTED.replace("raise NotImplementedError", "return x + x", 1)
MISCONCEPTIONS = """
from tiny_transformer.setup.grading.diagnosis import Misconception, probe

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
    monkeypatch.delitem(sys.modules, "conftest", raising=False)
    package = ModuleType("tiny_transformer.toy")
    package.__path__ = [str(pytester.path / "77_toy")]
    monkeypatch.setitem(sys.modules, "tiny_transformer.toy", package)
    pytester.makeini(
        "[pytest]\naddopts = --import-mode=importlib -rs --disable-plugin-autoload "
        "-p pytest_timeout -p no:logging -p no:unraisableexception"
    )
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))

    def run_toy(*options: str, **changed: str | None) -> pytest.RunResult:
        files = {
            "reference": REFERENCE,
            "exercises": NOT_STARTED,
            "misconceptions": MISCONCEPTIONS,
            "tests/deep/test_toy": TESTS,
            **changed,
        }
        sys.modules.pop("tiny_transformer.toy.exercises", None)
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
    result.stdout.fnmatch_lines(
        [
            "*What is wrong*",
            "double  77_toy/exercises.py:1",
            "  You squared.",
            "  In the test: three becomes six.",
        ]
    )


@pytest.mark.parametrize("asked, seen", [([], False), (["--tb=short"], True), (["-v"], True)])
def test_a_traceback_is_seen_by_who_asks(run, asked, seen):
    output = run(*asked, exercises="def double(x):\n    return x**2\n").stdout.str()
    assert ("assert impl.double(3) == 6" in output) is seen


def test_a_mistake_that_answers_a_test_otherwise_is_not_named(run):
    mistakes = MISCONCEPTIONS.replace("x * x", "x * x + 0 * x.shape[0] if hasattr(x, 'y') else 5")
    output = run(exercises="def double(x):\n    return x**2\n", misconceptions=mistakes)
    assert "You squared." not in output.stdout.str()


def test_two_failures_are_the_same_up_to_rounding():
    def failed(words: str) -> grades.Trial:
        trial = grades.Trial(SimpleNamespace(calls=[]))
        trial.error = AssertionError(words)
        return trial

    assert failed("off by 0.14271").tells_as(failed("off by 0.14272"))
    assert not failed("3 are off by 0.1").tells_as(failed("4 are off by 0.1"))


def test_an_unknown_mistake_is_told_by_its_family(run):
    result = run(exercises="def double(x):\n    return x + 1\n")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["  double returned 4; expected 6.", "  The call: double(x=3)"])


def test_a_sentence_of_the_test_comes_first(run):
    tests = TESTS.replace("assert impl.double(3) == 6", "assert impl.double(3) == 6, 'Six it is.'")
    files = {"exercises": "def double(x):\n    return x + 1\n", "tests/deep/test_toy": tests}
    result = run(**files)
    result.stdout.fnmatch_lines(["  Six it is.", "  The call: double(x=3)", "  It gave: 4"])


def test_what_an_exercise_does_to_its_argument_is_said(run):
    tests = TESTS.replace("impl.double(3) == 6", "impl.double([3]) is None and impl.double(0) is 0")
    reference = REFERENCE.replace("2**times * x", "None if x == [3] else x")
    exercises = "def double(x):\n    return x.append(1) if x else 0\n"
    files = {"exercises": exercises, "reference": reference, "tests/deep/test_toy": tests}
    output = run(**{**files, "tests/deep/test_toy": tests.replace("is None and", "and")})
    output.stdout.fnmatch_lines(
        ["  double changes its argument x, which it should leave as it was."]
    )


def test_an_exercise_that_calls_a_wrong_one_waits_for_it(run):
    wrong = "def double(x):\n    return x + 1\n\nclass Doubler:\n    def run(self, x):\n"
    result = run(exercises=wrong + "        return double(x)\n")
    result.stdout.fnmatch_lines(
        [
            "double  77_toy/exercises.py:1",
            "Doubler  77_toy/exercises.py:4",
            "  waits for double, which it calls and which is not right yet",
        ]
    )


def test_what_was_printed_stands_in_the_block_once(run):
    result = run(exercises="def double(x):\n    print('here', x)\n    return x + 1\n")
    assert result.stdout.str().count("here 3") == 1


def test_a_crash_is_told_with_its_line_and_the_shapes_there(run):
    exercises = """
import torch

def double(x):
    pair = torch.ones(2)
    return pair + torch.ones(3)
"""
    result = run(exercises=exercises)
    result.stdout.fnmatch_lines(
        [
            "  RuntimeError in double, 77_toy/exercises.py:6: The size of tensor a (2) must*",
            "      return pair + torch.ones(3)",
            "  Shapes there: pair (2,).",
        ]
    )


@pytest.mark.parametrize(
    "line, told",
    [
        ("torch.no_grad()", "`torch.no_grad()` on a line of its own has no effect"),
        ("pass", "a leaf Variable that"),
    ],
)
def test_gradients_that_a_bare_call_leaves_on_are_told(run, line, told):
    exercises = f"""
import torch

def double(x):
    {line}
    leaf = torch.ones(2, requires_grad=True)
    leaf += 1
"""
    output = run(exercises=exercises).stdout.str()
    assert told in output and ("no effect" in output) == ("no effect" in told)


def test_a_mistake_in_a_module_without_misconceptions_fails_plainly(run):
    result = run(exercises="def double(x):\n    return x**2\n", misconceptions=None)
    result.assert_outcomes(passed=3, failed=1, skipped=1)


@pytest.mark.parametrize(
    "mistake, told",
    [
        ("def double(x)\n    return x\n", "77_toy/exercises.py:1: SyntaxError: expected ':'"),
        ("import os\nimport toorch\n", "77_toy/exercises.py:2: ModuleNotFoundError: *toorch*"),
    ],
)
def test_a_file_that_cannot_be_imported_is_reported_once(run, mistake, told):
    result = run("--tb=native", exercises=mistake)
    result.assert_outcomes(passed=3, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*77_toy/exercises.py cannot be imported*", f"*{told}"])


def test_an_endless_loop_is_stopped_and_not_entered_again(run, monkeypatch):
    monkeypatch.setattr(grades, "SECONDS", 1)
    result = run(
        exercises="def double(x):\n    while True:\n        pass\n",
        **{"tests/deep/test_toy": TESTS.replace('"Doubler")', '"double")')},
    )
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["  Your double has not ended within 1 s.*"])


@pytest.mark.parametrize(
    "end, kind", [("raise KeyboardInterrupt", "KeyboardInterrupt"), ("exit()", "SystemExit")]
)
def test_an_exercise_that_ends_the_program_fails_its_test(run, end, kind):
    result = run(exercises=SOLVED.replace("return x + x", end))
    assert f"it raised {kind}" in result.stdout.str()
    assert result.parseoutcomes()["failed"] == 1


def test_a_file_that_ends_the_program_is_told_once(run):
    result = run(exercises=f"{SOLVED}\nexit()\n")
    assert "exercises.py:9: SystemExit" in result.stdout.str()
    assert "In the test" not in result.stdout.str()
    assert result.parseoutcomes()["errors"] == 1


class TestProgress:
    def lines(self, result):
        output = result.stdout.lines
        start = next(i for i, line in enumerate(output) if " Progress " in line)
        return [line for line in output[start + 1 :] if line]

    def test_what_is_not_started_is_told_with_the_next_line_to_open(self, run):
        first, second, *_ = self.lines(run())
        assert first == f"{'77_toy':22}[..]        0 solved, 0 begun, 2 not started"
        assert second == "next: 77_toy/exercises.py:2 double"

    def test_what_is_solved_is_told_with_the_lines_of_the_reference(self, run):
        first, second, third, *_ = self.lines(run(exercises=SOLVED))
        assert "[#.]        1 solved, 0 begun, 1 not started" in first
        assert second == "next: 77_toy/exercises.py:5 Doubler"
        assert third == "double is solved; compare with 77_toy/reference.py:2-3"

    def test_it_is_told_once(self, run):
        run(exercises=SOLVED)
        assert "compare with" not in "".join(self.lines(run(exercises=SOLVED)))

    def test_what_is_saved_while_its_tests_run_is_not_known_to_pass(self, run, pytester):
        run(exercises=SOLVED)
        file = "77_toy/exercises.py"
        wrong = SOLVED.replace("return x + x", "return x")
        saving = f"    import pathlib\n    pathlib.Path('{file}').write_text({wrong!r})\n"
        tests = TESTS.replace("(impl):\n", f"(impl):\n{saving}", 1)
        first, second, *_ = self.lines(run(exercises=SOLVED, **{"tests/deep/test_toy": tests}))
        assert first == f"{file} was saved meanwhile: its tests are to be run again"
        assert "0 solved, 1 begun" in second
        assert "untested" in "".join(self.lines(run("-k", "nothing", exercises=wrong)))

    def test_what_fails_is_begun(self, run):
        wrong = NOT_STARTED.replace("raise NotImplementedError", "return x", 1)
        for _ in range(2):
            first, second, *_ = self.lines(run(exercises=wrong))
            assert "[+.]        0 solved, 1 begun" in first
            assert second.endswith("double, 0 of 1 tests pass")

    def test_what_needs_a_stub_has_not_run(self, run, pytester):
        begun = NOT_STARTED.replace("def __init__(self):", "def run(self, x):").replace(
            " " * 8 + "raise NotImplementedError", " " * 8 + "return double(x)"
        )
        assert "0 solved, 1 begun" in self.lines(run(exercises=begun))[0]
        assert read_results(pytester.path) == {}

    def test_a_run_of_some_tests_keeps_what_is_known_of_the_others(self, run):
        tests = TESTS.replace('"Doubler")', '"double")').replace(
            "impl.Doubler().run(3)", "impl.double(3)"
        )
        files = {"exercises": SOLVED, "tests/deep/test_toy": tests}
        first, second, *_ = self.lines(run("-k", "three", **files))
        assert "0 solved, 1 begun" in first
        assert second.endswith("double, 1 of 2 tests pass, 1 did not run")
        assert "1 solved, 0 begun" in self.lines(run("-k", "doubles", **files))[0]

    def test_one_test_alone_does_not_solve_an_exercise(self, run):
        tests = TESTS.replace('"Doubler")', '"double")').replace(
            "impl.Doubler().run(3)", "impl.double(3)"
        )
        one = "77_toy/tests/deep/test_toy.py::test_three_becomes_six"
        files = {"exercises": SOLVED, "tests/deep/test_toy": tests}
        run("-k", "nothing", **files)
        assert "0 solved, 1 begun" in self.lines(run(one, **files))[0]

    def test_results_of_other_code_do_not_count(self, run):
        run(exercises=SOLVED)
        changed = SOLVED.replace("x + x", "x * 2")
        first, second, *_ = self.lines(run("-k", "nothing", exercises=changed))
        assert "0 solved, 1 begun" in first and second.endswith("double, untested")

    def test_what_was_solved_is_so_again_when_its_code_is_put_back(self, run, pytester):
        run(exercises=SOLVED)
        for wrong in ("return x", "return 3 * x"):
            run(exercises=SOLVED.replace("return x + x", wrong))
        run("--collect-only", exercises=SOLVED)
        [double, _] = read_exercises(pytester.path, "77_toy", read_results(pytester.path))
        assert double.state == "solved"

    def test_an_exercise_is_selected_by_its_name(self, run):
        run("-k", "Doubler").assert_outcomes(passed=1, skipped=1, deselected=3)

    def test_an_exercise_that_is_gone_is_missed_by_name(self, run):
        lines = self.lines(run(exercises=SOLVED.replace("Doubler", "Renamed")))
        assert any(line.startswith("77_toy/exercises.py has no Doubler;") for line in lines)

    @pytest.mark.parametrize(
        "text, told",
        [
            ("", "77_toy/exercises.py has none of its exercises; tiny-transformer reset 77_toy"),
            ("def (", "77_toy/exercises.py:1 is no Python"),
            (None, "there is no 77_toy/exercises.py; tiny-transformer reset 77_toy"),
        ],
    )
    def test_what_is_wrong_with_the_whole_file_is_said(self, run, text, told):
        lines = self.lines(run(exercises=text))
        assert lines[0].startswith("77_toy                [??]")
        assert lines[1].startswith(told)

    @pytest.mark.parametrize("damage", ["no:cacheprovider", "a file for the folder", "[]"])
    def test_a_run_that_cannot_remember_grades_all_the_same(self, run, pytester, damage):
        file = pytester.path / FILE
        if damage == "a file for the folder":
            file.parent.write_bytes(b"")
        elif damage == "[]":
            file.parent.mkdir()
            file.write_bytes(damage.encode())
        result = run(*(["-p", damage] if damage.startswith("no:") else []), exercises=SOLVED)
        assert "1 solved, 0 begun" in self.lines(result)[0]
        assert result.ret == pytest.ExitCode.OK

    def test_where_nothing_is_begun_nothing_is_written(self, run, pytester):
        run()
        assert not (pytester.path / FILE).exists()

    def test_a_run_without_a_terminal_ends_as_it_should(self, run, pytester):
        pytester.makeini("[pytest]\naddopts = --import-mode=importlib")
        assert run("-p", "no:terminal").ret == pytest.ExitCode.OK


DOOR = (
    TESTS
    + """
@pytest.mark.door
@pytest.mark.exercise("double")
def test_it_doubles_as_often_as_it_is_told(impl):
    if impl.double(3, times=2) == impl.double(3):
        pytest.skip("times is not used")
    assert impl.double(3, times=2) == 12
"""
)
UNUSED = NOT_STARTED.replace("raise NotImplementedError", "return x + x", 1)
USED = UNUSED.replace("x + x", "2**times * x")
REFUSED = UNUSED.replace(
    "return x", "if times > 1:\n        raise NotImplementedError\n    return x"
)


class TestDoor:
    """A test of an optional argument that a learner may leave unused."""

    @pytest.fixture
    def run(self, run):
        return lambda *options, **files: run(*options, **{"tests/deep/test_toy": DOOR, **files})

    @pytest.mark.parametrize("exercises, passed", [(USED, 6), (UNUSED, 5), (REFUSED, 5)])
    def test_an_exercise_is_solved_with_or_without_it(self, run, exercises, passed):
        result = run(exercises=exercises)
        result.assert_outcomes(passed=passed, skipped=7 - passed)
        result.stdout.fnmatch_lines(["*1 solved, 0 begun, 1 not started*"])

    def test_one_that_is_used_wrongly_is_not_solved(self, run):
        result = run(exercises=UNUSED.replace("x + x", "2 * x + times - 1"))
        result.assert_outcomes(passed=5, failed=1, skipped=1)
        result.stdout.fnmatch_lines(["*0 solved, 1 begun*", "*2 tests pass"])

    def test_the_rest_of_the_exercise_is_graded_all_the_same(self, run):
        result = run(exercises=UNUSED.replace("x + x", "3 * x"))
        result.stdout.fnmatch_lines(["*0 solved, 1 begun*", "*1 of 2 tests pass"])

    def test_grade_lets_it_be_unused(self, run):
        run("--grade", exercises=UNUSED).assert_outcomes(passed=5, failed=1, skipped=1)

    def test_the_reference_must_use_it(self, run):
        result = run(reference=REFERENCE.replace("**times", ""))
        result.assert_outcomes(passed=3, failed=1, skipped=3)
        result.stdout.fnmatch_lines(["the reference must use every door: *times is not used"])


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


REFUSES = "def double(x, times=1):\n    if x < 0:\n        raise ValueError(x)\n    return 2 * x\n"
OF_REFUSING = """
import pytest

@pytest.mark.exercise("double")
def test_a_negative_number_is_an_error(impl):
    with pytest.raises(ValueError):
        impl.double(-1)
"""


@pytest.mark.parametrize("check", ["assert x >= 0, x", "if x < 0: raise KeyError(x)"])
def test_another_error_than_the_one_asked_for_is_told_with_both(run, check):
    exercises = f"def double(x, times=1):\n    {check}\n    return 2 * x\n"
    result = run(
        exercises=exercises,
        reference=REFUSES,
        misconceptions=None,
        **{"tests/deep/test_toy": OF_REFUSING},
    )
    result.stdout.re_match_lines([r".*(AssertionError|KeyError) in double, 77_toy/exercises.py:2"])
    result.stdout.re_match_lines([r".*double should raise a ValueError here"])


def test_gradients_that_an_exercise_has_switched_off_are_on_for_the_next_test():
    with grades.outlived():
        torch.set_grad_enabled(False)
    assert torch.is_grad_enabled()
