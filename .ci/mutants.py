"""Mutants: each solved.py with one thing changed, which the tests of its exercise should notice.

`python .ci/mutants.py [MODULE or EXERCISE...]` names those that pass; with `--changed` it tries
only the exercises whose solution or tests differ from main's. equivalent.toml beside this file
says of which mutants nobody could tell that they are any, and why.
"""

import ast
import copy
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from one_session import FOLDERS, ROOT, Grader, in_one_session, solved

EQUIVALENT = Path(__file__).with_name("equivalent.toml")
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
REMOVED = ast.Assign | ast.AugAssign | ast.Expr | ast.If | ast.For | ast.Raise | ast.Continue


@dataclass(frozen=True)
class Mutant:
    """A solved file with one change, and how the changed lines read before and after it."""

    exercise: str
    line: int
    before: str
    after: str
    text: str


def mutants(source: str) -> Iterator[Mutant]:
    tree = ast.parse(source)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {name.asname or name.name for node in imports for name in node.names} | {"self"}
    seen = {source}
    for definition in tree.body:
        for node in parts(definition) if hasattr(definition, "name") else ():
            for old, new in changes(node, modules):
                mutant = planted(source, definition.name, old, new)
                if mutant.text not in seen and compiles(mutant.text):
                    seen.add(mutant.text)
                    yield mutant


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """All that stands in it and can make a difference: no types, no words of an error."""
    yield node
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from parts(child)


def changes(node: ast.AST, modules: set[str]) -> Iterator[tuple[ast.AST, ast.AST | str]]:
    """What could stand in the place of which part."""

    def having(**fields: object) -> tuple[ast.AST, ast.AST]:
        new = copy.copy(node)
        vars(new).update(fields)
        return node, new

    match node:
        case ast.Constant(value=bool(value)):
            yield having(value=not value)
        case ast.Constant(value=int(value)):
            yield from (having(value=n) for n in (value + 1, value - 1) if n >= 0)
        case ast.Constant(value=float(value)):
            yield having(value=2 * value or 0.5)
        case ast.Constant(value=str(value)):
            yield having(value=value + "x")
        case ast.JoinedStr():
            yield node, ast.BinOp(node, ast.Add(), ast.Constant("x"))
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            yield having(op=OPERATORS[type(op)]())
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield having(ops=[*ops[:i], OPERATORS[type(op)](), *ops[i + 1 :]])
        case ast.UnaryOp():
            yield node, node.operand
        case ast.Slice():
            bounds = [name for name, value in ast.iter_fields(node) if value is not None]
            yield from (having(**{name: None}) for name in bounds)
        case ast.Call():
            yield from ((node, new) for new in shorter(node, modules))
            yield from (having(args=fewer) for fewer in one_fewer(node.args))
            yield from (having(keywords=fewer) for fewer in one_fewer(node.keywords))
            if len({ast.unparse(argument) for argument in node.args[:2]}) == 2:
                yield having(args=[node.args[1], node.args[0], *node.args[2:]])
        case ast.FunctionDef():
            yield from ((decorator, "(lambda f: f)") for decorator in node.decorator_list)
    for test in [getattr(node, "test", None), *getattr(node, "ifs", [])]:
        if test is not None:
            yield test, ast.UnaryOp(ast.Not(), test)
    if isinstance(node, REMOVED):
        yield node, "pass"


def shorter(call: ast.Call, modules: set[str]) -> Iterator[ast.AST]:
    """What it is called with or on: softmax(x) or x.softmax() becomes x."""
    root = call.func
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(call.func, ast.Name) or getattr(root, "id", None) in modules:
        yield from call.args[:1]
    elif isinstance(call.func, ast.Attribute):
        yield call.func.value


def one_fewer(arguments: list) -> Iterator[list]:
    return (arguments[:i] + arguments[i + 1 :] for i in range(len(arguments)))


def planted(source: str, exercise: str, old: ast.AST, new: ast.AST | str) -> Mutant:
    lines = source.splitlines()
    first, last = lines[old.lineno - 1].encode(), lines[old.end_lineno - 1].encode()
    if new == "pass":
        new = f"pass  # {' '.join(ast.unparse(old).split())}"
    if isinstance(new, ast.AST):
        bare = isinstance(new, ast.stmt | ast.Slice | ast.Call | ast.Constant | ast.Name)
        new = ast.unparse(new) if bare else f"({ast.unparse(new)})"
    after = first[: old.col_offset].decode() + new + last[old.end_col_offset :].decode()
    text = "\n".join([*lines[: old.lineno - 1], after, *lines[old.end_lineno :]]) + "\n"
    before = " ".join(" ".join(lines[old.lineno - 1 : old.end_lineno]).split())
    return Mutant(exercise, old.lineno, before, " ".join(after.split()), text)


def compiles(text: str) -> bool:
    try:
        return bool(compile(text, "mutant", "exec"))
    except SyntaxError:
        return False


def survivors(folder: str, exercises: set[str], known: dict) -> tuple[list[Mutant], int]:
    """Those that all tests pass, but for the known ones, and how many were tried."""
    alive, tried = [], 0

    def grade_all(grader: Grader) -> None:
        nonlocal tried
        source = solved(folder)
        for exercise in exercises:
            if grader.grade(exercise, source, quick=True).failed:
                raise ValueError(f"{folder}/tests/solved.py fails the tests of {exercise}")
        for mutant in mutants(source):
            if mutant.exercise in exercises and mutant.after not in known.get(mutant.exercise, {}):
                tried += 1
                if passes(grader, mutant):
                    alive.append(mutant)

    in_one_session(folder, grade_all)
    return alive, tried


def passes(grader: Grader, mutant: Mutant) -> bool:
    try:
        graded = grader.grade(mutant.exercise, mutant.text, quick=True)
    except Exception:  # the file cannot be imported
        return False
    return not graded.failed and not graded.skipped


def changed(folder: str) -> set[str]:
    """The exercises whose solution or tests are not main's."""
    names = set()
    for file in (ROOT / folder / "tests").glob("*.py"):
        path = file.relative_to(ROOT).as_posix()
        command = ["git", "show", f"main:{path}"]
        before = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8").stdout
        now = file.read_text(encoding="utf-8")
        names |= {name for name, _ in set(graded_parts(now)) ^ set(graded_parts(before))}
    return names


def graded_parts(text: str) -> Iterator[tuple[str, str]]:
    """Each exercise's solution in a solved.py, or its tests in a test file."""
    for node in ast.parse(text).body:
        code = ast.unparse(node)
        for name in {getattr(node, "name", ""), *re.findall(r"mark\.exercise\('(\w+)'\)", code)}:
            yield name, code


def main() -> None:
    begun, total, left = time.monotonic(), 0, 0
    chosen = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    known = tomlkit.parse(EQUIVALENT.read_text(encoding="utf-8"))
    for folder in FOLDERS:
        names = {node.name for node in ast.parse(solved(folder)).body if hasattr(node, "name")}
        if "--changed" in sys.argv:
            names &= changed(folder)
        if chosen and not any(folder.startswith(argument) for argument in chosen):
            names &= set(chosen)
        if not names:
            continue
        alive, tried = survivors(folder, names, known.get(folder, {}))
        for mutant in alive:
            print(f"{folder}/tests/solved.py:{mutant.line}  {mutant.exercise}")
            print(f"    {mutant.before}\n    {mutant.after}")
        seconds = time.monotonic() - begun
        print(f"{folder}: {len(alive)} of {tried} pass, {seconds:.0f} s", flush=True)
        total, left = total + tried, left + len(alive)
    print(f"{left} of {total} mutants pass all tests of their exercise")
    sys.exit(left > 0)


if __name__ == "__main__":
    main()
