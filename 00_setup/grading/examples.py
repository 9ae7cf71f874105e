"""The example in an exercise's docstring, as the stub has it, run on whatever implements it.

Numbers may differ in their last printed digit, and in how many are printed: right answers do.
"""

import ast
import doctest
import importlib
import io
import math
import re
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tiny_transformer.setup.grading.reset import ROOT, stubs_of


class WrongExample(AssertionError):
    """A docstring's example gives something else."""


OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NUMBER = re.compile(r"(?<![\w.])(-?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf|nan))(?![\w.])")


def the_example_is_true(impl: Any, exercise: str) -> None:
    """Fail with the first line of the example that gives something else than stands there."""
    package = importlib.import_module(impl.__name__.rpartition(".")[0])
    stub = stubs_of(ROOT, Path(package.__path__[0]).resolve().name)
    for docstring in docstrings(stub, exercise):
        names = {"torch": torch, **vars(importlib.import_module(f"{package.__name__}.reference"))}
        names |= imported(stub) | vars(impl)
        for example in doctest.DocTestParser().get_examples(docstring):
            printed, values = io.StringIO(), []
            with redirect_stdout(printed), patch.object(sys, "displayhook", partial(show, values)):
                exec(compile(example.source, "<the example>", "single"), names)
            got, want = printed.getvalue(), example.want.replace("<BLANKLINE>", "")
            # What right code prints on its way, to see what it does, is no answer.
            if not (alike(got, want) or alike("".join(values), want)):
                raise WrongExample(
                    f"In the example of its docstring `{in_one_line(example.source)}` gives "
                    f"{in_one_line(got) or 'nothing'}, where it should give "
                    f"{in_one_line(want) or 'nothing'}."
                )


def show(values: list[str], value: Any) -> None:
    """As an interpreter shows the value of a line, which is kept too."""
    if value is not None:
        values.append(f"{value!r}\n")
        print(values[-1], end="")


def docstrings(file: Path, exercise: str) -> list[str]:
    """Those of a function, or of a class and its methods."""
    kinds = ast.FunctionDef | ast.ClassDef
    return [
        ast.get_docstring(node) or ""
        for part in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(part, kinds) and part.name == exercise
        for node in ast.walk(part)
        if isinstance(node, kinds)
    ]


def imported(file: Path) -> dict[str, Any]:
    """What stands ready for the examples, whatever the learner's code needs of it."""
    names: dict[str, Any] = {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [part for part in tree.body if isinstance(part, ast.Import | ast.ImportFrom)]
    exec(compile(tree, "<the imports>", "exec"), names)
    return names


def alike(got: str, want: str) -> bool:
    if doctest.OutputChecker().check_output(want, got, OPTIONS):
        return True
    ours, theirs = (NUMBER.split("".join(text.split())) for text in (got, want))
    return ours[::2] == theirs[::2] and all(map(close, ours[1::2], theirs[1::2]))


def close(a: str, b: str) -> bool:
    """Of two printed numbers: 0.5000 and 0.49999 are, 4 and 4. are not, being of another kind."""
    if a.lstrip("-").isdigit() or b.lstrip("-").isdigit():
        return a == b
    return math.isclose(float(a), float(b), rel_tol=2e-4, abs_tol=2e-4) or a == b


def in_one_line(text: str) -> str:
    return " ".join(text.split())
