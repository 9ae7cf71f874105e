"""What is to be read: links lead somewhere, words are spelled, figures and commands are real."""

import os
import re
import runpy
import shlex
from base64 import b64decode
from functools import cache
from io import BytesIO
from pathlib import Path

import jupytext
import numpy as np
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin
from PIL import Image
from spellchecker import SpellChecker

from tiny_transformer.capstone.cli import parse
from tiny_transformer.setup.grading.progress import folders, read_exercises

ROOT = Path(__file__).parents[1]
ALL = folders(ROOT)
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "AGENTS.md",
    *sorted(set(ROOT.glob("0*_*/**/*.md")) - set(ROOT.glob("*/.ipynb_checkpoints/*"))),
    *sorted(ROOT.glob("0*_*/notebook.py")),
]
names = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False}).use(anchors_plugin, max_level=6)


@cache
def text_of(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = jupytext.read(page).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@cache
def anchors_of(page: Path) -> set[str]:
    return {token.attrs["id"] for token in MARKDOWN.parse(text_of(page)) if "id" in token.attrs}


@names
def test_links_lead_somewhere(page):
    inline = [token for token in MARKDOWN.parse(text_of(page)) if token.type == "inline"]
    targets = [
        child.attrs.get("href") or child.attrs.get("src")
        for token in inline
        for child in token.children
        if child.type in ("link_open", "image")
    ]
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


@names
def test_words_are_spelled(page):
    prose = re.sub(
        r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<code>.*?</code>|<[^>]+>|https?://\S+|\]\([^)]*\)",
        " ",
        text_of(page),
        flags=re.DOTALL,
    )
    words = {word.lower().removesuffix("'s") for word in re.findall(r"[A-Za-z][a-z']*[a-z]", prose)}
    ours = set((ROOT / ".ci" / "words.txt").read_text(encoding="utf-8").split())
    unknown = SpellChecker().unknown(words - ours)
    assert not unknown, sorted(unknown)


@names
def test_mathematics_within_a_line_survives_markdown(page):
    # GitHub reads Markdown first: an escape, or emphasis between two underscores, would be gone.
    for token in (token for token in MARKDOWN.parse(text_of(page)) if token.type == "inline"):
        left = "".join(
            "\n" if child.type == "softbreak" else child.content for child in token.children
        )
        source = re.sub(r"`[^`]*`", "", token.content)
        assert not [math for math in re.findall(r"\$[^$]*\$", source) if math not in left]


@names
def test_mathematics_in_lines_of_its_own_survives_markdown(page):
    # So would a line that begins like a list, and the `\\` that ends a row: hence `\cr`.
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    left = [
        "".join("\n" if child.type == "softbreak" else child.content for child in token.children)
        for token in MARKDOWN.parse(prose)
        if token.type == "inline"
    ]
    blocks = re.findall(r"^\$\$\n.*?\n\$\$$", prose, flags=re.M | re.S)
    assert prose.count("$$") == 2 * len(blocks)
    assert not [block for block in blocks if block not in left]


@names
def test_no_line_of_prose_begins_a_list_by_accident(page):
    lines = text_of(page).splitlines()
    tokens = MARKDOWN.parse(text_of(page))
    lists = [token.map[0] for token in tokens if token.type.endswith("_list_open")]
    assert not [lines[i] for i in lists if lines[i - 1].strip()]
    # GitHub lets only a 1. break into a paragraph, JupyterLab any number.
    items = {token.map[0] for token in tokens if token.type == "list_item_open"}
    numbers = [i for i, line in enumerate(lines) if re.match(r" *\d+[.)]( |$)", line)]
    assert not [lines[i] for i in numbers if i not in items]


@names
def test_a_picture_is_told_in_words_and_has_a_caption(page):
    pictures = re.findall(r"^!\[(.*)\]\(.*\)\n\n(.)", text_of(page), re.M)
    assert len(pictures) == len(re.findall(r"^!\[", text_of(page), re.M))
    assert not [words for words, caption in pictures if len(words.split()) < 8 or caption != "*"]


@pytest.mark.parametrize("folder", ALL)
def test_figures_come_from_their_script(folder):
    script = ROOT / folder / "figures" / "draw.py"
    if not script.exists():
        assert "```mermaid" in text_of(ROOT / folder / "theory.md")
        return
    before = {file: file.read_text(encoding="utf-8") for file in script.parent.glob("*.svg")}
    shown = text_of(ROOT / folder / "theory.md") + text_of(ROOT / "README.md")
    try:
        runpy.run_path(str(script))
        for file, picture in before.items():
            assert same_picture(file.read_text(encoding="utf-8"), picture), file.name
            assert f"figures/{file.name}" in shown, "is not shown"
    finally:
        for file, picture in before.items():
            file.write_text(picture, encoding="utf-8")


def same_picture(a: str, b: str) -> bool:
    """The same but for what another processor rounds otherwise: a hundredth of a point, a shade."""
    number, heat_map = re.compile(r"-?\d+\.\d+"), re.compile(r"base64,([^\"]*)")
    shades = [[decode(data) for data in heat_map.findall(svg)] for svg in (a, b)]
    a, b = heat_map.sub("", a), heat_map.sub("", b)
    points = [[float(x) for x in number.findall(svg)] for svg in (a, b)]
    return (
        number.sub("", a) == number.sub("", b)
        and np.allclose(*points, rtol=0, atol=0.01)
        and all(np.abs(x - y).max() <= 3 for x, y in zip(*shades, strict=True))
    )


def decode(png: str) -> np.ndarray:
    return np.array(Image.open(BytesIO(b64decode(png))), dtype=int)


@pytest.mark.parametrize("folder", ALL)
def test_a_theory_has_its_parts(folder):
    text = text_of(ROOT / folder / "theory.md")
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings[-4:] == ["Common mistakes", "Check yourself", "Hints", "Sources"]
    assert re.search(r"^## What modern \w+ (does|do) instead$", text, re.M)
    assert text.count("worked example") >= 1 and ">>> " in text
    assert "```mermaid" in text or "(figures/" in text
    questions = text.split("## Check yourself")[1].split("## Hints")[0]
    assert 5 <= questions.count("<summary>") <= 8
    hints = text.split("## Hints")[1]
    exercises = [exercise.name for exercise in read_exercises(ROOT, folder, {})]
    assert re.findall(r"<code>(\w+)</code> ★+ a nudge", hints) == exercises
    for step in ("the formula", "nearly the code"):
        assert hints.count(f"<summary>{step}</summary>") == len(exercises)


@names
def test_a_code_block_is_run_or_says_what_it_is(page):
    languages = set(re.findall(r"^```(\w*)$\n(?:.*\n)*?^```$", text_of(page), re.M))
    assert languages <= {"python", "mermaid", "sh", "powershell", "text", "toml"}


@names
def test_commands_are_ones_that_the_course_takes(page, monkeypatch):
    blocks = re.findall(r"^```(?:sh|powershell)\n(.*?)^```$", text_of(page), re.M | re.S)
    whole = [block.replace("\\\n", " ") for block in blocks]  # lines that end with a backslash
    lines = [line.partition(" #")[0] for block in whole for line in block.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line) or [""]
        if os.path.basename(program) == "tiny-transformer":
            parse(arguments)
