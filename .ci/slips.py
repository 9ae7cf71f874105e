"""Natural mistakes, one at a time in a solved course: what the terminal says of each of them.

`python .ci/slips.py [MODULE...]` prints a verdict for each; `.ci/test_slips.py` asserts them.
"""

import ast
import importlib.util
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from one_session import FOLDERS, Grader, in_one_session, solved

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


def slips_of(folder: str, extra: bool) -> list[Slip]:
    file = Path(__file__).parent / "slips" / f"{folder[:2]}.py"
    if not file.exists():
        return []
    spec = importlib.util.spec_from_file_location(f"slips_{folder[:2]}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [*module.SLIPS, *(getattr(module, "EXTRA", ()) if extra else ())]


def with_slip(answers: str, slip: Slip) -> str:
    """The solved file, in which the slip's code stands in the place of its exercise."""
    node = next(n for n in ast.parse(answers).body if getattr(n, "name", None) == slip.exercise)
    lines = answers.splitlines()
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


def verdicts(folder: str, only: str = "", extra: bool = True) -> list[Verdict]:
    """What comes of each slip; the `extra` ones take as long again, and more."""
    found = []

    def grade_all(grader: Grader) -> None:
        for slip in slips_of(folder, extra):
            if re.search(only, f"{slip.exercise} {slip.name}"):
                graded = grader.grade(slip.exercise, with_slip(solved(folder), slip))
                found.append(Verdict(slip, graded.failed, graded.text, graded.seconds))

    in_one_session(folder, grade_all)
    return found


def main() -> None:
    only = next((a.removeprefix("--only=") for a in sys.argv[1:] if a.startswith("--only=")), "")
    chosen = [a for a in sys.argv[1:] if not a.startswith("--")]
    counts, seconds = Counter(), 0.0
    for folder in FOLDERS:
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
