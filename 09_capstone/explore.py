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
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.capstone.guide import preset_of
from tiny_transformer.capstone.reference import best_checkpoint, load_run
from tiny_transformer.capstone.report import read_records
from tiny_transformer.capstone.session import as_saved, check_settings
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import read_run_config
from tiny_transformer.engineering.expected import check_like, check_weights
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint, replace_file
from tiny_transformer.tiny_lm.reference import TinyTransformerLM

SOURCES = Path(__file__).with_name("explorer")
COURSE = "https://github.com/tiny-transformer/tiny-transformer"
Beginnings = Callable[[CharTokenizer], list[str]]
LARGEST = 20_000_000  # bytes of the whole file
FLOAT32_UP_TO = 8_000_000  # bytes of weights
LARGEST_LOSS = 3e38  # about that of float32
MOMENTS = 8  # weights from so many steps, at most
DIGITS = np.array([c for c in range(40, 127) if c not in b"<\\"], dtype=np.uint8)  # 85 of them
IMPORT = re.compile(r'^import [^;]*?"\./([\w-]+\.js)";\n', re.M)
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; worker-src blob:; "
    "script-src 'sha256-{script}'; style-src 'sha256-{style}'"
)


def write_explorer(run: Path, out: Path, title: str, beginnings: Beginnings) -> None:
    """Write the page of a run to the file `out`. `beginnings` gives texts that its model can read.

    Raises:
        FileNotFoundError: if there is no run, or it has not reached its first checkpoint.
        ValueError: if a checkpoint is damaged or of another run, or too large for a page.
    """
    check_target(out)
    data = {"title": title, **described(run, beginnings)}
    found = len(data["snapshots"])
    for count in range(found, 0, -1):
        file = page(with_fewer(data, count))
        if len(file) <= LARGEST:
            break
    else:
        raise ValueError(
            f"with the weights of {run} the page would have {len(file) / 1e6:.1f} MB, and it may "
            f"have {LARGEST / 1e6:.0f}: train a smaller model"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, file)


def check_target(out: Path) -> None:
    """See that nothing is lost if the page goes there: what is there may be an older page."""
    if out.is_dir():
        raise ValueError(f"out is {out}, which is a folder; it must be a file")
    if not out.exists():
        return
    if not out.is_file():
        raise ValueError(f"out is {out}, which is no regular file")
    source = (SOURCES / "page.html").read_text(encoding="utf-8")
    ours = (source.partition("{{")[0] + POLICY.partition("{")[0]).encode()
    with out.open("rb") as file:
        if file.read(len(ours)) != ours:
            raise ValueError(f"out is {out}, which is no page of this command; it stays as it is")


def described(run: Path, beginnings: Beginnings) -> dict[str, Any]:
    """All that the page shows of a run, the weights included."""
    model, tokenizer = load_run(run)
    config = read_run_config(run)
    log = MetricsLog(run / "metrics.jsonl")
    records = {record["step"]: record for record in read_records(log)}
    for record in records.values():
        check_moment(record, log.path.name)
    path, own = best_checkpoint(run)
    last = moment(path, own, records)
    kind, said = rounding(model, own["model"])
    moments, weights = [], []
    for path in spread(checkpoints_before(last["step"], run), MOMENTS - 1):
        if not path.is_dir():
            raise ValueError(f"{path} is no folder, as a checkpoint is")
        state = load_checkpoint(path)
        check_settings(state, as_saved(config), path, only="model.")
        check_weights(state["model"], model)
        moments.append(moment(path, state, records))
        weights.append(packed(model, state["model"], torch.bfloat16))
    return {
        "config": asdict(model.config),
        "characters": tokenizer.characters,
        "run": {"preset": preset_of(config.model), **last},
        "said": [said],
        "examples": [text[: model.config.max_len] for text in beginnings(tokenizer)],
        "home": COURSE,
        "losses": [[step, r["val_loss"]] for step, r in records.items() if "val_loss" in r],
        "training": [[step, r["train_loss"]] for step, r in records.items()],
        "snapshots": [*moments, last],
        "weights": [*weights, packed(model, own["model"], kind)],
    }


def checkpoints_before(step: int, run: Path) -> list[Path]:
    """Those of a folder `snapshots/`, else the numbered ones, in the order of their steps."""
    for folder in ("snapshots", "checkpoints"):
        numbered = {
            int(path.name[5:]): path
            for path in run.glob(f"{folder}/step-*")
            if re.fullmatch(r"step-\d{1,18}", path.name)
        }
        if numbered:
            return [numbered[number] for number in sorted(numbered) if number < step]
    return []


def spread(items: list[Any], count: int) -> list[Any]:
    """So many of the items at most, evenly, the last among them."""
    gaps = max(1, min(count, len(items)) - 1)
    last = len(items) - 1
    return [items[last - round(i * last / gaps)] for i in range(min(count, len(items)))][::-1]


def with_fewer(data: dict[str, Any], count: int) -> dict[str, Any]:
    """The same with the weights of so many moments, and a sentence if any are left out."""
    found = len(data["snapshots"])
    earlier = count > 1 and data["weights"][-1]["kind"] == "float32"
    return {
        **data,
        "said": data["said"]
        + ["Those of earlier moments are in bfloat16."] * earlier
        + [f"Of {found} moments of its training {count} are here: a page has room for 20 MB."]
        * (count < found),
        "snapshots": spread(data["snapshots"], count),
        "weights": spread(data["weights"], count),
    }


def moment(path: Path, state: dict[str, Any], records: dict[int, dict]) -> dict[str, Any]:
    """The step of a checkpoint and its losses, as far as it or the run's metrics know them."""
    check_moment(state, path.name)
    known = {**records.get(state["step"], {}), **state}
    losses = {name: known.get(name) for name in ("train_loss", "val_loss")}
    return {"step": state["step"], **losses}


def check_moment(state: Mapping[str, Any], where: str) -> None:
    """See that a step and its losses are numbers that a run can have."""
    kinds = {"step": 0, "train_loss": 0.0, "val_loss": 0.0}
    for name, kind in kinds.items():
        number = state.get(name)
        if number is None and name != "step":
            continue
        check_like(number, kind, f"{where}/{name}")
        if not 0 <= number <= LARGEST_LOSS:
            raise ValueError(f"{where}/{name} is {number}; it is never below 0 or over 3e38")


def rounding(model: TinyTransformerLM, weights: dict[str, Tensor]) -> tuple[torch.dtype, str]:
    """In what the weights are written, and a sentence about it."""
    if {weight.dtype for weight in weights.values()} == {torch.bfloat16}:
        return torch.bfloat16, "The weights are in bfloat16, as the run has them."
    if 4 * sum(parameter.numel() for parameter in model.parameters()) <= FLOAT32_UP_TO:
        return torch.float32, "The weights are in float32, as the run has them."
    return torch.bfloat16, "The weights are rounded to bfloat16; in float32 they take over 8 MB."


def packed(
    model: TinyTransformerLM, weights: dict[str, Tensor], kind: torch.dtype
) -> dict[str, Any]:
    """The weights as text, five characters for four bytes, which `unpacked` of worker.js reads.

    All first bytes come before all second ones: those with the exponents are much alike, and a
    Huffman code takes a third less for them.
    """
    names = [name for name, _ in model.named_parameters()]  # tied weights once
    flat = torch.cat([weights[name].flatten().to(kind) for name in names])
    planes = flat.view(torch.uint8).view(-1, flat.itemsize).t().contiguous().numpy().tobytes()
    code = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    data = code.compress(planes) + code.flush()
    words = np.frombuffer(data + bytes(-len(data) % 4), dtype=">u4")
    digits = words[:, None] // 85 ** np.arange(4, -1, -1) % 85
    return {
        "tensors": [[name, list(weights[name].shape)] for name in names],
        "kind": str(kind).removeprefix("torch."),
        "bytes": len(data),
        "data": DIGITS[digits].tobytes().decode(),
    }


def page(data: dict[str, Any]) -> bytes:
    """`page.html` with its style, its scripts and the data, none of which can end its element."""
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
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], source)
    return text.encode(errors="replace")  # the name of a folder may be any bytes


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
