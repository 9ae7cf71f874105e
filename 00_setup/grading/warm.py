"""Imported by the process from which each run of `learn` is forked: what every run needs, once."""

import gc
import importlib
from importlib.metadata import entry_points
from pathlib import Path

from _pytest.config import default_plugins

from tiny_transformer.setup.grading import habits, planted, worker  # noqa: F401
from tiny_transformer.setup.grading.progress import folders

for plugin in (*default_plugins, "pytester"):
    importlib.import_module(f"_pytest.{plugin}")
for entry in entry_points(group="pytest11"):
    entry.load()
for name in ("sybil.parsers.markdown", "torch._dynamo"):  # the second where `meta` decides
    importlib.import_module(name)
for folder in folders(Path(__file__).resolve().parents[2]):
    for part in ("reference", "misconceptions"):
        importlib.import_module(f"tiny_transformer.{folder[3:]}.{part}")
gc.collect()
gc.freeze()  # pytest collects garbage in each run, and would look at all this each time
