"""One HTML file that shows a model from inside: it holds the weights and computes with them itself.

The browser lets a page from a file load nothing, and this page's own policy forbids it to. So the
modules of `explorer/` are joined into two scripts, one for the page and one for its worker.
"""

import base64
import hashlib
import html
import json
import os
import re
import sys
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import read_records
from tiny_transformer.capstone.session import as_saved, check_settings
from tiny_transformer.engineering.config import PRESETS, RunConfig, read_run_config
from tiny_transformer.engineering.expected import check_weights
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint, replace_file
from tiny_transformer.tiny_lm.reference import TinyTransformerLM

SOURCES = Path(__file__).with_name("explorer")
PRETRAINED = Path(__file__).with_name("pretrained")
EXAMPLE = "But, soft! what light through yonder window breaks?"
LARGEST = 20_000_000  # bytes of the whole file
FLOAT32_UP_TO = 8_000_000  # bytes of weights
MOMENTS = 8  # snapshots, at most
IMPORT = re.compile(r'^import [^;]*?"\./([\w-]+\.js)";\n', re.M)
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; worker-src blob:; "
    "script-src 'sha256-{script}'; style-src 'sha256-{style}'"
)


def write_explorer(run: Path, out: Path) -> None:
    """Write the page of a run to the file `out`."""
    data = described(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page(data).encode())


def described(run: Path) -> dict[str, Any]:
    model, tokenizer = load_run(run)
    config = read_run_config(run)
    records = read_records(MetricsLog(run / "metrics.jsonl"))
    state = load_checkpoint(run / "best" if (run / "best").exists() else run / "last")
    own, rounding = packed(model, state["model"])
    moments, weights = [], []
    for path in sorted(run.glob("snapshots/step-*")):
        moment, snapshot = packed_snapshot(path, model, config)
        moments.append(moment)
        weights.append(snapshot)
    moments.append({"step": state.get("step"), "val_loss": state.get("val_loss")})
    weights.append(own)
    return {
        "title": "The model in the box" if run == PRETRAINED else f"The run {run.name}",
        "examples": [EXAMPLE],
        "home": "",
        "config": asdict(model.config),
        "characters": tokenizer.characters,
        "run": {"preset": preset_of(config), "name": run.name, **moments[-1]},
        "said": [rounding],
        "snapshots": moments,
        "losses": [[r["step"], r["val_loss"]] for r in records if "val_loss" in r],
        "weights": weights,
    }


def preset_of(config: RunConfig) -> str | None:
    return next((name for name, preset in PRESETS.items() if preset.model == config.model), None)


def packed(model: TinyTransformerLM, stored: dict[str, Tensor]) -> tuple[list[dict], str]:
    """The weights of a model, each once, and a sentence on how they were rounded."""
    weights = {name: stored[name] for name, _ in model.named_parameters()}  # a tied one once
    kinds = {weight.dtype for weight in weights.values()}
    if kinds == {torch.bfloat16}:
        dtype, said = torch.bfloat16, "The weights are in bfloat16, as the run has them."
    elif 4 * sum(weight.numel() for weight in weights.values()) <= FLOAT32_UP_TO:
        dtype, said = torch.float32, "The weights are in float32, as the run has them."
    else:
        dtype = torch.bfloat16
        said = "The weights are rounded to bfloat16: in float32 they take more than 8 MB."
    tensors = [
        {
            "name": name,
            "shape": list(weight.shape),
            "dtype": str(dtype).removeprefix("torch."),
            "data": base64.b64encode(bytes_of(weight.to(dtype))).decode(),
        }
        for name, weight in weights.items()
    ]
    return tensors, said


def packed_snapshot(path: Path, model: TinyTransformerLM, config: RunConfig) -> tuple[dict, list]:
    state = load_checkpoint(path)
    check_settings(state, as_saved(config), path, only="model.")
    check_weights(state["model"], model)
    tensors, _ = packed(model, state["model"])
    return {"step": state["step"]}, tensors


def bytes_of(weight: Tensor) -> bytes:
    return weight.contiguous().view(torch.uint8).numpy().tobytes()


def page(data: dict[str, Any]) -> str:
    style = (SOURCES / "page.css").read_text(encoding="utf-8")
    script, worker = joined("page.js"), joined("worker.js")
    policy = POLICY.format(script=digest(script), style=digest(style))
    parts = {
        "policy": policy,
        "title": html.escape(data["title"]),
        "style": style,
        "script": script,
        "worker": worker,
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    source = (SOURCES / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], source)


def joined(entry: str) -> str:
    """A module and all that it imports as one classic script, each after what it depends on."""
    order: dict[str, str] = {}

    def add(name: str) -> None:
        if name in order:
            return
        source = (SOURCES / name).read_text(encoding="utf-8")
        for needed in IMPORT.findall(source):
            add(needed)
        order[name] = re.sub(r"^export ", "", IMPORT.sub("", source), flags=re.M)

    add(entry)
    return '"use strict";\n{\n' + "\n".join(order.values()) + "}\n"


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def open_page(file: Path) -> None:
    """In the browser, where there is a screen: one for the terminal would not run the page."""
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}:
        return
    webbrowser.open(file.resolve().as_uri())
