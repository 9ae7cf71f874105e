"""How far you are: each exercise solved, begun or not started, by its code and its last tests."""

import ast
import hashlib
import importlib
import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

RESULTS = Path(".pytest_cache", "v", "course", "results")
EVERY_ITEM = CollectionCheckStrategy.ALL_ITEMS


class Result(TypedDict):
    """How the tests of an exercise went, the last time that each of them ran."""

    code: str  # the digest of what they ran on
    tests: dict[str, bool]


Results = dict[str, dict[str, Result]]  # folder, name of the exercise


@dataclass(frozen=True)
class Exercise:
    """One exercise of a module, as it stands in the learner's file."""

    file: str  # 01_attention/exercises.py
    line: int
    name: str
    code: str  # a digest: results count for the code that was tested, and for no other
    stub: bool
    passed: int = 0
    tests: int = 0

    @property
    def state(self) -> str:
        if self.stub:
            return "not started"
        return "solved" if 0 < self.tests == self.passed else "begun"


def folders(root: Path) -> list[str]:
    return [path.parent.name for path in sorted(root.glob("[0-9]*_*/exercises.py"))]


def read_results(root: Path) -> Results:
    """What is remembered of earlier runs; nothing where the file is missing or holds other things.

    {"01_attention": {"causal_mask": {"code": DIGEST, "tests": {NAME: passed?}}}}
    """
    try:
        told = json.loads((root / RESULTS).read_text(encoding="utf-8"))
        return check_type(told, Results, collection_check_strategy=EVERY_ITEM)
    except (OSError, ValueError, RecursionError, TypeCheckError):
        return {}


def read_exercises(root: Path, folder: str, results: Results) -> list[Exercise]:
    """The exercises of a module, in its order: whatever its tests grade and its file defines.

    None where the file is missing or cannot be parsed.
    """
    file = root / folder / "exercises.py"
    tests = (test.read_text(encoding="utf-8") for test in file.parent.glob("tests/**/*.py"))
    graded = set(re.findall(r'mark\.exercise\("(\w+)"\)', "".join(tests)))
    found = []
    for name, node in definitions(file).items():
        if name in graded:
            code = hashlib.sha256(ast.dump(node).encode()).hexdigest()
            last = results.get(folder, {}).get(name, {})
            outcomes = last["tests"].values() if last.get("code") == code else ()
            where = file.relative_to(root).as_posix()
            found.append(
                Exercise(
                    where, node.lineno, name, code, is_stub(node), sum(outcomes), len(outcomes)
                )
            )
    return found


def definitions(file: Path) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8-sig"), str(file))  # some editors mark it
    except (OSError, ValueError, SyntaxError, RecursionError):
        return {}
    return {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def is_stub(node: ast.AST) -> bool:
    """Whether a function, or every method of a class, ends in raising NotImplementedError."""
    functions = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef)]
    return bool(functions) and all(
        isinstance(last := function.body[-1], ast.Raise)
        and isinstance(last.exc, ast.Name)
        and last.exc.id == "NotImplementedError"
        for function in functions
    )


def summary(root: Path, folder: str, results: Results) -> str:
    """A module in one line: how many exercises are solved and begun, and which comes next."""
    exercises = read_exercises(root, folder, results)
    if not exercises:
        return f"{folder:22} exercises.py is missing or cannot be parsed"
    states = [exercise.state for exercise in exercises]
    line = f"{folder:22}" + ",".join(
        f"{states.count(state):3} {state}" for state in ("solved", "begun", "not started")
    )
    coming = next((exercise for exercise in exercises if exercise.state != "solved"), None)
    if coming is None:
        return line
    line += f"   next: {coming.file}:{coming.line} {coming.name}"
    if coming.state == "begun":
        line += f", {coming.passed} of {coming.tests} tests pass" if coming.tests else ", untested"
    return line


def merged(
    root: Path, results: Results, tests: dict[tuple[str, str], dict[str, bool | None]]
) -> Results:
    """The results with those of a run: for each exercise its tests, None where one did not run.

    Such a test counts as it did before, if the code is still the same.
    """
    results = {folder: dict(of) for folder, of in results.items()}
    for folder in {folder for folder, _ in tests}:
        for exercise in read_exercises(root, folder, {}):
            now = tests.get((folder, exercise.name))
            if now is None:
                continue
            of = results.setdefault(folder, {})
            last = of.get(exercise.name, {})
            before = last["tests"] if last.get("code") == exercise.code else {}
            of[exercise.name] = {
                "code": exercise.code,
                "tests": {
                    test: before.get(test, False) if right is None else right
                    for test, right in now.items()
                },
            }
    return results


def to_compare(root: Path, of: list[str], before: Results, results: Results) -> list[str]:
    """Where the reference solves what this run has found solved, if it was not known before."""
    lines = []
    for folder in of:
        known = {e.name for e in read_exercises(root, folder, before) if e.state == "solved"}
        for exercise in read_exercises(root, folder, results):
            if exercise.state == "solved" and (exercise.name not in known or len(of) == 1):
                module = importlib.import_module(f"tiny_transformer.{folder[3:]}.reference")
                solution = inspect.unwrap(getattr(module, exercise.name))
                lines_of_it, first = inspect.getsourcelines(solution)
                file = Path(inspect.getsourcefile(solution)).resolve().relative_to(root.resolve())
                lines.append(
                    f"{exercise.name} is solved; compare with {file.as_posix()}:"
                    f"{first}-{first + len(lines_of_it) - 1}"
                )
    return lines
