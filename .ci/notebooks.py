"""Executes each notebook.py, the text of a notebook, into notebook.ipynb beside it: make notebooks.

With the names of folders as arguments, those alone.
"""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]


def read(source: Path) -> NotebookNode:
    notebook = jupytext.read(source)
    notebook.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()  # the same in every run
    return notebook


def execute(source: Path) -> NotebookNode:
    """Run the notebook from a clean kernel, in its own folder, with the capstone at its smallest.

    Raises:
        CellExecutionError: with the traceback of the cell that failed.
    """
    os.environ["PRESET"] = "smoke"
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other on a busy machine spin
    notebook = read(source)
    NotebookClient(
        notebook,
        extra_arguments=["--log-level=ERROR"],
        timeout=60,
        resources={"metadata": {"path": str(source.parent)}},
        record_timing=False,
    ).execute()
    notebook.metadata.pop("widgets", None)  # a slider needs a kernel; its picture is stored
    return notebook


if __name__ == "__main__":
    for source in sorted(ROOT.glob("0*_*/notebook.py")):
        if sys.argv[1:] and source.parent.name not in sys.argv[1:]:
            continue
        begin = time.perf_counter()
        target = source.with_suffix(".ipynb")
        nbformat.write(execute(source), target)
        seconds, size = time.perf_counter() - begin, target.stat().st_size / 1024
        print(f"{source.parent.name:22} {seconds:5.1f} s {size:6.0f} KB")
