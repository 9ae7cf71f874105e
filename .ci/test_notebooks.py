"""Every notebook runs from a clean kernel, and is stored as it ran."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, execute, predicted, read, rest, seconds

SOURCES = sorted(ROOT.glob("0*_*/notebook.py"))
# To each "Now you": what is right, and what a learner may write instead.
ANSWERS = {
    "00_setup": [("4", "3"), ("0.125", "0.25")],
    "01_attention": [("144", "12"), ("36", "28")],
    "02_multihead": [("2", "1"), ("math.log(8)", "math.log2(8)")],
    "03_transformer_block": [("3.54", "5.0"), ("49984", "49152")],
    "04_embeddings": [("13", "14"), ("math.cos(3)", "1.0")],
    "05_tiny_lm": [("65 * 128", "65"), ("65", "650")],
    "06_training": [("3.0", "5.0"), ("0.92", "0.69")],
    "07_sampling": [("'o'", "' '"), ("3.0", "81.0"), ("4.3", "8.6")],
    "08_engineering": [("'optimizer'", "'batches'"), ("9.6", "6.4")],
    "09_capstone": [("65.8", "29"), ("4.1", "1.41")],
}
names = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parent.name)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook):
    return [output for output in outputs(notebook) if "image/png" in output.get("data", {})]


def texts(notebook):
    for output in outputs(notebook):
        yield "".join(output.get("text", "")) + "".join(
            output.get("data", {}).get("text/plain", "")
        )


def test_every_module_has_one():
    assert len(SOURCES) == 10


@names
def test_it_runs_within_a_minute(source):
    notebook = execute(source, ANSWERS[source.parent.name])
    assert seconds(notebook) < 60
    rest(notebook)
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert len(pictures(notebook)) == len(pictures(stored))


@names
def test_it_is_stored_as_it_ran(source):
    target = source.with_suffix(".ipynb")
    stored = nbformat.read(target, as_version=4)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in read(source).cells], (
        "make notebooks"
    )
    assert target.stat().st_size <= 500_000
    assert {output.output_type for output in outputs(stored)} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert not [output for output in outputs(stored) if output.get("name") == "stderr"]
    for text in texts(stored):
        assert not re.search(r"Warning|(?<![\w.])/(tmp|home|root|Users|work)/", text), text


@names
def test_it_asks_and_shows(source):
    text = source.read_text(encoding="utf-8")
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert len(pictures(stored)) >= 3
    assert text.count("**Predict**") >= 4
    answers = ANSWERS[source.parent.name]
    assert text.count("**Now you.**") == text.count("answer is None or ") == len(answers) >= 2
    assert "interact" in text
    # Threads that wait for each other on a busy machine spin.
    assert "torch.set_num_threads(1)" in text


@names
def test_an_answer_is_covered_until_its_cell_is_run(source):
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    found = predicted(stored)
    assert len(found) == source.read_text(encoding="utf-8").count("**Predict**")
    for cell in found:
        assert cell.outputs[0].data["text/plain"] == "The answer:"
    for cell in stored.cells:
        covered = cell in found or "interact(" in cell.source
        assert cell.metadata == ({"jupyter": {"outputs_hidden": True}} if covered else {})


@names
def test_what_to_look_at_is_said_after_the_cell_that_shows_it(source):
    cells = read(source).cells
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "markdown" and re.search(r"^Look ", cell.source, re.MULTILINE):
            assert before.cell_type == "code", cell.source
            assert "**Predict**" not in cell.source, cell.source


@names
def test_every_picture_has_words_for_who_cannot_see_it(source):
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    for picture in pictures(stored):
        about = picture.metadata.get("image/png", {})
        assert len(about.get("alt", "").split()) >= 5, "draw it by show(figure, alt)"
        assert about.width <= 900, "wider than a page"


@names
def test_a_slider_is_a_sentence_where_it_cannot_be_moved(source):
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    sliders = source.read_text(encoding="utf-8").count("interact(")
    told = [text for text in texts(stored) if text == "run this cell to move the slider"]
    assert len(told) == sliders >= 1
    assert "vnd.jupyter.widget" not in source.with_suffix(".ipynb").read_text(encoding="utf-8")
