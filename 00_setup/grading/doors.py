"""Doors: optional arguments that a learner may leave alone until a later module needs them.

While a door is unused its tests wait, and no diagnosis speaks of it. Whether it is used shows in
what the code does, not in how it is written.
"""

import inspect
from collections.abc import Callable
from typing import Any

from tiny_transformer.setup.grading.families import explain
from tiny_transformer.setup.grading.recording import unnoted


def unused(exercise: str, name: str) -> str:
    """Why the tests of a door wait, in a learner's words."""
    return f"{exercise} does not use `{name}` yet"


def takes(function: Callable, name: str) -> bool:
    """Whether a function, or the forward of a module or its class, has an argument of this name."""
    parameters = inspect.signature(getattr(function, "forward", function)).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def calls(function: Callable, name: str, argument: Callable, *inputs: Any, **options: Any) -> bool:
    """Whether `function` calls what it is given as `name`."""
    called = []

    def spy(*asked: Any, **named: Any) -> Any:
        called.append(name)
        return argument(*asked, **named)

    if takes(function, name):
        try:
            with unnoted():
                function(*inputs, **options, **{name: spy})
        except NotImplementedError:  # where a learner has marked what is to come
            return False
        except Exception:  # the tests will meet it, with inputs of their own
            return True
    return bool(called)


def heeds(function: Callable, name: str, value: Any, *inputs: Any) -> bool:
    """Whether `function` gives another result where `name` is `value`."""
    with unnoted():
        without = function(*inputs)
        if not takes(function, name):
            return False
        try:
            return explain(function(*inputs, **{name: value}), without, {}) is not None
        except NotImplementedError:
            return False
        except Exception:
            return True
