"""Every notebook runs from a clean kernel, and is stored as it ran."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, execute, read, seconds

SOURCES = sorted(ROOT.glob("0*_*/notebook.py"))
names = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parent.name)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def texts(notebook):
    for output in outputs(notebook):
        yield "".join(output.get("text", "")) + "".join(
            output.get("data", {}).get("text/plain", "")
        )


def test_every_module_has_one():
    assert len(SOURCES) == 10


@names
def test_it_runs_within_a_minute(source):
    notebook = execute(source)
    assert seconds(notebook) < 60
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert pictures(notebook) == pictures(stored)


@names
def test_it_is_stored_as_it_ran(source):
    target = source.with_suffix(".ipynb")
    stored = nbformat.read(target, as_version=4)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in read(source).cells], (
        "make notebooks"
    )
    assert target.stat().st_size < 500_000
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
    assert pictures(stored) >= 3
    assert text.count("**Predict**") >= 4
    assert text.count("**Now you.**") == text.count("answer is None or ") >= 2
    assert "interact" in text
