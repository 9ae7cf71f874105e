"""Executes each notebook.py, the text of a notebook, into notebook.ipynb beside it: make notebooks.

With the names of folders as arguments, those alone.
"""

import os
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from textwrap import indent

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode
from nbformat.v4 import new_output

ROOT = Path(__file__).parents[1]
# What a slider draws is not told to the kernel too: while it answers, that can lose the answer.
OutputWidget.sync_state = lambda self: None


def read(source: Path) -> NotebookNode:
    notebook = jupytext.read(source)
    notebook.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()  # the same in every run
    return notebook


def execute(
    source: Path, answers: Iterable[tuple[str, str]] = (), preset: str = "smoke"
) -> NotebookNode:
    """Run the notebook from a clean kernel, in its own folder, with the capstone at this preset.

    Raises:
        CellExecutionError: with the traceback of the cell that failed. With `answers`, a right and
            a wrong one to each question in turn, a right one that is refused or a wrong one that is
            accepted fails too.
    """
    os.environ["PRESET"] = preset
    notebook = read(source)
    questions = [cell for cell in notebook.cells if "answer = None" in cell.source]
    for cell, (right, wrong) in zip(questions, answers, strict=False):
        refused = indent(cell.source.replace("answer = None", f"answer = {wrong}"), "    ")
        cell.source = (
            cell.source.replace("answer = None", f"import math\nanswer = {right}")
            + f"\ntry:\n{refused}\nexcept AssertionError:\n    pass\n"
            + "else:\n    raise ValueError('a wrong answer is accepted')"
        )
    NotebookClient(
        notebook,
        extra_arguments=["--log-level=ERROR"],
        timeout=120,
        resources={"metadata": {"path": str(source.parent)}},
    ).execute()
    return notebook


def rest(notebook: NotebookNode) -> None:
    """Make of a notebook that ran one to read: what it found covered, sliders as their pictures.

    JupyterLab shows the first line of what is covered, so this is never an answer. It uncovers what
    is run.
    """
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    covered = predicted(notebook)
    for cell in covered:
        cell.outputs.insert(0, new_output("display_data", {"text/plain": "The answer:"}))
    widgets = notebook.metadata.pop("widgets", NotebookNode())
    models = widgets.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    for cell in notebook.cells:
        for output in list(cell.get("outputs", [])):
            if widget := output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", {}):
                if models[widget.model_id].model_name == "HBoxModel":  # a progress bar, still at 0%
                    cell.outputs.remove(output)
                    continue
                output.data["text/plain"] = "run this cell to move the slider"
                *_, drawn = models[widget.model_id]["state"]["children"]
                drawn = models[drawn.removeprefix("IPY_MODEL_")]["state"]["outputs"]
                cell.outputs += map(nbformat.from_dict, drawn)
                covered.append(cell)
    for cell in covered:
        cell.metadata.jupyter = NotebookNode(outputs_hidden=True)


def predicted(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that answer a **Predict**: the first with output after each."""
    found, asked = [], False
    for cell in notebook.cells:
        if "**Predict**" in cell.source:
            asked = True
        elif asked and cell.get("outputs"):
            found, asked = [*found, cell], False
    return found


def seconds(notebook: NotebookNode) -> float:
    """How long the cells of a notebook that was executed took, without the start of its kernel."""
    cells = [cell.metadata.execution for cell in notebook.cells if cell.cell_type == "code"]
    ends = ("iopub.status.busy", "iopub.status.idle")
    times = [[datetime.fromisoformat(cell[end].rstrip("Z")) for end in ends] for cell in cells]
    return sum((idle - busy).total_seconds() for busy, idle in times)


if __name__ == "__main__":
    for source in sorted(ROOT.glob("0*_*/notebook.py")):
        if sys.argv[1:] and source.parent.name not in sys.argv[1:]:
            continue
        notebook, target = execute(source, preset="fast"), source.with_suffix(".ipynb")
        took = seconds(notebook)
        rest(notebook)
        nbformat.write(notebook, target)
        size = target.stat().st_size / 1024
        print(f"{source.parent.name:22} {took:5.1f} s {size:6.0f} KB")
