"""The hints of an exercise, in three steps: those that are folded at the end of its theory.md."""

import re
from dataclasses import dataclass
from pathlib import Path

STEPS = "a nudge", "the formula", "nearly the code"
SIGNS = {  # how a terminal shows what a page writes in LaTeX
    **dict(zip("mu pi sigma tau theta omega eta".split(), "μπστθωη", strict=True)),
    **{"varepsilon": "ε", "partial": "∂", "infty": "∞", "sum": "Σ", "top": "T", "cdot": "·"},
    **{"le": "≤", "pm": "±", "leftarrow": "←", "ldots": "...", "lVert": "|", "rVert": "|"},
    **{"big": "", "Big": ""},
}


@dataclass(frozen=True)
class Hints:
    stars: str
    steps: list[str]


def hints(root: Path, folder: str) -> dict[str, Hints]:
    """The hints of each exercise of a module; none where it has no page."""
    page = root / folder / "theory.md"
    if not page.exists():
        return {}
    _, _, text = page.read_text(encoding="utf-8").partition("\n## Hints\n")
    parts = re.split(r"<summary><code>(\w+)</code> (★+) a nudge</summary>", text)
    return {
        name: Hints(stars, [plain(step) for step in re.split(r"<summary>.*</summary>", told)])
        for name, stars, told in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def plain(step: str) -> str:
    """A step as a terminal shows it: without tags, and its mathematics in a line."""
    step = re.sub(r"</?details>|\n## (.*\n)*", "", step)
    return re.sub(r"\$([^$]+)\$", lambda match: in_a_line(match[1]), step).strip()


def in_a_line(math: str) -> str:
    r"""1/\sqrt{d_\text{in}} -> 1/√(d_in)"""
    math = re.sub(r"\\text\{(\w+)\}", r"\1", math)
    math = re.sub(r"\\t?frac\{?(\w)\}?\{?(\w)\}?", r"\1/\2", math)
    math = re.sub(r"\\sqrt", "√", math)
    math = re.sub(r"\\([a-zA-Z]+) ?", lambda match: SIGNS.get(match[1], match[1] + " "), math)
    return math.replace("{", "(").replace("}", ")").replace("\\", "")
