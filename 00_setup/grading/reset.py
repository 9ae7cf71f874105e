"""Back to the stub: `tiny-transformer reset causal_mask`. The old file is kept beside the new one.

A learner's own file, and their git, hold solutions: the stubs come from copies in stubs/, which
`python -m tiny_transformer.setup.grading.reset` makes when a contributor has changed one.
"""

import ast
import itertools
import os
import time
from pathlib import Path

from tiny_transformer.setup.grading.progress import folders

ROOT = Path(__file__).resolve().parents[2]
STUBS = Path("00_setup", "grading", "stubs")


def reset(root: Path, folder: str, name: str | None = None) -> Path | None:
    """Put back the stub of an exercise, or those of a whole file; returns where the old file is.

    None where nothing was to be done.

    Raises:
        ValueError: if the exercise cannot be found, since the file is no Python.
    """
    file = root / folder / "exercises.py"
    stubs = stubs_of(root, folder).read_text(encoding="utf-8")
    old = file.read_text(encoding="utf-8") if file.exists() else None
    new = stubs if name is None else with_stub(old or "", stubs, name, f"{folder}/exercises.py")
    if new == old:
        return None
    kept = unused(file) if old is not None else None
    if kept:
        file.rename(kept)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(new, encoding="utf-8")
    os.replace(unfinished, file)
    return kept


def unused(file: Path) -> Path:
    """exercises.2026-11-26-101500.py, under which no file is kept yet."""
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    for more in itertools.chain([""], (f"-{n}" for n in itertools.count(2))):
        kept = file.with_name(f"{file.stem}.{stamp}{more}.py")
        if not kept.exists():
            return kept


def with_stub(old: str, stubs: str, name: str, where: str) -> str:
    """The old text, in which the stub stands in the place of the exercise, or at the end."""
    try:
        first, last = lines_of(old, name) or (len(old.splitlines()), None)
    except SyntaxError as error:
        raise ValueError(
            f"{where}:{error.lineno} is no Python, so that {name} cannot be found; "
            f"tiny-transformer reset {Path(where).parent} puts the whole file back"
        ) from None
    begin, end = lines_of(stubs, name)
    lines, stub = old.splitlines(keepends=True), stubs.splitlines(keepends=True)[begin:end]
    if last is None:
        return "".join([*lines, *(["\n", "\n"] if lines else []), *stub])
    return "".join([*lines[:first], *stub, *lines[last:]])


def lines_of(text: str, name: str) -> tuple[int, int] | None:
    for node in ast.parse(text).body:
        if getattr(node, "name", None) == name:
            first = min(part.lineno for part in (node, *node.decorator_list))
            return first - 1, node.end_lineno
    return None


def stubs_of(root: Path, folder: str) -> Path:
    return root / STUBS / f"{folder}.txt"


if __name__ == "__main__":
    for folder in folders(ROOT):
        text = (ROOT / folder / "exercises.py").read_text(encoding="utf-8")
        stubs_of(ROOT, folder).write_text(text, encoding="utf-8")
