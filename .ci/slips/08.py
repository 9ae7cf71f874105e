from slip import Slip


def swap(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


OVERRIDE = r"""
from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

from typeguard import TypeCheckError, check_type


def override(config, assignments):
    hints = get_type_hints(type(config))
    nested, changes = {}, {}
    for key, value in assignments.items():
        name, dot, rest = key.partition(".")
        if name not in {f.name for f in fields(config)}:
            raise ValueError(f"{type(config).__name__} has no setting {key!r}")
        inner = is_dataclass(getattr(config, name))
        if dot and inner:
            nested.setdefault(name, {})[rest] = value
        elif inner and isinstance(value, dict):
            nested.setdefault(name, {}).update(value)
        elif dot:
            raise ValueError(f"there is no setting {key!r}")
        else:
            changes[name] = check(name, value, hints[name])
    for name, table in nested.items():
        changes[name] = override(getattr(config, name), table)
    return replace(config, **changes)


def check(name, value, hint):
    if isinstance(value, list):
        value = tuple(value)
    no_bool = ValueError(f"{name} is {value!r}; it must be of type {hint}")
    if isinstance(value, bool) and "bool" not in str(hint):
        raise no_bool
    if type(value) is int and "float" in str(hint) and "int" not in str(hint):
        value = float(value)
    try:
        return check_type(value, hint)
    except TypeCheckError:
        raise no_bool from None
"""

SAVE = r"""
import hashlib
import json
import os
import shutil
from pathlib import Path

import safetensors.torch


def save_checkpoint(path, state):
    path = Path(path)
    tensors = {}

    def walk(value, name):
        if isinstance(value, torch.Tensor):
            if name in tensors:
                raise ValueError(f"two tensors are called {name}")
            tensors[name] = value.detach().clone().contiguous()
            return {"tensor": name}
        if isinstance(value, dict):
            return {key: walk(item, f"{name}/{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(item, f"{name}/{i}") for i, item in enumerate(value)]
        return value

    rest = walk({key: value for key, value in state.items() if key != "model"}, "")
    weights = {key: value.detach().clone().contiguous() for key, value in state["model"].items()}
    files = {
        "model.safetensors": safetensors.torch.save(weights),
        "state.safetensors": safetensors.torch.save(tensors),
        "state.json": json.dumps(rest).encode(),
    }
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    files["SHA256SUMS"] = "".join(sums).encode()

    new, old = path.with_name(path.name + ".new"), path.with_name(path.name + ".old")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name, data in files.items():
        with open(new / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    folder = os.open(new, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    shutil.rmtree(old, ignore_errors=True)
"""

LOAD = r"""
import hashlib
import json
from pathlib import Path

import safetensors.torch


def load_checkpoint(path):
    path = Path(path)
    folder = path if path.is_dir() else path.with_name(path.name + ".old")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    names = ("model.safetensors", "state.safetensors", "state.json")
    try:
        files = {name: (folder / name).read_bytes() for name in names}
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder} is not whole: {error}") from None
    wanted = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in names]
    if sorted(wanted) != sorted(lines):
        raise ValueError(f"{folder} is damaged")
    tensors = safetensors.torch.load(files["state.safetensors"])

    def back(value):
        if isinstance(value, dict):
            if set(value) == {"tensor"} and isinstance(value["tensor"], str) and value["tensor"] in tensors:
                return tensors[value["tensor"]]
            return {int(k) if k.isdigit() else k: back(v) for k, v in value.items()}
        if isinstance(value, list):
            return [back(item) for item in value]
        return value

    return {"model": safetensors.torch.load(files["model.safetensors"]), **back(json.loads(files["state.json"]))}
"""

LOG = r"""
import json
import os
from pathlib import Path


class MetricsLog:
    def __init__(self, path):
        self.path = Path(path)

    def lines(self):
        data = self.path.read_bytes() if self.path.exists() else b""
        return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)

    def append(self, record):
        whole = sum(map(len, self.lines()))
        with open(self.path, "ab") as file:
            file.truncate(whole)
            file.write(json.dumps(dict(record)).encode() + b"\n")

    def read(self):
        return [json.loads(line) for line in self.lines()]

    def rewind(self, step):
        kept = [line for line in self.lines() if json.loads(line)["step"] <= step]
        other = self.path.with_name(self.path.name + ".new")
        other.write_bytes(b"".join(kept))
        os.replace(other, self.path)
"""

BEST = r"""
import json
import math
import shutil
from pathlib import Path


def keep_best(folder, n):
    if n < 1:
        raise ValueError(f"n is {n}; it must be at least 1")
    found = []
    for file in Path(folder).glob("*/state.json"):
        if file.parent.suffix not in (".new", ".old"):
            loss = json.loads(file.read_text(encoding="utf-8"))["val_loss"]
            found.append((math.isnan(loss), loss, file.parent.name, file.parent))
    found.sort(key=lambda row: (row[0], 0 if row[0] else row[1], row[2]))
    for row in found[n:]:
        shutil.rmtree(row[-1])
    return [row[-1] for row in found[:n]]
"""

SLIPS = [
    # ------------------------------------------------------------ override
    Slip(
        "override",
        "one nested setting after the other",
        swap(
            OVERRIDE,
            "            nested.setdefault(name, {})[rest] = value\n",
            "            config = replace(config, **{name: override(getattr(config, name), {rest: value})})\n",
        ),
        say=["together|at once|one (at a time|after|by one)|collect|same time"],
        never=["default", "type", "copy"],
    ),
    Slip(
        "override",
        "setattr on a frozen dataclass",
        swap(
            OVERRIDE,
            "    return replace(config, **changes)\n",
            "    import copy\n\n    result = copy.copy(config)\n    for name, value in changes.items():\n        setattr(result, name, value)\n    return result\n",
        ).replace("is_dataclass, replace\n", "is_dataclass\n"),
        say=["frozen|FrozenInstanceError|cannot assign|replace"],
        never=["together", "bool"],
    ),
    Slip(
        "override",
        "True taken for a number",
        swap(
            OVERRIDE,
            '    if isinstance(value, bool) and "bool" not in str(hint):\n        raise no_bool\n',
            "",
        ),
        say=["True|False|bool"],
        never=["together", "tuple", "no setting"],
    ),
    Slip(
        "override",
        "a whole number stays an int",
        swap(
            OVERRIDE,
            "        value = float(value)\n    try:\n        return check_type(value, hint)",
            "        check_type(float(value), hint)\n        return value\n    try:\n        return check_type(value, hint)",
        ),
        say=["float", r"int\b|1\.0|whole|2\.0|\d\.0"],
        never=["together", "refuse", "tuple"],
    ),
    Slip(
        "override",
        "typeguard's own error",
        swap(
            OVERRIDE,
            "    try:\n        return check_type(value, hint)\n    except TypeCheckError:\n        raise no_bool from None\n",
            "    return check_type(value, hint)\n",
        ),
        say=["ValueError", "TypeCheckError"],
        never=["together", "bool", "tuple"],
    ),
    Slip(
        "override",
        "nested fields back to their defaults",
        swap(
            OVERRIDE,
            "changes[name] = override(getattr(config, name), table)",
            "changes[name] = override(type(getattr(config, name))(), table)",
        ),
        say=["default|reset|other fields|others|stay|kept"],
        never=["together", "type", "wrong setting"],
    ),
    Slip(
        "override",
        "right: a table of everything",
        r"""
import dataclasses
import typing

import typeguard


def override(config, assignments):
    types, own, inner = typing.get_type_hints(type(config)), {}, {}
    for key, value in assignments.items():
        head, *tail = key.split(".", 1)
        if head not in types:
            raise ValueError(f"{key} is no setting; there are {', '.join(types)}")
        if dataclasses.is_dataclass(types[head]) and (tail or isinstance(value, dict)):
            inner.setdefault(head, {}).update({tail[0]: value} if tail else value)
        elif tail:
            raise ValueError(f"{key}: {head} has no settings of its own")
        else:
            own[head] = value
    for name, value in own.items():
        options = typing.get_args(types[name]) or (types[name],)
        if type(value) is list:
            value = tuple(value)
        if type(value) is int and float in options and int not in options:
            value = float(value)
        fits = not (type(value) is bool and bool not in options)
        try:
            typeguard.check_type(value, types[name])
        except typeguard.TypeCheckError:
            fits = False
        if not fits:
            raise ValueError(f"{name} is {value!r}; it must be of type {types[name]}")
        own[name] = value
    table = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)} | own
    for name, part in inner.items():
        table[name] = override(table[name], part)
    return type(config)(**table)
""",
        right=True,
    ),
    Slip(
        "override",
        "a table makes the nested one anew",
        swap(
            OVERRIDE,
            "            nested.setdefault(name, {}).update(value)\n",
            "            changes[name] = type(getattr(config, name))(**value)\n",
        ),
        say=["other fields", "rms"],
        never=["fit together", "in place"],
    ),
    Slip(
        "override",
        "what may be None is not converted",
        swap(OVERRIDE, '"float" in str(hint) and "int" not in str(hint)', "hint is float"),
        say=[r"float \| None", r"1\.0, not 1"],
        never=["changes the"],
    ),
    Slip(
        "override",
        "what may be None takes True",
        swap(OVERRIDE, '"bool" not in str(hint)', "hint in (int, float)"),
        say=["decay = True"],
        never=["in quotes", "changes the"],
    ),
    Slip(
        "override",
        "writes into the frozen config",
        swap(
            OVERRIDE,
            "    return replace(config, **changes)\n",
            "    for name, value in changes.items():\n"
            "        object.__setattr__(config, name, value)\n"
            "    return config\n",
        ),
        say=["the config it was given"],
        never=["in quotes"],
    ),
    Slip(
        "override",
        "empties the assignments",
        swap(
            OVERRIDE,
            "    for key, value in assignments.items():\n",
            "    while assignments:\n        key, value = assignments.popitem()\n",
        ),
        say=["assignments"],
        never=["changes the config"],
    ),
    Slip(
        "override",
        "lists for tuples are refused",
        swap(OVERRIDE, "        value = tuple(value)\n", "        pass\n"),
        say=["a list may stand"],
        never=["in quotes"],
    ),
    # ------------------------------------------------------------ seed_everything
    Slip(
        "seed_everything",
        "always the same seed",
        """
import random

import numpy as np


def seed_everything(seed=0):
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
""",
        say=["another seed"],
        never=["After the same seed", "PyTorch alone"],
    ),
    Slip(
        "seed_everything",
        "a NumPy generator that nobody has",
        """
import random

import numpy as np


def seed_everything(seed):
    random.seed(seed)
    np.random.default_rng(seed)
    torch.manual_seed(seed)
""",
        say=["NumPy|np.random"],
        never=["PyTorch alone", "another seed"],
    ),
    Slip(
        "seed_everything",
        "NumPy forgotten",
        r"""
import random


def seed_everything(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
""",
        say=["NumPy|np\\."],
        never=["Python's random|random\\.seed", "device"],
    ),
    Slip(
        "seed_everything",
        "a new NumPy generator, drawn by nobody",
        r"""
import random

import numpy as np


def seed_everything(seed):
    random.seed(seed)
    np.random.default_rng(seed)
    torch.manual_seed(seed)
""",
        say=["NumPy|np\\.random|default_rng"],
        never=["random\\.seed is missing", "PyTorch"],
    ),
    # ------------------------------------------------------------ save_checkpoint
    Slip(
        "save_checkpoint",
        "writes into the folder itself",
        SAVE[: SAVE.index("    new, old =")]
        + r"""    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with open(path / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
""",
        say=[r"kill|whole|\.new|rename|half|at any moment"],
        never=["fsync", "SHA256SUMS", "leftover"],
    ),
    Slip(
        "save_checkpoint",
        "a leftover .new stands in the way",
        swap(SAVE, "    shutil.rmtree(new, ignore_errors=True)\n", ""),
        say=[r"\.new|leftover|FileExistsError|in the way|next save"],
        never=["fsync", "half", "share"],
    ),
    Slip(
        "save_checkpoint",
        "tied weights not cloned",
        swap(
            SAVE,
            'weights = {key: value.detach().clone().contiguous() for key, value in state["model"].items()}',
            'weights = dict(state["model"])',
        ),
        say=["share|clone|memory"],
        never=["kill", "SHA256SUMS", "two tensors"],
    ),
    Slip(
        "save_checkpoint",
        "no fsync",
        swap(SAVE, "            file.flush()\n            os.fsync(file.fileno())\n", ""),
        say=["fsync|power|flush|the disk has"],
        never=["rename", "leftover", "SHA256SUMS"],
    ),
    Slip(
        "save_checkpoint",
        "the state loses its model",
        swap(
            swap(
                SAVE,
                '    rest = walk({key: value for key, value in state.items() if key != "model"}, "")\n',
                '    model = state.pop("model")\n    rest = walk(state, "")\n',
            ),
            'in state["model"].items()',
            "in model.items()",
        ),
        say=["state", "pop|chang|as it (is|was)|stay|lost|missing|model"],
        never=["kill", "share memory", "fsync"],
    ),
    Slip(
        "save_checkpoint",
        "with_suffix",
        swap(
            SAVE,
            'path.with_name(path.name + ".new"), path.with_name(path.name + ".old")',
            'path.with_suffix(".new"), path.with_suffix(".old")',
        ),
        say=[r"with_suffix|NAME\.(new|old)|\.new|dot|name"],
        never=["fsync", "half-written", "share memory"],
    ),
    Slip(
        "save_checkpoint",
        "what JSON cannot hold becomes text",
        swap(SAVE, "json.dumps(rest)", "json.dumps(rest, default=str)"),
        say=["TypeError", "JSON"],
        never=["kill", "fsync"],
    ),
    Slip(
        "save_checkpoint",
        "right: key by key",
        swap(
            swap(
                SAVE,
                'rest = walk({key: value for key, value in state.items() if key != "model"}, "")',
                'rest = {}\n    for key in state.keys() - {"model"}:\n        rest[key] = walk(state[key], "/" + str(key))\n    rest = {key: rest[key] for key in state if key != "model"}',
            ),
            '"state.json": json.dumps(rest).encode()',
            '"state.json": bytes(json.dumps(rest, ensure_ascii=True), "ascii")',
        ),
        right=True,
    ),
    Slip(
        "save_checkpoint",
        "one space in SHA256SUMS",
        swap(SAVE, "hexdigest()}  {name}", "hexdigest()} {name}"),
        say=["two spaces", "of length 1"],
        never=["should be the SHA-256"],
    ),
    Slip(
        "save_checkpoint",
        "sums in capitals",
        swap(SAVE, "hexdigest()}  {name}", "hexdigest().upper()}  {name}"),
        say=["in hex", "should be"],
        never=["two spaces"],
    ),
    Slip(
        "save_checkpoint",
        "the name before the sum",
        swap(
            SAVE,
            "{hashlib.sha256(data).hexdigest()}  {name}",
            "{name}  {hashlib.sha256(data).hexdigest()}",
        ),
        say=["one that ends with the name"],
        never=["two spaces"],
    ),
    Slip(
        "save_checkpoint",
        "no sum for the tensors of the state",
        swap(
            SAVE,
            "for name, data in files.items()]\n",
            'for name, data in files.items() if name != "state.safetensors"]\n',
        ),
        say=["3 lines", "has 2"],
        never=["two spaces"],
    ),
    Slip(
        "save_checkpoint",
        "everything in 32 bits",
        swap(
            SAVE,
            "tensors[name] = value.detach().clone().contiguous()",
            "tensors[name] = value.detach().float().contiguous()",
        ),
        say=["int64|uint8|bfloat16|dtype"],
        never=["kill"],
    ),
    Slip(
        "save_checkpoint",
        "takes the model out of the state",
        swap(
            swap(
                SAVE,
                "    path = Path(path)\n",
                '    path, model = Path(path), state.pop("model")\n',
            ),
            'state["model"].items()',
            "model.items()",
        ),
        say=["changes the state"],
        never=["kill"],
    ),
    # ------------------------------------------------------------ load_checkpoint
    Slip(
        "load_checkpoint",
        "the first tensor for all",
        swap(LOAD, 'return tensors[value["tensor"]]', "return next(iter(tensors.values()))"),
        say=["comes back"],
        never=["tensor'? is mistaken"],
    ),
    Slip(
        "load_checkpoint",
        "weights as parameters in 64 bits",
        swap(
            LOAD,
            '{"model": safetensors.torch.load(files["model.safetensors"])',
            '{"model": {k: v.double() for k, v in safetensors.torch.load(files["model.safetensors"]).items()}',
        ),
        say=["float64", "weight"],
        never=["kill"],
    ),
    Slip(
        "load_checkpoint",
        "sums not compared",
        swap(
            LOAD, "    if sorted(wanted) != sorted(lines):\n", "    if len(wanted) != len(lines):\n"
        ),
        say=["bit|sum|damaged|changed|SHA256"],
        never=[r"\.old", "FileNotFoundError"],
    ),
    Slip(
        "load_checkpoint",
        ".old not looked for",
        swap(LOAD, 'path if path.is_dir() else path.with_name(path.name + ".old")', "path"),
        say=[r"\.old"],
        never=["damaged", "digits", "bit"],
    ),
    Slip(
        "load_checkpoint",
        "a missing file is a FileNotFoundError",
        swap(
            LOAD,
            "except (OSError, UnicodeDecodeError) as error",
            "except UnicodeDecodeError as error",
        ),
        say=["ValueError", "missing|FileNotFoundError|file"],
        never=[r"\.old", "digits"],
    ),
    Slip(
        "load_checkpoint",
        "keys stay text",
        swap(
            LOAD,
            "{int(k) if k.isdigit() else k: back(v) for k, v in value.items()}",
            "{k: back(v) for k, v in value.items()}",
        ),
        say=["key", "int|digit|number|text|'0'"],
        never=["damaged", r"\.old"],
    ),
    Slip(
        "load_checkpoint",
        "renames .old while loading",
        swap(
            LOAD,
            '    folder = path if path.is_dir() else path.with_name(path.name + ".old")\n',
            '    old, folder = path.with_name(path.name + ".old"), path\n    if old.is_dir() and not path.is_dir():\n        old.rename(path)\n',
        ),
        say=["disk|chang|renam|load"],
        never=["damaged", "digits", "does not (look|find)"],
    ),
    # ------------------------------------------------------------ MetricsLog
    Slip(
        "MetricsLog",
        "appends to the half line",
        swap(
            swap(LOG, "        whole = sum(map(len, self.lines()))\n", ""),
            "            file.truncate(whole)\n",
            "",
        ),
        say=["half|rest|cut short|last line|removed first"],
        never=["rewind", "flush", "does not exist"],
    ),
    Slip(
        "MetricsLog",
        "rewind in place",
        swap(
            LOG,
            '        other = self.path.with_name(self.path.name + ".new")\n        other.write_bytes(b"".join(kept))\n        os.replace(other, self.path)\n',
            '        with open(self.path, "wb") as file:\n            file.writelines(kept)\n',
        ),
        say=["rewind", "kill|replace|another file|in place|loses"],
        never=["half line", "after `?step", "<="],
    ),
    Slip(
        "MetricsLog",
        "rewind forgets the step itself",
        swap(LOG, '["step"] <= step', '["step"] < step'),
        say=["step", "after|itself|rewind|<"],
        never=["half line", "kill"],
    ),
    Slip(
        "MetricsLog",
        "waits in memory",
        r"""
import json
import os
from pathlib import Path


class MetricsLog:
    def __init__(self, path):
        self.path = Path(path)
        self.file = open(self.path, "a+b")

    def whole(self):
        self.file.seek(0)
        data = self.file.read()
        return data[: data.rfind(b"\n") + 1]

    def append(self, record):
        self.file.truncate(len(self.whole()))
        self.file.write(json.dumps(dict(record)).encode() + b"\n")

    def read(self):
        return [json.loads(line) for line in self.whole().splitlines()]

    def rewind(self, step):
        kept = [json.dumps(record) + "\n" for record in self.read() if record["step"] <= step]
        other = Path(str(self.path) + ".tmp")
        other.write_text("".join(kept), encoding="utf-8")
        os.replace(other, self.path)
        self.file = open(self.path, "a+b")
""",
        say=["flush|close|memory|another process|as soon as|buffer"],
        never=["in place", "<"],
    ),
    Slip(
        "MetricsLog",
        "an empty line passed over",
        swap(
            LOG,
            "[json.loads(line) for line in self.lines()]",
            "[json.loads(line) for line in self.lines() if line.strip()]",
        ),
        say=["line ''", "middle"],
        never=["cut short"],
    ),
    Slip(
        "MetricsLog",
        "numbers rounded",
        swap(
            LOG,
            "json.dumps(dict(record))",
            "json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in record.items()})",
        ),
        say=["train_loss", "0.033"],
        never=["kill"],
    ),
    Slip(
        "MetricsLog",
        "texts come back",
        swap(LOG, "[json.loads(line) for", "[line.decode() for"),
        say=["record"],
        never=["kill"],
    ),
    Slip(
        "MetricsLog",
        "a generator of records",
        swap(
            LOG,
            "return [json.loads(line) for line in self.lines()]",
            "return (json.loads(line) for line in self.lines())",
        ),
        say=["list"],
        never=["kill"],
    ),
    Slip(
        "MetricsLog",
        "begins the file again",
        swap(LOG, '"ab"', '"wb"'),
        say=["gives 1"],
        never=["should give a list"],
    ),
    # ------------------------------------------------------------ keep_best
    Slip(
        "keep_best",
        "the highest losses",
        swap(
            BEST, "    for row in found[n:]:\n", "    found.reverse()\n    for row in found[n:]:\n"
        ),
        say=["lowest"],
        never=["newest", "leftover"],
    ),
    Slip(
        "keep_best",
        "names come back",
        swap(BEST, "return [row[-1] for", "return [row[-1].name for"),
        say=["path"],
        never=["newest", "leftover"],
    ),
    Slip(
        "keep_best",
        "what goes comes back",
        swap(BEST, "for row in found[:n]]", "for row in found[n:]]"),
        say=["returns"],
        never=["newest", "leftover"],
    ),
    Slip(
        "keep_best",
        "keeps the newest",
        swap(
            BEST,
            "    found.sort(key=lambda row: (row[0], 0 if row[0] else row[1], row[2]))\n",
            "    found.sort(key=lambda row: row[-1].stat().st_mtime, reverse=True)\n",
        ),
        say=["val_loss|best|lowest"],
        never=["nan", "leftover", "n below"],
    ),
    Slip(
        "keep_best",
        "nan sorted as it comes",
        swap(BEST, "(row[0], 0 if row[0] else row[1], row[2])", "(row[1], row[2])"),
        say=["nan"],
        never=["leftover", "newest", "n below"],
    ),
    Slip(
        "keep_best",
        "leftovers count",
        swap(BEST, 'if file.parent.suffix not in (".new", ".old"):', "if file.parent.is_dir():"),
        say=[r"\.new|\.old|leftover"],
        never=["nan", "n below"],
    ),
    Slip(
        "keep_best",
        "n of 0 deletes everything",
        swap(
            BEST,
            '    if n < 1:\n        raise ValueError(f"n is {n}; it must be at least 1")\n',
            "",
        ),
        say=["ValueError|refuse|below 1|n is 0|n = 0"],
        never=["nan", "leftover"],
    ),
    Slip(
        "keep_best",
        "right: nsmallest, inf for nan",
        r"""
import heapq
import json
import shutil
from pathlib import Path


def keep_best(folder, n):
    if n < 1:
        raise ValueError(f"cannot keep {n} checkpoints (n must be 1 or more)")
    loss = {}
    for path in sorted(Path(folder).iterdir()):
        if (path / "state.json").is_file() and not path.name.endswith((".new", ".old")):
            value = json.loads((path / "state.json").read_text(encoding="utf-8"))["val_loss"]
            loss[path] = (value != value, 0.0 if value != value else value, path.name)
    best = heapq.nsmallest(n, loss, key=loss.get)
    for path in loss.keys() - set(best):
        shutil.rmtree(path)
    return best
""",
        right=True,
    ),
]

# Of the same kind, and slower, or beyond what the gate has time for.
SPARE = {
    ("save_checkpoint", "writes into the folder itself"),
    ("save_checkpoint", "one space in SHA256SUMS"),
    ("save_checkpoint", "with_suffix"),
    ("save_checkpoint", "the state loses its model"),
    ("override", "nested fields back to their defaults"),
    ("seed_everything", "NumPy forgotten"),
    ("save_checkpoint", "right: key by key"),
    ("load_checkpoint", ".old not looked for"),
    ("MetricsLog", "rewind forgets the step itself"),
    ("keep_best", "keeps the newest"),
    ("keep_best", "leftovers count"),
    ("override", "writes into the frozen config"),
    ("override", "empties the assignments"),
    ("override", "what may be None takes True"),
    ("seed_everything", "a NumPy generator that nobody has"),
    ("save_checkpoint", "sums in capitals"),
    ("save_checkpoint", "the name before the sum"),
    ("save_checkpoint", "no sum for the tensors of the state"),
    ("save_checkpoint", "everything in 32 bits"),
    ("save_checkpoint", "takes the model out of the state"),
    ("load_checkpoint", "the first tensor for all"),
    ("load_checkpoint", "weights as parameters in 64 bits"),
    ("MetricsLog", "numbers rounded"),
    ("MetricsLog", "texts come back"),
    ("MetricsLog", "a generator of records"),
    ("keep_best", "the highest losses"),
    ("override", "lists for tuples are refused"),
    ("MetricsLog", "begins the file again"),
    ("keep_best", "names come back"),
    ("keep_best", "what goes comes back"),
}
EXTRA = [slip for slip in SLIPS if (slip.exercise, slip.name) in SPARE]
SLIPS = [slip for slip in SLIPS if (slip.exercise, slip.name) not in SPARE]

SLIPS += [
    Slip(
        "keep_best",
        "looks into folders of folders",
        swap(BEST, '.glob("*/state.json")', '.rglob("state.json")'),
        say=["notes/kept", "inside of another folder"],
    ),
    Slip(
        "load_checkpoint",
        "digits behind a minus are a number",
        swap(LOAD, "k.isdigit()", 'k.isascii() and k.lstrip("-").isdigit()'),
        say=["digits 0 to 9", "'-1'"],
        never=["a digit to str.isdigit"],
    ),
    Slip(
        "load_checkpoint",
        "a power is a digit",
        LOAD,
        say=["a digit to str.isdigit", "ValueError"],
    ),
    Slip(
        "override",
        "right: names the part that does not exist",
        swap(OVERRIDE, "has no setting {key!r}", "has no setting {name!r}"),
        right=True,
    ),
]
EXTRA += [
    Slip(
        "save_checkpoint",
        "the old one goes at the beginning",
        swap(
            SAVE,
            "    shutil.rmtree(new, ignore_errors=True)\n",
            "    shutil.rmtree(new, ignore_errors=True)\n"
            "    shutil.rmtree(old, ignore_errors=True)\n",
        ),
        say=["earlier kill had left", "last.old is the only checkpoint"],
    ),
    Slip(
        "save_checkpoint",
        "no copies of what shares memory",
        swap(SAVE, "key: value.detach().clone().contiguous()", "key: value.detach()"),
        say=["share memory", "Copies"],
        never=["save_model"],
    ),
    Slip(
        "MetricsLog",
        "a file that stays open",
        swap(
            swap(
                LOG,
                "        self.path = Path(path)\n",
                "        self.path = Path(path)\n        self.file = open(path, 'a')\n",
            ),
            '        with open(self.path, "ab") as file:\n'
            "            file.truncate(whole)\n"
            '            file.write(json.dumps(dict(record)).encode() + b"\\n")\n',
            '        self.file.write(json.dumps(dict(record)) + "\\n")\n',
        ),
        say=["file is empty", "until it is closed"],
    ),
]
