"""Natural mistakes, one at a time in a solved course: what the terminal says of each of them.

`python .ci/slips.py [MODULE...]` prints a verdict for each; `.ci/test_slips.py` asserts them.
"""

import ast
import importlib.util
import io
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tiny_transformer.setup.grading import grades
from tiny_transformer.setup.grading.blocks import render, waiting
from tiny_transformer.setup.grading.grades import Grades, exercise_of, variant_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent / "slips"))
from slip import Slip  # noqa: E402


@dataclass(frozen=True)
class Verdict:
    """What came of a slip: how many tests failed, and what a learner reads."""

    slip: Slip
    failed: int
    text: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.failed > 0

    @property
    def misleading(self) -> list[str]:
        return [claim for claim in self.slip.never if re.search(claim, self.flat, re.I)]

    @property
    def missing(self) -> list[str]:
        return [words for words in self.slip.say if not re.search(words, self.flat, re.I)]

    @property
    def flat(self) -> str:
        return " ".join(self.text.split())

    @property
    def word(self) -> str:
        if self.slip.right:
            return "refused" if self.killed else "right"
        if not self.killed:
            return "accepted"
        return "misleading" if self.misleading else "not enough" if self.missing else "true"


def slips_of(folder: str) -> list[Slip]:
    file = Path(__file__).parent / "slips" / f"{folder[:2]}.py"
    if not file.exists():
        return []
    spec = importlib.util.spec_from_file_location(f"slips_{folder[:2]}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [*module.SLIPS, *getattr(module, "EXTRA", ())]


def with_slip(solved: str, slip: Slip) -> str:
    """The solved file, in which the slip's code stands in the place of its exercise."""
    node = next(n for n in ast.parse(solved).body if getattr(n, "name", None) == slip.exercise)
    lines = solved.splitlines()
    given, imports = [], []
    for part in ast.parse(slip.code).body:
        text = source(slip.code, part)
        (imports if isinstance(part, ast.Import | ast.ImportFrom) else given).append(text)
    kept = [
        *lines[: min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1],
        *"\n\n\n".join(given).splitlines(),
        *lines[node.end_lineno :],
    ]
    first = next(i for i, line in enumerate(kept) if line.startswith(("import", "from")))
    return "\n".join([*kept[:first], *imports, *kept[first:]]) + "\n"


def source(code: str, part: ast.stmt) -> str:
    """The lines of a statement, its decorators among them."""
    first = min([part.lineno, *(d.lineno for d in getattr(part, "decorator_list", []))])
    return "\n".join(code.splitlines()[first - 1 : part.end_lineno])


class Slipping(Grades):
    """Grades each slip by the tests of its exercise, all in one session."""

    def __init__(self, root: Path, folder: str, config: pytest.Config, only: str) -> None:
        super().__init__(root, config)
        self.folder, self.only, self.verdicts = folder, only, []

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        torch.manual_seed(0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        solved = (ROOT / self.folder / "tests" / "solved.py").read_text(encoding="utf-8")
        for slip in slips_of(self.folder):
            if re.search(self.only, f"{slip.exercise} {slip.name}"):
                self.verdicts.append(self.verdict(session, slip, with_slip(solved, slip)))
        return True

    def verdict(self, session: pytest.Session, slip: Slip, text: str) -> Verdict:
        begun = time.monotonic()
        self.blocks.clear()
        self.failed.clear()
        self.broken.clear()
        self.endless.clear()
        self.load(text)
        for item in session.items:
            graded = exercise_of(item) == slip.exercise if "impl" in item.fixturenames else False
            if graded and variant_of(item) == "exercises":
                item._initrequest()
                item._report_sections.clear()
                others = (other for other in session.items if other.parent is not item.parent)
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=next(others, None))
        blocks = list(self.blocks.values())
        waiting(blocks, self.root)
        told = "\n".join(render(blocks, 80, self.root))
        return Verdict(slip, len(self.failed), told, time.monotonic() - begun)

    def load(self, text: str) -> None:
        file = self.root / self.folder / "exercises.py"
        file.write_text(text, encoding="utf-8")
        name = f"tiny_transformer.{self.folder[3:]}.exercises"
        spec = importlib.util.spec_from_file_location(name, file)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        import linecache

        linecache.clearcache()
        sys.dont_write_bytecode = True
        try:
            spec.loader.exec_module(module)
        except Exception:
            del sys.modules[name]
            raise

    def pytest_terminal_summary(self) -> None:
        pass


class Course:
    """What the course's conftest.py gives to a run."""

    def __init__(self, root: Path, folder: str, only: str):
        self.root, self.folder, self.only = root, folder, only

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        parser.addoption("--grade", action="store_true")

    def pytest_configure(self, config: pytest.Config) -> None:
        for marker in grades.MARKERS:
            config.addinivalue_line("markers", marker)
        self.grades = Slipping(self.root, self.folder, config, self.only)
        config.pluginmanager.register(self.grades)


def verdicts(folder: str, only: str = "") -> Iterator[Verdict]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        (root / folder / "tests").mkdir(parents=True)
        for test in (ROOT / folder / "tests").glob("*.py"):
            text = test.read_text(encoding="utf-8")
            if "mark.exercise" in text or test.name == "conftest.py":
                (root / folder / "tests" / test.name).write_text(text, encoding="utf-8")
        (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
        course = Course(root, folder, only)
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            pytest.main(
                [str(root / folder), "-q", "-p", "no:cacheprovider", "-c", f"{root}/pytest.ini"],
                plugins=[course],
            )
        if not course.grades.verdicts:
            print(said.getvalue()[-3000:])
        yield from course.grades.verdicts


def main() -> None:
    torch.set_num_threads(1)
    only = next((a.removeprefix("--only=") for a in sys.argv[1:] if a.startswith("--only=")), "")
    chosen = [a for a in sys.argv[1:] if not a.startswith("--")]
    counts, seconds = Counter(), 0.0
    for folder in sorted(path.parent.name for path in ROOT.glob("[0-9]*_*/exercises.py")):
        if chosen and folder[:2] not in [name[:2] for name in chosen]:
            continue
        for verdict in verdicts(folder, only):
            counts[verdict.word] += 1
            seconds += verdict.seconds
            print(f"{verdict.word:11} {folder[:2]} {verdict.slip.exercise}: {verdict.slip.name}")
            if "--show" in sys.argv or verdict.word in ("misleading", "not enough", "refused"):
                print(f"    missing {verdict.missing}, false {verdict.misleading}")
                print("\n".join(f"    | {line}" for line in verdict.text.splitlines()))
    print(dict(counts), f"{seconds:.0f} s")


if __name__ == "__main__":
    main()
