"""What a learner types: the name of an exercise, `causal_mask`, or of a module, `01_attention`."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from tiny_transformer.setup.grading.progress import folders, graded


def find_exercise(root: Path, text: str) -> tuple[str, str]:
    """The folder and the name of an exercise: causal_mask, or 01_attention.causal_mask.

    Raises:
        ValueError: says what may have been meant.
    """
    folder, _, name = text.rpartition(".")
    known = [(folder, name) for folder in folders(root) for name in graded(root, folder)]
    found = [pair for pair in known if pair[1] == name and folder in ("", pair[0])]
    if not found:
        raise ValueError(f"no exercise is called {text}{meant(name, [name for _, name in known])}")
    if len(found) > 1:
        choices = " or ".join(".".join(pair) for pair in found)
        raise ValueError(f"there is more than one {name}: write {choices}")
    return found[0]


def find_module(root: Path, text: str) -> str:
    """The folder of a module by its name, number or topic: 01_attention, 01, 1 or attention.

    Raises:
        ValueError: says what may have been meant.
    """
    text = text.replace("\\", "/").strip("/").removesuffix("/exercises.py")
    for folder in folders(root):
        number, _, topic = folder.partition("_")
        if text in (folder, number, number.lstrip("0") or "0", topic):
            return folder
    raise ValueError(f"no module is called {text}{meant(text, folders(root))}")


def meant(text: str, known: Iterable[str]) -> str:
    lower = {name.lower(): name for name in known}
    close = [lower[name] for name in get_close_matches(text.lower(), lower, n=1)]
    return f"; did you mean {close[0]}?" if close else ""
