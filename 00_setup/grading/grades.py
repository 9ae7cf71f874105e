"""Runs each module's tests against its reference and against your exercises.

An exercise that still raises NotImplementedError counts as not started: its tests are skipped,
so a fresh checkout is green and what you have begun is graded. `--grade` fails it instead.
A run ends with a block for each wrong exercise, and with how far you are.
"""

import importlib
import importlib.util
import inspect
import io
import re
import shutil
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from _pytest.runner import runtestprotocol

from tiny_transformer.setup.grading import progress
from tiny_transformer.setup.grading.blocks import Block, Failure, render, waiting
from tiny_transformer.setup.grading.diagnosis import (
    Misconception,
    diagnose,
    misconceptions,
    why_broken,
)
from tiny_transformer.setup.grading.recording import Recorder, same_calls

SECONDS = 30  # an exercise's test that takes longer is stopped: an endless loop, most likely
PATIENCE = 2.0  # seconds in which to find out what an exercise does
ROUNDED_OR_PASSING = (  # in two failures that are alike: the answers themselves are compared
    r"0x[0-9a-f]+|tiny_transformer\.\w+\.\w+|/[\w./-]+|\d+\.\d+(e[-+]\d+)?|(Greatest|Mismatched) .*"
)
MARKERS = (
    "exercise(name): the exercise that this test grades",
    "door: of an optional argument that an exercise may leave unused; then the test skips",
)


class Grades:
    """A run on the references and your exercises, and its books, which tell how far you are."""

    def __init__(self, root: Path, config: pytest.Config) -> None:
        self.root = root
        self.config = config
        self.tests: dict[tuple[str, str], dict[str, list[bool | None]]] = defaultdict(dict)
        self.broken: set[str] = set()  # topics whose exercises.py cannot be imported
        self.endless: set[tuple[str, str]] = set()  # exercises that were stopped
        self.blocks: dict[tuple[str, str], Block] = {}
        self.told_by_others: list[str] = []  # by the processes of pytest-xdist
        self.failed: dict[str, pytest.ExceptionInfo] = {}  # by the id of the test
        self.trial: Trial | None = None
        self.on_plain_input: dict[Any, str | None] = {}  # what `diagnose` says of each exercise
        self.begun_with = progress.exercises_of(root)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "impl" not in metafunc.fixturenames:
            return
        test = metafunc.definition
        self.tests[folder_of(test.path, self.root), exercise_of(test)][test.nodeid] = []
        yours = pytest.param("exercises", marks=pytest.mark.timeout(SECONDS))
        metafunc.parametrize("impl", ["reference", yours], indirect=True)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """`pytest -k causal_mask` selects an exercise by its name."""
        if (marker := item.get_closest_marker("exercise")) is not None:
            item.extra_keyword_matches.add(marker.args[0])

    @pytest.fixture
    def impl(self, request: pytest.FixtureRequest) -> ModuleType:
        """The module under test: its reference or your exercises."""
        if self.trial is not None:
            return self.trial.recorder.impl
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
        except (Exception, SystemExit) as error:
            self.broken.add(topic)
            pytest.fail(why_broken(error, self.root, file), pytrace=False)
        if not hasattr(module, exercise):
            reason = f"{file} has no {exercise}" if present else f"there is no {file}"
            (pytest.fail if self.config.getoption("grade") else pytest.skip)(reason)
        return module

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Any:
        with outlived():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo
    ) -> pytest.TestReport:
        left_out = self.trial or variant_of(item) == "exercises" and not self.asked
        with self.tracebacks_left_out() if left_out else nullcontext():
            report = yield
        if self.trial is not None:
            if report.failed:
                self.trial.error = call.excinfo.value
            return report
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
        elif report.failed and not stub:
            self.failed[item.nodeid] = call.excinfo
            report.user_properties.append(("yours", True))
        if report.when == "call" or not report.passed:
            unrun = (stub or report.skipped) and not (door or elsewhere)
            right = None if unrun else not report.failed
            graded = folder_of(item.path, self.root), exercise, item.nodeid.split("[")[0], right
            report.user_properties.append(("graded", graded))
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        """After a test of yours that failed, find out why, by running it again."""
        done = yield
        if (error := self.failed.get(item.nodeid)) is not None:
            self.find_out(item, nextitem, error)
        return done

    def find_out(
        self, item: pytest.Item, nextitem: pytest.Item | None, error: pytest.ExceptionInfo
    ) -> None:
        topic, exercise = topic_of(item.path, self.root), exercise_of(item)
        folder = folder_of(item.path, self.root)
        sections = item._report_sections
        printed = "".join(
            text for when, name, text in sections if (when, name) == ("call", "stdout")
        )
        failure = Failure("" if topic in self.broken else in_words(item), error.value, printed)
        if error.errisinstance(pytest.fail.Exception) and "Timeout" in str(error.value):
            self.endless.add((topic, exercise))
            failure.hint = (
                f"Your {exercise} has not ended within {SECONDS} s. Is there a loop without an end?"
            )
        block = self.blocks.setdefault(
            (folder, exercise), Block(exercise, self.place(folder, exercise))
        )
        block.failures.append(failure)
        module = importlib.util.find_spec(f"tiny_transformer.{topic}.exercises")
        if failure.hint or block.seconds > PATIENCE or module is None or topic in self.broken:
            return
        begun = time.monotonic()
        yours = importlib.import_module(f"tiny_transformer.{topic}.exercises")
        reference = importlib.import_module(f"tiny_transformer.{topic}.reference")
        self.compare(item, nextitem, failure, yours, reference)
        block.seconds += time.monotonic() - begun

    def compare(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        failure: Failure,
        yours: ModuleType,
        reference: ModuleType,
    ) -> None:
        """Record what the test gets from you, from the reference, and from each known mistake."""
        topic, exercise = topic_of(item.path, self.root), exercise_of(item)
        methods = public(getattr(reference, exercise))
        again = self.tried(item, nextitem, Recorder(yours, exercise, methods))
        right = self.tried(item, nextitem, Recorder(reference, exercise, methods, again.recorder))
        failure.yours, failure.ours = again.recorder.calls, right.recorder.calls
        if again.error is None or right.error is not None:
            return
        for bug in self.alike(topic, exercise, yours):
            planted = SimpleNamespace(**{**vars(reference), exercise: bug.wrong})
            recorder = Recorder(planted, exercise, methods, again.recorder)
            if again.tells_as(self.tried(item, nextitem, recorder)):
                failure.hint = bug.hint
                return

    def alike(self, topic: str, exercise: str, yours: ModuleType) -> list[Misconception]:
        """The known mistakes that give on plain input what this exercise gives."""
        attempt = getattr(yours, exercise)
        if attempt not in self.on_plain_input:
            quiet = redirect_stdout(io.StringIO())
            with suppress(Exception, pytest.fail.Exception), quiet, outlived():
                self.on_plain_input[attempt] = diagnose(topic, exercise, attempt)
        hint = self.on_plain_input.setdefault(attempt, None)
        return [
            bug for bug in misconceptions(topic) if (bug.exercise, bug.hint) == (exercise, hint)
        ]

    def tried(self, item: pytest.Item, nextitem: pytest.Item | None, recorder: Recorder) -> "Trial":
        trial = self.trial = Trial(recorder)
        try:
            item._initrequest()
            runtestprotocol(item, log=False, nextitem=nextitem)
        finally:
            self.trial = None
        return trial

    def place(self, folder: str, exercise: str) -> str:
        file = self.root / folder / "exercises.py"
        node = progress.definitions(file).get(exercise)
        return f"{folder}/exercises.py" + (f":{node.lineno}" if node else "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if graded := dict(report.user_properties).get("graded"):
            folder, exercise, test, right = graded
            self.tests[folder, exercise].setdefault(test, []).append(right)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        with self.failures_hidden(terminalreporter):
            yield
        if not self.tests or self.config.getoption("collectonly"):
            return
        self.tell(terminalreporter)
        now = progress.exercises_of(self.root)
        folders = sorted({folder for folder, _ in self.tests})
        saved = [folder for folder in folders if now.get(folder) != self.begun_with.get(folder)]
        ran = {key: tests for key, tests in self.tests.items() if key[0] not in saved}
        before = progress.read_results(self.root)
        results = progress.merged(self.root, before, ran)
        if self.config.pluginmanager.has_plugin("cacheprovider"):  # else nothing is remembered
            progress.remember(self.root, lambda book: book.update(results=results))
        terminalreporter.section("Progress")
        for folder in saved:
            line = f"{folder}/exercises.py was saved meanwhile: its tests are to be run again"
            terminalreporter.write_line(line)
        for line in progress.report(self.root, folders, results):
            terminalreporter.write_line(line)
        for line in progress.to_compare(self.root, folders, before, results):
            terminalreporter.write_line(line)

    @property
    def asked(self) -> bool:
        """Whether somebody wants to see the tracebacks of yours."""
        option = self.config.getoption
        return option("tbstyle", "auto") != "auto" or option("verbose", 0) > 0

    @contextmanager
    def tracebacks_left_out(self) -> Iterator[None]:
        """Meanwhile pytest does not parse whole files to show where a test has failed."""
        style = self.config.getoption("tbstyle", "auto")
        self.config.option.tbstyle = "value"
        yield
        self.config.option.tbstyle = style

    @contextmanager
    def failures_hidden(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        """Meanwhile pytest shows no tracebacks of yours, unless it was asked for them."""
        stats = {name: terminalreporter.stats.get(name, []) for name in ("failed", "error")}
        for name, reports in stats.items() if not self.asked else ():
            terminalreporter.stats[name] = [
                report for report in reports if ("yours", True) not in properties(report)
            ]
        yield
        terminalreporter.stats.update({name: reports for name, reports in stats.items() if reports})

    def tell(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not (lines := [*self.told_by_others, *self.told()]):
            return
        terminalreporter.section("What is wrong")
        for line in [*lines, "", "(with --tb=short also the tracebacks)"]:
            terminalreporter.write_line(line)

    def told(self) -> list[str]:
        blocks = [self.blocks[key] for key in sorted(self.blocks, key=self.in_course_order)]
        waiting(blocks, self.root)
        width = min(100, shutil.get_terminal_size().columns)
        return list(render(blocks, width, self.root))

    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["told"] = self.told()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A process of pytest-xdist, which had whole modules, has ended."""
        self.told_by_others += getattr(node, "workeroutput", {}).get("told", [])

    def in_course_order(self, key: tuple[str, str]) -> tuple[str, int]:
        names = list(progress.definitions(self.root / key[0] / "exercises.py"))
        return key[0], names.index(key[1]) if key[1] in names else len(names)


def properties(report: Any) -> list[tuple[str, Any]]:
    return getattr(report, "user_properties", [])  # those of collecting have none


@contextmanager
def outlived() -> Iterator[None]:
    """Makes an exit() or a KeyboardInterrupt of an exercise a failure like others.

    Gradients that an exercise has switched off are on again afterwards.
    """
    try:
        with torch.enable_grad():
            yield
    except (KeyboardInterrupt, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        in_exercise = Path(last.filename).name == "exercises.py" and last.line.startswith("raise")
        if isinstance(error, KeyboardInterrupt) and not in_exercise:
            raise  # somebody has pressed Ctrl-C
        told = RuntimeError(f"it raised {type(error).__name__}, which ends a program")
        raise told.with_traceback(error.__traceback__) from None


class Trial:
    """A test run once more, for what can be learned from it."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.error: BaseException | None = None

    def tells_as(self, other: "Trial") -> bool:
        """Whether both answered the test alike, and failed it with the same words."""
        return (
            other.error is not None
            and self.words == other.words
            and same_calls(self.recorder.calls, other.recorder.calls)
        )

    @property
    def words(self) -> str:
        """Without what is another one each time, and without numbers, which are rounded."""
        told, _, _ = f"{type(self.error).__name__}: {self.error}".partition("\n +")
        return re.sub(ROUNDED_OR_PASSING, "...", told)


def public(exercise: Any) -> list[str]:
    if not inspect.isclass(exercise):
        return []
    return [name for name in vars(exercise) if not name.startswith("_")]


def in_words(item: pytest.Item) -> str:
    """test_agrees_with_torch[exercises-2-True] -> agrees with torch, B=2, causal=True"""
    words = item.originalname.removeprefix("test_").replace("_", " ")
    params = {k: v for k, v in item.callspec.params.items() if k != "impl"}
    for changes in [v for v in params.values() if isinstance(v, dict)]:
        params = {k: v for k, v in params.items() if v is not changes} | changes
    told = [f"{k}={getattr(v, '__name__', v)}" for k, v in params.items()]
    return ", ".join([words, *(text for text in told if len(text) <= 40 and "<" not in text)])


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
