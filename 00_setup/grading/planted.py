"""The tests of the tests: `pytest --misconceptions` plants each known bug in the reference."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_transformer.setup.grading.diagnosis import misconceptions
from tiny_transformer.setup.grading.grades import exercise_of, topic_of, variant_of

Bug = tuple[str, int]  # a topic, and which of its misconceptions


class PlantedBugs:
    """A run in which each known bug must fail at least one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.planted: set[Bug] = set()
        self.caught: set[Bug] = set()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "impl" not in metafunc.fixturenames:
            return
        exercise = exercise_of(metafunc.definition)
        topic = topic_of(metafunc.definition.path, self.root)
        bugs = [
            pytest.param((topic, i), id=f"bug{i}")
            for i, bug in enumerate(misconceptions(topic))
            if bug.exercise == exercise
        ]
        none = pytest.mark.skip(reason=f"no misconception of {exercise} is known")
        metafunc.parametrize(
            "impl", bugs or [pytest.param(None, id="no bug", marks=none)], indirect=True
        )

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        others = [item for item in items if "impl" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if variant_of(item) in self.caught:
            pytest.skip("another test has caught this bug")

    @pytest.fixture
    def impl(self, request: pytest.FixtureRequest) -> SimpleNamespace:
        """The reference with one known bug."""
        topic, index = request.param
        bug = misconceptions(topic)[index]
        reference = importlib.import_module(f"tiny_transformer.{topic}.reference")
        return SimpleNamespace(**{**vars(reference), bug.exercise: bug.wrong})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo
    ) -> pytest.TestReport:
        report = yield
        if bug := variant_of(item):
            report.user_properties.append(("caught" if report.failed else "planted", bug))
            if report.failed:  # which is what the test is for
                report.outcome = "passed" if report.when == "call" else "skipped"
                report.longrepr = (str(item.path), item.location[1], "caught while setting up")
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, bug in report.user_properties:
            if name in ("planted", "caught"):
                self.planted.add(tuple(bug))
            if name == "caught":
                self.caught.add(tuple(bug))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.planted - self.caught:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("Misconceptions")
        for topic, index in sorted(self.planted - self.caught):
            bug = misconceptions(topic)[index]
            terminalreporter.write_line(f"NOT CAUGHT {topic}.{bug.exercise}: {bug.hint}", red=True)
        terminalreporter.write_line(f"{len(self.caught)} of {len(self.planted)} known bugs caught")
