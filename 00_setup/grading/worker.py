"""Runs the tests of some exercises out of sight, and says what a learner is to read of it."""

import io
import multiprocessing
import os
import signal
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

import pytest

from tiny_transformer.setup.grading.blocks import render
from tiny_transformer.setup.grading.grades import Grades, exercise_of, folder_of, variant_of
from tiny_transformer.setup.grading.progress import graded

Wanted = dict[str, set[str]]  # folder, names of exercises
FORKS = hasattr(os, "fork")


@dataclass
class Answer:
    """What a run has to say: all blocks as pytest ends with them, and the first one alone."""

    blocks: list[str] = field(default_factory=list)
    first: tuple[str, str] | None = None  # folder and name of the exercise whose block comes first
    block: list[str] = field(default_factory=list)
    traceback: list[str] = field(default_factory=list)
    ungraded: list[str] = field(default_factory=list)  # "gelu needs tanh, which is not started"
    broken: str = ""  # why no test could run


class Listener:
    """Lets only the tests of what is wanted run, and hears how they went."""

    def __init__(self, root: Path, wanted: Wanted):
        self.root, self.wanted = root, wanted
        self.grades: Grades | None = None
        self.ungraded: dict[str, None] = {}
        self.broken = ""

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        self.grades = next(
            plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, Grades)
        )
        items[:] = [
            item
            for item in items
            if variant_of(item) == "exercises"
            and exercise_of(item) in self.wanted.get(folder_of(item.path, self.root), ())
        ]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken = self.broken or report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        graded = dict(report.user_properties).get("graded")
        if graded and graded[-1] is None and report.skipped:
            self.ungraded[str(report.longrepr[2]).removeprefix("Skipped: ")] = None


def run(root: Path, wanted: Wanted, width: int) -> Answer:
    """Run the tests of these exercises on the learner's code. The results are remembered."""
    tests = [t for folder, of in wanted.items() for name in of for t in graded(root, folder)[name]]
    files = sorted({str(root / test.partition("::")[0]) for test in tests})
    listener, said = Listener(root, wanted), io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = pytest.main(["-q", f"--rootdir={root}", *files], plugins=[listener])
    answer = Answer(ungraded=list(listener.ungraded), broken=listener.broken)
    if listener.grades is None or status not in (0, 1, 5):
        answer.broken = answer.broken or said.getvalue().strip()
        return answer
    grades = listener.grades
    keys = sorted(grades.blocks, key=grades.in_course_order)
    blocks = [grades.blocks[key] for key in keys]
    answer.blocks = list(render(blocks, width, root))
    for key, block in zip(keys, blocks, strict=True):
        if not block.waits_for:
            answer.first = key
            _, *answer.block = render([block], width, root)  # below its name
            answer.traceback = within_the_course(block.shown.error, root)
            break
    return answer


def within_the_course(error: BaseException, root: Path) -> list[str]:
    """A traceback, of which only the steps in the course's own modules are told."""
    lines = []
    for step in traceback.extract_tb(error.__traceback__):
        file = Path(step.filename).resolve()
        parts = file.relative_to(root).parts if file.is_relative_to(root) else ("",)
        if parts[0][:1].isdigit() and "grading" not in parts:
            where = file.relative_to(root).as_posix()
            lines += [f"{where}:{step.lineno}, in {step.name}", f"    {step.line}"]
    return [*lines, *"".join(traceback.format_exception_only(error)).splitlines()]


class Run:
    """A run in a process of its own, which can be stopped.

    Where processes fork, it starts from one that has imported PyTorch and the course already.
    """

    context = multiprocessing.get_context("forkserver" if FORKS else "spawn")

    def __init__(self, root: Path, wanted: Wanted, width: int):
        self.wanted, self.begun = wanted, time.monotonic()
        self.connection, theirs = self.context.Pipe(duplex=False)
        self.process = self.context.Process(target=send, args=(theirs, root, wanted, width))
        self.start = Thread(target=self.start_it, args=(theirs,))  # which may have to wait
        self.start.start()

    def start_it(self, theirs: Connection) -> None:
        self.process.start()
        theirs.close()

    @classmethod
    def prepare(cls) -> None:
        if FORKS:
            from multiprocessing import forkserver

            cls.context.set_forkserver_preload(["tiny_transformer.setup.grading.warm"])
            forkserver.ensure_running()

    def answer(self) -> Answer | None:
        """What came of it, or None while it runs."""
        if self.start.is_alive() or not self.connection.poll():
            return None
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return Answer(broken=f"the tests ended without an answer ({self.process.exitcode})")

    def stop(self) -> None:
        self.start.join()
        with suppress(OSError):
            if FORKS:
                os.killpg(self.process.pid, signal.SIGKILL)  # with what its tests have started
        self.process.kill()
        self.process.join()
        self.connection.close()


def send(connection: Connection, root: Path, wanted: Wanted, width: int) -> None:
    if FORKS:
        os.setpgrp()
    connection.send(run(root, wanted, width))
