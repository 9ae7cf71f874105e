"""The mutants themselves; that the tests notice them is for `python .ci/mutants.py`."""

import ast
import sys
from pathlib import Path

import pytest
import tomlkit

sys.path.insert(0, str(Path(__file__).parent))
from mutants import EQUIVALENT, mutants
from one_session import FOLDERS, solved


@pytest.mark.parametrize(
    "line, changed",
    [
        ("return x + 1", {"return (x - 1)", "return x + 2", "return x + 0"}),
        ("return x <= y", {"return (x < y)"}),
        ("return not x", {"return x"}),
        ("return x[:n]", {"return x[:]"}),
        ("return f(x, y)", {"return x", "return f(y)", "return f(x)", "return f(y, x)"}),
        ("return x.cos()", {"return x"}),
        ("return math.cos(x)", {"return x", "return math.cos()"}),
        ("return dict(n=True)", {"return dict()", "return dict(n=False)"}),
        ("x += y", {"x -= y", "pass # x += y"}),
        ("if x: y()", {"if (not x): y()", "if x: pass # y()", "pass # if x: y()"}),
        ('raise ValueError(f"x is {x + 1}")', None),
    ],
)
def test_a_mutant_has_one_thing_changed(line, changed):
    source = f"import math\n\n\ndef exercise(x, y, n):\n    {line}\n"
    made = {mutant.after for mutant in mutants(source)}
    assert made == (changed or {f"pass # {ast.unparse(ast.parse(line))}"})


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_equivalent_mutants_are_still_made(folder):
    known = tomlkit.parse(EQUIVALENT.read_text(encoding="utf-8")).get(folder, {})
    made = {(mutant.exercise, mutant.after) for mutant in mutants(solved(folder))}
    assert {(name, line) for name, lines in known.items() for line in lines} <= made
