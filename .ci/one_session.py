"""Many answers to a module, each graded by the tests of its exercise, in one session of pytest."""

import importlib.util
import io
import linecache
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_transformer.capstone.cli  # noqa: F401  before a wrong answer changes what it needs
from tiny_transformer.setup.grading import grades
from tiny_transformer.setup.grading.blocks import render, waiting
from tiny_transformer.setup.grading.grades import Grades, exercise_of, variant_of
from tiny_transformer.setup.grading.progress import folders

ROOT = Path(__file__).parents[1]
FOLDERS = folders(ROOT)


@dataclass(frozen=True)
class Graded:
    """What came of an answer: how many tests failed or were skipped, and what a learner reads."""

    failed: int
    skipped: int
    text: str
    seconds: float


class Grader(Grades):
    """The course's own grading, of any text that is put in the place of exercises.py."""

    def __init__(self, root: Path, folder: str, config: pytest.Config, work: Callable) -> None:
        super().__init__(root, config)
        self.folder, self.work, self.done = folder, work, False
        self.explaining, self.skipped = True, 0
        self.kills, self.limited, self.elsewhere = Counter(), set(), set()

    def grade(self, exercise: str, text: str, quick: bool = False) -> Graded:
        """Quick is until the first test that does not pass, without finding out why.

        The first quick answer, which should be right, sets how long the others may take; what it
        skips is for another machine.
        """
        begun = time.monotonic()
        for book in (self.blocks, self.failed, self.broken, self.endless):
            book.clear()
        self.explaining, self.skipped = not quick, 0
        self.load(text)
        items = [item for item in self.session.items if "impl" in item.fixturenames]
        items = [item for item in items if exercise_of(item) == exercise]
        items = [item for item in items if variant_of(item) == "exercises"]
        items = [item for item in items if item.nodeid not in self.elsewhere]
        for item in sorted(items, key=lambda item: -self.kills[item.nodeid] if quick else 0):
            item._initrequest()
            item._report_sections.clear()
            module = item.getparent(pytest.Module)  # whose fixtures are kept
            started = time.monotonic()
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=module)
            if quick and item.nodeid not in self.limited:
                self.limited.add(item.nodeid)
                limit = 3 + 5 * (time.monotonic() - started)  # a wrong answer may never end
                item.add_marker(pytest.mark.timeout(limit, func_only=True), append=False)
                self.elsewhere |= {item.nodeid} if self.skipped else set()
                self.skipped = 0
            if quick and (self.failed or self.skipped):
                self.kills[item.nodeid] += 1
                break
        blocks = list(self.blocks.values())
        waiting(blocks, self.root)
        told = "" if quick else "\n".join(render(blocks, 80, self.root))
        return Graded(len(self.failed), self.skipped, told, time.monotonic() - begun)

    def load(self, text: str) -> None:
        file = self.root / self.folder / "exercises.py"
        file.write_text(text, encoding="utf-8")
        name = f"tiny_transformer.{self.folder[3:]}.exercises"
        spec = importlib.util.spec_from_file_location(name, file)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        linecache.clearcache()
        sys.dont_write_bytecode = True
        try:
            spec.loader.exec_module(module)
        except Exception:
            del sys.modules[name]
            raise

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        torch.manual_seed(0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.session = session
        self.work(self)
        self.done = True
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.skipped += report.skipped

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self) -> Any:
        """An answer that raises KeyboardInterrupt, as module 09's may, does not end the session."""
        try:
            with torch.enable_grad():  # which an answer may leave switched off
                return (yield)
        except KeyboardInterrupt as interrupt:
            if not (traceback.extract_tb(interrupt.__traceback__)[-1].line or "").startswith(
                "raise"
            ):
                raise
            pytest.fail("interrupted")

    def find_out(self, *failed: object) -> None:
        if self.explaining:
            super().find_out(*failed)

    def pytest_terminal_summary(self) -> None:
        pass


class Course:
    """What the course's conftest.py gives to a run."""

    def __init__(self, root: Path, folder: str, work: Callable[[Grader], None]) -> None:
        self.root, self.folder, self.work = root, folder, work

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        parser.addoption("--grade", action="store_true")

    def pytest_configure(self, config: pytest.Config) -> None:
        for marker in grades.MARKERS:
            config.addinivalue_line("markers", marker)
        self.grader = Grader(self.root, self.folder, config, self.work)
        config.pluginmanager.register(self.grader)


def in_one_session(folder: str, work: Callable[[Grader], None]) -> None:
    """Do `work` where the tests of the module are collected and an answer is graded in no time."""
    torch.set_num_threads(1)
    here = os.getcwd()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        (root / folder / "tests").mkdir(parents=True)
        for test in (ROOT / folder / "tests").glob("*.py"):
            text = test.read_text(encoding="utf-8")
            if "mark.exercise" in text or test.name == "conftest.py":
                (root / folder / "tests" / test.name).write_text(text, encoding="utf-8")
        (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
        course = Course(root, folder, work)
        arguments = [root / folder, "-c", root / "pytest.ini", "-p", "no:cacheprovider"]
        os.chdir(root)  # a wrong answer may write or delete where it stands
        try:
            with redirect_stdout(said), redirect_stderr(said):
                pytest.main([*map(str, arguments), "--tb=native"], plugins=[course])
        finally:
            os.chdir(here)
    if not course.grader.done:
        raise RuntimeError(f"{folder} could not be graded:\n{said.getvalue()[-3000:]}")


def solved(folder: str) -> str:
    return (ROOT / folder / "tests" / "solved.py").read_text(encoding="utf-8")
