"""The hints of an exercise, in three steps: those that are folded at the end of its theory.md."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tiny_transformer.setup.grading.progress import read_book, remember

FIRST = "a nudge"
SIGNS = {  # how a terminal shows what a page writes in LaTeX
    **dict(zip("mu pi sigma tau theta omega eta".split(), "μπστθωη", strict=True)),
    **{"varepsilon": "ε", "partial": "∂", "infty": "∞", "sum": "Σ", "top": "T", "cdot": "·"},
    **{"le": "≤", "pm": "±", "leftarrow": "←", "ldots": "...", "lVert": "|", "rVert": "|"},
    **{"big": "", "Big": ""},
}


@dataclass(frozen=True)
class Hints:
    """How hard an exercise is, and its steps, each by its title: a nudge, the formula, ..."""

    stars: str
    steps: dict[str, str]


def hints(root: Path, folder: str) -> dict[str, Hints]:
    """The hints of each exercise of a module; none where it has no page."""
    page = root / folder / "theory.md"
    if not page.exists():
        return {}
    _, _, text = page.read_text(encoding="utf-8").partition("\n## Hints\n")
    parts = re.split(r"<summary><code>(\w+)</code> (★+) a nudge</summary>", text)
    found = {}
    for name, stars, told in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        steps = [FIRST, *re.split(r"<summary>(.*)</summary>", told)]
        steps = dict(zip(steps[::2], map(plain, steps[1::2]), strict=True))
        found[name] = Hints(stars, steps)
    return found


def next_hint(root: Path, folder: str, name: str) -> str:
    """The next hint of an exercise, which is remembered; after the last one all of them."""
    steps = hints(root, folder).get(name)
    if steps is None:
        return f"{folder}/theory.md has no hints for {name}"
    place, titles = f"{folder}.{name}", list(steps.steps)
    seen = read_book(root)["hints"].get(place, 0)
    if seen >= len(titles):
        shown = titles
    else:
        shown = [titles[seen]]
        remember(root, lambda book: book["hints"].update({place: seen + 1}))
    told = [
        f"hint {titles.index(title) + 1} of {len(titles)}, {title}:\n{steps.steps[title]}"
        for title in shown
    ]
    return "\n\n".join(told)


def wrapped(text: str, width: int) -> list[str]:
    """Paragraphs, of which each is filled anew, set in by two."""
    lines = []
    for paragraph in text.split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        for part in (first, " ".join(rest.split())) if first.endswith(":") else (paragraph,):
            lines += textwrap.wrap(part, width - 2, initial_indent="  ", subsequent_indent="  ")
        lines.append("")
    return lines[:-1]


def plain(step: str) -> str:
    """A step as a terminal shows it: without tags, and its mathematics in a line."""
    step = re.sub(r"</?details>|\n## (.*\n)*", "", step)
    return re.sub(r"\$([^$]+)\$", lambda match: in_a_line(match[1]), step).strip()


def in_a_line(math: str) -> str:
    r"""1/\sqrt{d_\text{in}} -> 1/√(d_in)"""
    math = re.sub(r"\\text\{(\w+)\}", r"\1", math)
    math = re.sub(r"\\t?frac\{?(\w)\}?\{?(\w)\}?", r"\1/\2", math)
    math = re.sub(r"\\sqrt", "√", math)
    math = re.sub(r"\\([a-zA-Z]+)", lambda match: SIGNS.get(match[1], f" {match[1]}"), math)
    math = math.replace("{", "(").replace("}", ")").replace("\\", "")
    return re.sub(r"(^|[ (]) ", r"\1", math)
