"""What a test asked of an exercise and what came back, so that two answers can be compared."""

import copy
import functools
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.setup.grading.families import Named, explain, explain_closeness

# Folders that a test had made for itself, and addresses: each time others.
PASSING = re.compile(
    rf"{re.escape(tempfile.gettempdir())}[\\/](pytest-of-[^\\/]+[\\/]pytest-\d+[\\/])?[^\\/'\"\s]+"
    r"|(?<= at )0x[0-9a-fA-F]+"
)

CHANGED_BY_USE = nn.Module, torch.Generator, torch.optim.Optimizer, torch.amp.GradScaler


@dataclass(frozen=True)
class Raised:
    """What came back where an exception did."""

    kind: type
    message: str


class WithGradient(list):
    """A tensor and its gradient."""

    def __init__(self, tensor: Tensor, gradient: Tensor):
        super().__init__((tensor, gradient))

    def __repr__(self) -> str:
        return f"{self[0]} with gradient {self[1]}"


@dataclass(frozen=True)
class Call:
    """One call: what was called, with copies of its arguments before it and after it."""

    of: str  # "gelu", or "LayerNorm(8)"
    method: str  # "", or "append" for "KVCache(...).append"
    before: dict[str, Any]
    after: dict[str, Any]
    result: Any
    shapes: str  # the docstring that names the dimensions
    read: bool = False  # a property, which takes no parentheses

    @property
    def came_back(self) -> list[Any]:
        """The result, and whatever the call has made of its arguments."""
        return [self.result, *self.after.values()]


class Recorder:
    """An implementation of a module, `impl`, whose calls of one exercise are noted.

    Those that it makes of itself are not: they are its own affair.

    The objects that it makes begin with the weights of those that `like` made, in the same order,
    and leave the same random state behind: then a difference is one of the code alone.
    """

    paused = 0

    def __init__(
        self, impl: Any, exercise: str, methods: list[str], like: "Recorder | None" = None
    ):
        self.calls: list[Call] = []
        self.made: list[tuple[dict[str, Tensor], Tensor]] = []
        self.like = like
        self.inside = False
        watched = getattr(impl, exercise)
        self.name = exercise  # also of a known mistake, so that failures can be told alike
        noting = (
            self.noting_class(watched, methods)
            if inspect.isclass(watched)
            else self.noting(watched, exercise)
        )
        self.impl = SimpleNamespace(**{**vars(impl), exercise: noting})

    def noting(self, function: Callable, of: str, method: str = "", doc: str = "") -> Callable:
        @functools.wraps(function)
        def noted(*args: Any, **options: Any) -> Any:
            return self.note(function, of, method, doc or function.__doc__ or "", args, options)

        noted.__name__ = noted.__qualname__ = self.name
        return noted

    def note(
        self,
        function: Callable,
        of: str,
        method: str,
        doc: str,
        args: tuple,
        options: dict,
        read: bool = False,
    ) -> Any:
        if self.inside or Recorder.paused:
            return function(*args, **options)
        before = copied(named(function, args, options))
        self.inside = True
        try:
            result = function(*args, **options)
        except Exception as error:
            after = copied(named(function, args, options))
            raised = Raised(type(error), str(error))
            self.calls.append(Call(of, method, before, after, raised, doc, read))
            raise
        finally:
            self.inside = False
        after = copied(named(function, args, options))
        self.calls.append(Call(of, method, before, after, copied(result), doc, read))
        return result

    def noting_class(self, watched: type, methods: list[str]) -> type:
        recorder = self

        def __init__(self: Any, *args: Any, **options: Any) -> None:
            given = ", ".join(
                [*map(brief, args), *(f"{name}={brief(value)}" for name, value in options.items())]
            )
            vars(self)["_of"] = f"{recorder.name}({given})"
            try:
                watched.__init__(self, *args, **options)
            except Exception as error:
                before = copied(named(watched.__init__, (self, *args), options))
                raised = Raised(type(error), str(error))
                recorder.calls.append(Call(recorder.name, "", before, before, raised, ""))
                raise
            vars(self)["_of"] = f"{recorder.name}({given})"
            if isinstance(self, nn.Module):
                recorder.begin_alike(self)

        def of_method(name: str) -> Any:
            attribute = inspect.getattr_static(watched, name)
            if isinstance(attribute, property):
                return property(
                    lambda self: recorder.of_object(self, attribute.fget, name, (), {}, read=True)
                )
            return lambda self, *args, **options: recorder.of_object(
                self, getattr(watched, name), name, args, options
            )

        body = {name: of_method(name) for name in methods if hasattr(watched, name)}
        names = {"__module__": watched.__module__, "__qualname__": self.name}
        return type(self.name, (watched,), {**body, **names, "__init__": __init__})

    def of_object(
        self,
        made: Any,
        function: Callable,
        name: str,
        args: tuple,
        options: dict,
        read: bool = False,
    ) -> Any:
        method = "" if name == "forward" else name
        doc = function.__doc__ or type(made).__mro__[1].__doc__ or ""
        bound = functools.partial(function, made)
        return self.note(
            bound, vars(made).get("_of", type(made).__name__), method, doc, args, options, read
        )

    def begin_alike(self, module: nn.Module) -> None:
        k = len(self.made)
        if self.like is not None and k < len(self.like.made):
            state, random = self.like.made[k]
            try:
                module.load_state_dict(state)
            except RuntimeError:  # parts of other names or shapes
                pass
            torch.set_rng_state(random)
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        self.made.append((state, torch.get_rng_state()))


@contextmanager
def unnoted() -> Iterator[None]:
    """Meanwhile nothing is noted: what is called here is not what a test is about."""
    Recorder.paused += 1
    try:
        yield
    finally:
        Recorder.paused -= 1


def named(function: Callable, args: tuple, options: dict) -> dict[str, Any]:
    """The arguments by the names of the parameters that take them."""
    try:
        bound = inspect.signature(function).bind(*args, **options)
    except (TypeError, ValueError):
        return {f"argument {i}": value for i, value in enumerate(args)} | options
    return {name: value for name, value in bound.arguments.items() if name != "self"}


def copied(value: Any) -> Any:
    """As it is now, whatever becomes of it: tensors with their gradients, and no graph."""
    if isinstance(value, CHANGED_BY_USE) or callable(value):
        return Named(type(value).__name__)
    if isinstance(value, Tensor):
        kept = value.detach().clone()
        return (
            WithGradient(kept, value.grad.clone())
            if value.is_leaf and value.grad is not None
            else kept
        )
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value)) if type(value) in (list, tuple) else value
    try:
        return copy.deepcopy(value)
    except Exception:
        text = repr(value)
        return Named(f"{type(value).__name__}(...)" if " object at " in text else text)


def same_answer(a: Any, b: Any, strict: bool = False) -> bool:
    """Whether two answers are equal up to rounding; the strict measure is that of the tests."""
    if isinstance(a, Raised) and isinstance(b, Raised):
        return a.kind == b.kind and passing(a.message) == passing(b.message)
    if isinstance(a, Raised | None) or isinstance(b, Raised | None):
        return a is b
    if isinstance(a, PurePath | str) and isinstance(b, PurePath | str):
        return type(a) is type(b) and passing(str(a)) == passing(str(b))
    if type(a) is type(b) and type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__"):
        return same_answer(vars(a), vars(b), strict)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_answer(a[key], b[key], strict) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        pairs = zip(a, b, strict=False)
        return (type(a), len(a)) == (type(b), len(b)) and all(
            same_answer(x, y, strict) for x, y in pairs
        )
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 + 1e-4 * abs(b) or a != a and b != b
    try:
        return explain(a, b, {}) is None and not (strict and explain_closeness(a, b))
    except Exception:  # on PyTorch's meta device there are no numbers to compare
        return False


def same_calls(a: list[Call], b: list[Call]) -> bool:
    return len(a) == len(b) and all(
        same_answer(x.came_back, y.came_back) for x, y in zip(a, b, strict=True)
    )


def passing(text: str) -> str:
    """Without what is another one each time."""
    return PASSING.sub("...", text)


def brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    text = passing(str(value) if isinstance(value, PurePath) else " ".join(repr(value).split()))
    if len(text) > 40 and (is_dataclass(value) or " object at " in text):
        return f"{type(value).__name__}(...)"
    return text if len(text) <= 40 else f"{text[:37]}..."
