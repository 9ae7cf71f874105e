"""Runs each module's tests against its reference and against your exercises.

An exercise that still raises NotImplementedError counts as not started: its tests are skipped,
so a fresh checkout is green and what you have begun is graded. `--grade` fails it instead.
What fails begins with a diagnosis, and each run ends with how far you are.
"""

import functools
import importlib
import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter

from tiny_transformer.setup.grading import progress
from tiny_transformer.setup.grading.diagnosis import diagnose, where_it_stopped, why_broken

SECONDS = 30  # an exercise's test that takes longer is stopped: an endless loop, most likely
MARKERS = (
    "exercise(name): the exercise that this test grades",
    "door: of an optional argument that an exercise may leave unused; then the test skips",
)


class Grades:
    """A run on the references and your exercises, and its books, which tell how far you are."""

    def __init__(self, root: Path, config: pytest.Config) -> None:
        self.root = root
        self.config = config
        self.tests: dict[tuple[str, str], dict[str, bool | None]] = defaultdict(dict)
        self.broken: set[str] = set()  # topics whose exercises.py cannot be imported
        self.endless: set[tuple[str, str]] = set()  # exercises that were stopped
        self.diagnosis_of = functools.cache(diagnose)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "impl" not in metafunc.fixturenames:
            return
        test = metafunc.definition
        self.tests[folder_of(test.path, self.root), exercise_of(test)][test.nodeid] = (
            None  # not yet
        )
        yours = pytest.param("exercises", marks=pytest.mark.timeout(SECONDS))
        metafunc.parametrize("impl", ["reference", yours], indirect=True)

    @pytest.fixture
    def impl(self, request: pytest.FixtureRequest) -> ModuleType:
        """The module under test: its reference or your exercises."""
        if request.param == "exercises":
            return self.begun_exercises(request.node)
        topic = topic_of(request.path, self.root)
        return importlib.import_module(f"tiny_transformer.{topic}.reference")

    def begun_exercises(self, test: pytest.Item) -> ModuleType:
        """The module's exercises.py; the test is skipped where its exercise is not even a stub."""
        topic, exercise = topic_of(test.path, self.root), exercise_of(test)
        file = f"{folder_of(test.path, self.root)}/exercises.py"
        if topic in self.broken:
            pytest.skip(f"{file} cannot be imported; the first failure says why")
        if (topic, exercise) in self.endless:
            pytest.skip(f"{exercise} does not end; the first failure says where")
        name = f"tiny_transformer.{topic}.exercises"
        present = importlib.util.find_spec(name) is not None
        try:
            module = importlib.import_module(name) if present else None
        except Exception as error:
            self.broken.add(topic)
            pytest.fail(why_broken(error, self.root, file), pytrace=False)
        if not hasattr(module, exercise):
            reason = f"{file} has no {exercise}" if present else f"there is no {file}"
            (pytest.fail if self.config.getoption("grade") else pytest.skip)(reason)
        return module

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo
    ) -> pytest.TestReport:
        report = yield
        variant = variant_of(item)
        door = report.when == "call" and item.get_closest_marker("door") is not None
        elsewhere = report.when == "setup" and item.get_closest_marker("skipif") is not None
        if variant == "reference" and report.skipped and door:
            report.outcome = "failed"
            report.longrepr = f"the reference must use every door: {report.longrepr[2]}"
        if variant != "exercises":
            return report
        exercise = exercise_of(item)
        stub = report.failed and not_started(call.excinfo, exercise, self.root)
        if stub and not self.config.getoption("grade"):
            report.outcome, report.longrepr = "skipped", stub
        elif report.failed and not stub and (hint := self.why_wrong(item, call.excinfo)):
            report.longrepr = Explained(hint, report.longrepr)
        if report.when == "call" or not report.passed:
            right = report.passed or report.skipped and (door or elsewhere)
            graded = folder_of(item.path, self.root), exercise, item.nodeid.split("[")[0], right
            report.user_properties.append(("graded", graded))
        return report

    def why_wrong(self, item: pytest.Item, error: pytest.ExceptionInfo) -> str | None:
        """What a failure means, as far as the probe and the place where it fell can tell."""
        topic, exercise = topic_of(item.path, self.root), exercise_of(item)
        if error.errisinstance(pytest.fail.Exception) and "Timeout" in str(error.value):
            self.endless.add((topic, exercise))
            return (
                f"Your {exercise} has not ended within {SECONDS} s. Is there a loop without an end?"
            )
        attempt = getattr(item.funcargs.get("impl"), exercise, None)
        if attempt is None:  # a fixture failed before there was anything to diagnose
            return None
        hints = [where_it_stopped(error.value, self.root)]
        try:
            hints.append(
                self.diagnosis_of(topic, exercise, attempt)
                or f"On plain input your {exercise} is right. What it misses is the case of this "
                f"test: {item.originalname.removeprefix('test_').replace('_', ' ')}."
            )
        except (Exception, pytest.fail.Exception):  # it crashes on plain input, or does not end
            pass
        return "\n".join(filter(None, hints))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if graded := dict(report.user_properties).get("graded"):
            folder, exercise, test, right = graded
            tests = self.tests[folder, exercise]
            tests[test] = right and tests.get(test) is not False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield
        if not self.tests or self.config.getoption("collectonly"):
            return
        before = progress.read_results(self.root)
        results = progress.merged(self.root, before, self.tests)
        if self.config.pluginmanager.has_plugin("cacheprovider"):  # else nothing is remembered
            self.config.cache.set("course/results", results)
        folders = sorted({folder for folder, _ in self.tests})
        terminalreporter.section("Progress")
        for folder in folders:
            terminalreporter.write_line(progress.summary(self.root, folder, results))
        for line in progress.to_compare(self.root, folders, before, results):
            terminalreporter.write_line(line)


def folder_of(path: Path, root: Path) -> str:
    """01_attention/tests/test_attention.py -> 01_attention"""
    return path.relative_to(root).parts[0]


def topic_of(path: Path, root: Path) -> str:
    """01_attention/tests/test_attention.py -> attention"""
    return folder_of(path, root).lstrip("0123456789_")


def exercise_of(test: pytest.Item) -> str:
    marker = test.get_closest_marker("exercise")
    if marker is None:
        pytest.fail(f"{test.name} uses `impl`; mark the exercise it grades", pytrace=False)
    return marker.args[0]


def variant_of(test: pytest.Item) -> str | tuple[str, int] | None:
    """What `impl` stands for in a test: "reference", "exercises" or a known bug."""
    return test.callspec.params.get("impl") if hasattr(test, "callspec") else None


def not_started(
    error: pytest.ExceptionInfo, exercise: str, root: Path
) -> tuple[str, int, str] | None:
    """File, line and reason of the stub in exercises.py that raised `error`, if one did."""
    last = error.traceback[-1]
    path = Path(last.path)
    if path.name != "exercises.py" or not error.errisinstance(NotImplementedError):
        return None
    owner = last.frame.f_locals.get("self")
    stub = last.name if owner is None else type(owner).__name__
    reason = f"not started: {stub}"
    if stub != exercise:
        reason = f"{exercise} needs {stub}, which is not started"
    return path.relative_to(root).as_posix(), last.lineno + 1, reason


class Explained(TerminalRepr):
    """A failure with its diagnosis above the traceback, and in its line of the summary."""

    def __init__(self, hint: str, failure: object):
        self.hint, self.failure = hint, failure
        crash = getattr(failure, "reprcrash", None)
        self.reprcrash = crash and ReprFileLocation(crash.path, crash.lineno, hint)

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.sep("-", "Diagnosis", bold=True)
        tw.line(self.hint)
        tw.sep("-", "Traceback")
        self.failure.toterminal(tw)
