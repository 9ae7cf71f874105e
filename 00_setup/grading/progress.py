"""How far you are: each exercise solved, begun or not started, by its code and its last tests.

It is kept in 00_setup/progress.json, which you may commit and take to another machine.
"""

import ast
import hashlib
import importlib
import inspect
import json
import os
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

FILE = Path("00_setup", "progress.json")
FORMER = Path(".pytest_cache", "v", "course", "results")  # where earlier versions kept the results
WIDTH = 80
SIGNS = {"solved": "#", "begun": "+", "not started": "."}


class Version(TypedDict):
    """How the tests of an exercise went, the last time that each of them ran."""

    code: str  # the digest of what they ran on
    tests: dict[str, bool]  # without those that have not run on it


class Result(Version, total=False):
    """What is known of the code that ran last, and of the one before it that was solved."""

    solved: Version


Results = dict[str, dict[str, Result]]  # folder, name of the exercise


class Book(TypedDict):
    """All that is remembered. A place is told as in 01_attention.causal_mask."""

    results: Results
    hints: dict[str, int]  # how many of an exercise's hints were shown
    at: str  # the exercise at which `tiny-transformer learn` goes on


@dataclass(frozen=True)
class Exercise:
    """One exercise of a module, as it stands in the learner's file."""

    file: str  # 01_attention/exercises.py
    line: int
    name: str
    code: str  # a digest: results count for the code that was tested, and for no other
    stub: bool
    uses: frozenset[str] = frozenset()  # what else of the file its code needs
    passed: int = 0
    failed: int = 0
    tests: int = 0  # also those that have not run

    @property
    def state(self) -> str:
        if self.stub:
            return "not started"
        return "solved" if 0 < self.tests == self.passed else "begun"

    @property
    def untested(self) -> bool:
        return not self.stub and self.passed == self.failed == 0


def folders(root: Path) -> list[str]:
    return [path.parent.name for path in sorted(root.glob("[0-9]*_*/tests"))]


def exercises_of(root: Path) -> dict[str, bytes]:
    """What stands in each module's exercises.py, where there is one."""
    found = {}
    for folder in folders(root):
        with suppress(OSError):
            found[folder] = (root / folder / "exercises.py").read_bytes()
    return found


def read_book(root: Path) -> Book:
    """What is remembered; nothing where the file is missing or holds other things."""
    book = checked(root / FILE, Book)
    former = {} if book else renewed(root, checked(root / FORMER, Results) or {})
    return book or {"results": former, "hints": {}, "at": ""}


def read_results(root: Path) -> Results:
    return read_book(root)["results"]


def checked(file: Path, kind: Any) -> Any:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return check_type(told, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except (OSError, ValueError, RecursionError, TypeCheckError):
        return None


def remember(root: Path, change: Callable[[Book], Any]) -> None:
    """Write down a change of what is remembered, where there is anything, and where it can be.

    The file is replaced at once, so that nobody reads half of it.
    """
    book = read_book(root)
    change(book)
    if book == {"results": {}, "hints": {}, "at": ""}:
        return
    file = root / FILE
    new = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        new.write_text(json.dumps(book, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(new, file)


def renewed(root: Path, results: Results) -> Results:
    """Results as earlier versions wrote them, with today's digest of the code that they are of."""
    kept: Results = defaultdict(dict)
    for folder, of in results.items():
        nodes = definitions(root / folder / "exercises.py")
        for exercise in read_exercises(root, folder, {}):
            before = hashlib.sha256(ast.dump(nodes[exercise.name]).encode()).hexdigest()
            if exercise.name in of and of[exercise.name]["code"] == before:
                kept[folder][exercise.name] = {**of[exercise.name], "code": exercise.code}
    return dict(kept)


def read_exercises(root: Path, folder: str, results: Results) -> list[Exercise]:
    """The exercises of a module, in its order: whatever its tests grade and its file defines.

    None where the file is missing or cannot be parsed.
    """
    file = root / folder / "exercises.py"
    tests, nodes = graded(root, folder), definitions(file)
    found = []
    for name, (code, uses) in digests(nodes).items():
        node = nodes[name]
        if name not in tests or not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        last = results.get(folder, {}).get(name, {})
        known = tests_on(code, last)
        outcomes = [known.get(test) for test in tests[name]]
        found.append(
            Exercise(
                file.relative_to(root).as_posix(),
                node.lineno,
                name,
                code,
                is_stub(node),
                uses,
                outcomes.count(True),
                outcomes.count(False),
                len(outcomes),
            )
        )
    return found


def graded(root: Path, folder: str) -> dict[str, list[str]]:
    """The tests of each exercise of a module, as pytest calls them, without parameters."""
    tests = defaultdict(list)
    for file in sorted((root / folder).glob("tests/**/*.py")):
        text = file.read_text(encoding="utf-8")
        for exercise, test in graded_in(text) if "mark.exercise(" in text else ():
            tests[exercise].append(f"{file.relative_to(root).as_posix()}::{test}")
    return tests


@cache
def graded_in(text: str) -> list[tuple[str, str]]:
    try:
        body = ast.parse(text).body
    except SyntaxError:  # which pytest reports
        return []
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}

    def found(body: Iterable[ast.AST], path: str, of: str | None) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                exercise = marked(node) or of
                if isinstance(node, ast.ClassDef):
                    bases = [
                        classes[ast.unparse(b)] for b in node.bases if ast.unparse(b) in classes
                    ]
                    whole = [part for of in (*bases, node) for part in of.body]
                    yield from found(whole, f"{path}{node.name}::", exercise)
                elif exercise and node.name.startswith("test"):
                    yield exercise, path + node.name

    return list(dict.fromkeys(found(body, "", None)))


def marked(node: ast.FunctionDef | ast.ClassDef) -> str | None:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(
            "mark.exercise"
        ):
            return ast.literal_eval(decorator.args[0])
    return None


def definitions(file: Path) -> dict[str, ast.stmt]:
    """What a file defines or imports, by its name there; nothing if it cannot be parsed."""
    try:
        return defined_in(file.read_text(encoding="utf-8-sig"))  # some editors mark it
    except (OSError, ValueError, SyntaxError, RecursionError):
        return {}


@cache
def defined_in(text: str) -> dict[str, ast.stmt]:
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    found[part.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for part in node.names:
                one = type(node)(**{**dict(ast.iter_fields(node)), "names": [part]})
                name = part.asname or part.name.partition(".")[0]
                found[name] = ast.copy_location(one, node)
    return found


def digests(nodes: dict[str, ast.AST]) -> dict[str, tuple[str, frozenset[str]]]:
    """Of each definition a digest of its code and of what it uses in the file, and what that is.

    Comments, layout and docstrings do not count, and no version of Python gives another one.
    """
    own = {name: code_and_names(node) for name, node in nodes.items()}
    found = {}
    for name in nodes:
        needed, fresh = {name}, {name}
        while fresh:
            fresh = set().union(*(own[part][1] for part in fresh)) & own.keys() - needed
            needed |= fresh
        text = "\n".join(own[part][0] for part in sorted(needed))
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        found[name] = digest, frozenset(needed - {name})
    return found


@cache
def code_and_names(node: ast.AST) -> tuple[str, set[str]]:
    return essence(node), {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def essence(node: Any) -> str:
    """Like `ast.dump`, without what it writes in some versions of Python only."""
    if isinstance(node, list):
        return f"[{', '.join(map(essence, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
        parts["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 has empty texts between its parts
        parts["values"] = [p for p in node.values if getattr(p, "value", None) != ""]
    told = [
        f"{name}={essence(value)}"
        for name, value in sorted(parts.items())
        if value is not None and value != [] and name not in ("ctx", "kind", "type_comment")
    ]
    return f"{type(node).__name__}({', '.join(told)})"


@cache
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
    """A module in one line: a bar of its exercises, and how many are solved and begun."""
    exercises = read_exercises(root, folder, results)
    if not exercises:
        bar = f"[{'?' * len(graded(root, folder))}]"
        return f"{folder:22}{bar:12}exercises.py is not what it was"
    states = [exercise.state for exercise in exercises]
    lost = len(graded(root, folder)) - len(states)
    bar = "[" + "".join(SIGNS[state] for state in states) + "?" * lost + "]"
    counts = [f"{states.count(state)} {state}" for state in SIGNS] + [f"{lost} missing"] * (
        lost > 0
    )
    return f"{folder:22}{bar:12}{', '.join(counts)}"


def report(root: Path, of: list[str], results: Results) -> list[str]:
    """The bars of some modules, what their files lack, and the next step, in lines that fit."""
    lines = [summary(root, folder, results) for folder in of]
    told = [line for folder in of for line in lost(root, folder)]
    coming = next_step(root, of, results)
    if isinstance(coming, Exercise):
        told.append(f"next: {coming.file}:{coming.line} {coming.name}{outcome(coming)}")
    for line in told:
        lines += textwrap.wrap(line, WIDTH, subsequent_indent=6 * " ", break_on_hyphens=False)
    return lines


def next_step(root: Path, of: list[str], results: Results) -> Exercise | str | None:
    """The first exercise that is not solved, or what its module has lost, in a sentence."""
    for folder in of:
        if lacking := lost(root, folder):
            return lacking[0]
        for exercise in read_exercises(root, folder, results):
            if exercise.state != "solved":
                return exercise
    return None


def outcome(exercise: Exercise) -> str:
    if exercise.state != "begun":
        return ""
    if exercise.untested:
        return ", untested"
    unrun = exercise.tests - exercise.passed - exercise.failed
    told = f", {exercise.passed} of {exercise.tests} tests pass"
    return told + (f", {unrun} did not run" if unrun else "")


def lost(root: Path, folder: str) -> list[str]:
    """What is wrong with a module's exercises.py as a whole, in sentences that say what helps."""
    file, tests = f"{folder}/exercises.py", graded(root, folder)
    whole = f"tiny-transformer reset {folder} brings the stubs"
    try:
        text = (root / file).read_text(encoding="utf-8-sig")
        ast.parse(text)
    except FileNotFoundError:
        return [f"there is no {file}; {whole}"]
    except SyntaxError as error:
        return [f"{file}:{error.lineno} is no Python: {error.msg}"]
    except (OSError, ValueError, RecursionError) as error:
        return [f"{file} cannot be read: {error}"]
    defined = definitions(root / file)
    missing = [name for name in tests if name not in defined]
    if len(missing) == len(tests) > 1:
        return [f"{file} has none of its exercises; {whole}"]
    return [
        f"{file} has no {name}; tiny-transformer reset {name} brings its stub" for name in missing
    ]


def merged(
    root: Path, results: Results, ran: dict[tuple[str, str], dict[str, list[bool | None]]]
) -> Results:
    """The results with those of a run: for each exercise its tests, and how often each went well.

    A test that did not run, or not to its end (None), counts as it did before on the same code.
    """
    results = {folder: dict(of) for folder, of in results.items()}
    for folder in {folder for folder, _ in ran}:
        tests = graded(root, folder)
        for exercise in read_exercises(root, folder, {}):
            last = results.get(folder, {}).get(exercise.name, {})
            known = dict(tests_on(exercise.code, last))
            for test, went in ran.get((folder, exercise.name), {}).items():
                if False in went:
                    known[test] = False
                elif went and None not in went:
                    known[test] = True
            known = {test: right for test, right in known.items() if test in tests[exercise.name]}
            if known and not exercise.stub:
                new: Result = {"code": exercise.code, "tests": known}
                for before in (last, last.get("solved", {})):
                    right = [test for test, passed in before.get("tests", {}).items() if passed]
                    if before.get("code") != exercise.code and {*right} >= {*tests[exercise.name]}:
                        new.setdefault("solved", {"code": before["code"], "tests": before["tests"]})
                results.setdefault(folder, {})[exercise.name] = new
    return results


def tests_on(code: str, result: Result) -> dict[str, bool]:
    """How the tests went on that very code, if it ran last or was solved before."""
    versions = (result, result.get("solved", {}))
    return next((of["tests"] for of in versions if of.get("code") == code), {})


def to_compare(root: Path, of: list[str], before: Results, results: Results) -> list[str]:
    """Where the reference solves what is solved now and was not before."""
    lines = []
    for folder in of:
        known = {e.name for e in read_exercises(root, folder, before) if e.state == "solved"}
        for exercise in read_exercises(root, folder, results):
            if exercise.state == "solved" and exercise.name not in known:
                told = f"{exercise.name} is solved; compare with "
                told += solution(root, folder, exercise.name)
                lines += textwrap.wrap(told, WIDTH, subsequent_indent="    ")
    return lines


def solution(root: Path, folder: str, name: str) -> str:
    """01_attention/reference.py:13-17"""
    module = importlib.import_module(f"tiny_transformer.{folder[3:]}.reference")
    solved = inspect.unwrap(getattr(module, name))
    lines, first = inspect.getsourcelines(solved)
    file = Path(inspect.getsourcefile(solved)).resolve().relative_to(root.resolve())
    return f"{file.as_posix()}:{first}-{first + len(lines) - 1}"
