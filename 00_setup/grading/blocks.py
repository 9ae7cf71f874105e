"""One mistake, one block: what is wrong, true of the very test that failed, where, and the call."""

import ast
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tiny_transformer.setup.grading.diagnosis import where_it_stopped
from tiny_transformer.setup.grading.examples import WrongExample
from tiny_transformer.setup.grading.families import Sizes, explain, explain_closeness
from tiny_transformer.setup.grading.progress import definitions
from tiny_transformer.setup.grading.recording import Call, Raised, brief, passing, same_answer

FEW = 8  # numbers that are shown
WHOLE = 3  # blocks that are shown in full
VAGUE = "you have", "nearly right"  # true, and little to go by
TOLD_BY_TORCH = (
    "Tensor-likes",
    "Scalars are",
    "The values for attribute",
    "Object types",
    "None mismatch",
)


@dataclass
class Failure:
    """A test that failed on an exercise, and what is known about it."""

    test: str  # in words; none where no test could begin
    error: BaseException
    printed: str = ""
    hint: str | None = None  # of the misconception that gives the same in this test
    yours: list[Call] = field(default_factory=list)
    ours: list[Call] = field(default_factory=list)
    nothing: bool = False  # came back, here and in all other failures, where something is due

    @property
    def rank(self) -> int:
        if self.hint or self.nothing:
            return 0
        if isinstance(self.error, WrongExample):
            return 3
        if said_by_the_test(self.error):
            return 1
        if not isinstance(self.error, AssertionError):
            return 2
        found = first_difference(self.yours, self.ours)
        told = " ".join(difference(*found)) if found else ""
        return 5 if not told else 4 if any(words in told for words in VAGUE) else 3


@dataclass
class Block:
    """All that failed of one exercise."""

    name: str
    place: str  # 01_attention/exercises.py:10
    failures: list[Failure] = field(default_factory=list)
    waits_for: str | None = None  # another exercise of the file, which it calls and which is wrong
    seconds: float = 0.0  # spent on finding out

    @property
    def shown(self) -> Failure:
        """The failure that says most: its cause has a name, or the test a sentence about it."""
        return min(self.failures, key=lambda failure: failure.rank)


def render(blocks: list[Block], width: int, root: Path) -> Iterable[str]:
    """The blocks in the order of the course, the first of them in full."""
    told = 0
    for i, block in enumerate(blocks):
        nothing = all(gives_nothing(f) or should_raise(f) for f in block.failures)
        for failure in block.failures:
            failure.nothing = nothing and gives_nothing(failure)
        if i:
            yield ""
        yield f"{block.name}  {block.place}"
        if block.waits_for:
            waits = f"waits for {block.waits_for}, which it calls and which is not right yet"
            yield from indented([waits], width)
            continue
        told += 1
        count = len({failure.test.partition(",")[0] for failure in block.failures})
        if told > WHOLE:
            yield f"  {count} of its tests {'fails' if count == 1 else 'fail'}"
            continue
        yield from indented(lines_of(block.shown, root), width)
        more = count - 1
        ending = f"In the test: {block.shown.test}." if block.shown.test else ""
        if more:
            ending += f" {more} more of its tests {'fails' if more == 1 else 'fail'}."
        if ending:
            yield from indented([ending.strip()], width)


def indented(lines: Iterable[str], width: int) -> Iterable[str]:
    for line in lines:
        indent = "  " + " " * (len(line) - len(line.lstrip()))
        yield from textwrap.wrap(
            line.strip(), width, initial_indent=indent, subsequent_indent=indent
        ) or [""]


def lines_of(failure: Failure, root: Path) -> list[str]:
    lines = [failure.hint] if failure.hint else what_happened(failure, root)
    if failure.printed.strip():
        printed = failure.printed.strip().splitlines()
        lines.append("It printed:")
        lines += [f"    {line}" for line in printed[:4]]
        lines += [f"    ... {len(printed) - 4} lines more"] if len(printed) > 4 else []
    return lines


def what_happened(failure: Failure, root: Path) -> list[str]:
    """True of this test: the place where it stopped, what the test has to say, what came back."""
    found = first_difference(failure.yours, failure.ours)
    if stopped := where_it_stopped(failure.error, root):
        lines = stopped.splitlines()
        if found and isinstance(found[1].result, Raised):
            lines += difference(*found)
        return lines
    own = None if failure.nothing else said_by_the_test(failure.error)
    lines = [own] if own else []
    if isinstance(failure.error, WrongExample):
        return lines
    if found is None:
        return lines or [plainly(failure.error)]
    yours, ours = found
    lines = lines or difference(yours, ours) or [plainly(failure.error)]
    values = not any(f"expected {few(ours.result)}." in line for line in lines)
    return [*lines, *call_in_words(yours, ours, values)]


def plainly(error: BaseException) -> str:
    """What a test found, in the words of pytest or of PyTorch."""
    told = " ".join(str(error).partition("\n +")[0].split())[:300]
    if missed := re.search(r"DID NOT RAISE <class '(?:.+\.)?(\w+)'>", told):
        return f"It should raise a {missed[1]} here, and raises nothing."
    if isinstance(error, AssertionError):
        return f"Not so: {told.removeprefix('assert ')}" if told.startswith("assert ") else told
    return f"{type(error).__name__}: {told}"


def gives_nothing(failure: Failure) -> bool:
    found = first_difference(failure.yours, failure.ours)
    return (
        found is not None
        and found[0].result is None
        and not isinstance(found[1].result, Raised | None)
    )


def should_raise(failure: Failure) -> bool:
    found = first_difference(failure.yours, failure.ours)
    return found is not None and isinstance(found[1].result, Raised)


def said_by_the_test(error: BaseException) -> str | None:
    """The sentence that a test's author wrote for the reader of this failure, if there is one."""
    message = str(error)
    if not isinstance(error, AssertionError):
        failed = type(error).__name__ == "Failed" and "DID NOT RAISE" not in message
        return message if failed else None
    if message.startswith(TOLD_BY_TORCH):
        return None
    written, _, _ = message.partition("\nassert ")
    return None if not written or written.startswith("assert ") else written


def first_difference(yours: list[Call], ours: list[Call]) -> tuple[Call, Call] | None:
    """The first call that came back otherwise than the reference's, which was asked the same."""
    for a, b in zip(yours, ours, strict=False):
        if not same_answer(list(a.before.values()), list(b.before.values())):
            return None
        if isinstance(a.result, Raised) and isinstance(b.result, Raised):
            if a.result.kind is not b.result.kind:  # the words may be others
                return a, b
        elif not same_answer(a.came_back, b.came_back, strict=True):
            return a, b
    return None


def difference(yours: Call, ours: Call) -> list[str]:
    name = yours.method or yours.of.partition("(")[0]
    if isinstance(ours.result, Raised):
        return [
            f"{name} should raise a {ours.result.kind.__name__} here, since: {ours.result.message}."
        ]
    if isinstance(yours.result, Raised):
        return [f"{name} raised {yours.result.kind.__name__}: {yours.result.message}"]
    for argument, now in yours.after.items():
        then, should = yours.before[argument], ours.after[argument]
        if not same_answer(now, then) and same_answer(should, then):
            return [f"{name} changes its argument {argument}, which it should leave as it was."]
        if same_answer(now, then) and not same_answer(should, then):
            return [f"{name} leaves {argument} as it was, which it should change in place."]
        if not same_answer(now, should):
            told = explained(now, should, {})
            if told and " object at " in told:
                return [f"{name} leaves {argument} in another state than it should."]
            return [f"{name} leaves something else in {argument}: {told}"] if told else []
    told = explained(yours.result, ours.result, sizes_of(yours))
    return [f"{name}{'' if told.startswith('returned') else ':'} {told}"] if told else []


def explained(got: Any, want: Any, sizes: Sizes) -> str | None:
    try:
        return explain(got, want, sizes) or explain_closeness(got, want)
    except Exception:  # things that have no family
        return None


def call_in_words(yours: Call, ours: Call, values: bool) -> list[str]:
    """The call with its arguments, and, where they are few, the numbers that came and should."""
    shown, tensors = [], []
    for name, value in yours.before.items():
        if isinstance(value, Tensor) or isinstance(value, list) and len(str(value)) > 40:
            shown.append(name)
            tensors.append(f"{name} {described(value, sizes_of(yours))}")
        else:
            shown.append(f"{name}={brief(value)}")
    given = "" if yours.read else f"({', '.join(shown)})"
    call = f"{yours.of}{'.' if yours.method else ''}{yours.method}{given}"
    lines = [f"The call: {call}" + (f", with {', '.join(tensors)}" if tensors else "")]
    if not values or isinstance(yours.result, Raised):
        return lines
    if isinstance(ours.result, Raised):
        return [*lines, f"It gave: {few(yours.result) or described(yours.result, {})}"]
    got, want = few(yours.result), few(ours.result)
    return (
        [*lines, f"It gave: {got}", f"Expected: {want}"] if got and want and got != want else lines
    )


def described(value: Any, sizes: Sizes) -> str:
    if isinstance(value, Tensor):
        names = {n: name for name, n in sizes.items()}
        axes = ", ".join(f"{names[n]}={n}" if n in names else str(n) for n in value.shape)
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} ({axes}{',' if value.dim() == 1 else ''})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return brief(value)


def few(value: Any) -> str | None:
    """The value itself, where it is short enough to read."""
    if isinstance(value, Tensor) and (value.numel() > FEW or value.is_meta):
        return None
    text = passing(" ".join(repr(value).split()))
    return text if len(text) <= 160 and " object at " not in text else None


def sizes_of(call: Call) -> Sizes:
    """How the dimensions of this call are named, by its docstring; only what is beyond doubt.

    "x (B, T, d_model) -> ..." and "(..., T, d_k), (..., S, d_k) -> ..." both say so.
    """
    doc, sizes, doubtful = call.shapes, {}, set()
    before_arrow = re.findall(r"\(([^()]*)\)", doc.partition("->")[0])
    tensors = {name: value for name, value in call.before.items() if isinstance(value, Tensor)}
    for i, (name, value) in enumerate(tensors.items()):
        by_name = re.search(rf"\b{name} \(([^()]*)\)", doc)
        pattern = by_name[1] if by_name else before_arrow[i] if i < len(before_arrow) else ""
        axes = [axis.strip() for axis in pattern.split(",") if axis.strip()]
        if "..." not in axes and len(axes) != value.dim():
            continue
        for axis, n in zip(reversed(axes), reversed(value.shape), strict=False):
            if axis == "...":
                break
            if axis.isidentifier() and sizes.setdefault(axis, n) != n:
                doubtful.add(axis)
    values = list(sizes.values())
    return {
        name: n
        for name, n in sizes.items()
        if name not in doubtful and values.count(n) == 1 and n > 2
    }


def waiting(blocks: list[Block], root: Path) -> None:
    """An exercise that calls another of the same file which is wrong waits for that one."""
    wrong = {(file_of(block), block.name): block for block in blocks}
    for (file, name), block in wrong.items():
        called = names_in(root / file, name)
        others = [other for where, other in wrong if where == file and other in called - {name}]
        block.waits_for = next(iter(others), None)


def file_of(block: Block) -> str:
    return block.place.partition(":")[0]


def names_in(file: Path, definition: str) -> set[str]:
    """All names that stand in the code of a function or class."""
    node = definitions(file).get(definition)
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if node else set()
