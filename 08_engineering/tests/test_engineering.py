"""Module 08. `impl` is the reference in one run of each test and your exercises in the other.

A kill is played by an audit hook, which Python calls before each change it makes to the disk:
the hook raises at the first change, in the next run at the second, and so on to the last.
"""

import copy
import errno
import hashlib
import itertools
import json
import math
import os
import pickle
import random
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch
from torch import nn

from tiny_transformer.engineering.config import PRESETS, RunConfig, read_config, write_config
from tiny_transformer.engineering.reference import (
    MetricsLog,
    keep_best,
    load_checkpoint,
    override,
    random_states,
    restore_random_states,
    save_checkpoint,
    seed_everything,
)
from tiny_transformer.setup.grading.examples import the_example_is_true

FILES = ["SHA256SUMS", "model.safetensors", "state.json", "state.safetensors"]


def disk_is_full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Killed(BaseException):
    """Not an Exception: what is killed does not get to handle it."""


class Killer:
    """Stops a function before its nth change to the disk, and any later one."""

    CHANGES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}

    def __init__(self) -> None:
        self.changes_left = math.inf
        self.watching: Callable[[Path, Path], None] | None = None

    def __call__(self, event: str, args: tuple) -> None:
        if event == "os.rename" and self.watching is not None:
            self.watching(Path(args[0]), Path(args[1]))
        if self.changes_left == math.inf or event not in self.CHANGES:
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        self.changes_left -= 1
        if self.changes_left == -1 and event == "open" and args[2] & os.O_TRUNC:
            self.changes_left = math.inf
            open(args[0], "wb").close()  # it was opened, and then nothing was written
            self.changes_left = -1
        if self.changes_left < 0:
            raise Killed

    def at_each_change(self, act: Callable[[], Any], folder: Path) -> Iterator[None]:
        """Runs `act` with ever later kills, each time from the `folder` as it was at first."""
        before = shutil.copytree(folder, folder.with_name(folder.name + " before"))
        for changes in itertools.count():
            self.changes_left = changes
            try:
                act()
            except Killed:
                self.changes_left = math.inf
                yield
            else:
                assert changes > 0, "no change to the disk was seen"
                return
            finally:
                self.changes_left = math.inf
            shutil.rmtree(folder)
            shutil.copytree(before, folder)


@pytest.fixture(scope="session")
def killer() -> Killer:
    killer = Killer()
    sys.addaudithook(killer)  # for good: Python cannot take one away again
    return killer


def state_of(step: int) -> dict[str, Any]:
    """A state whose every part says which step it is of."""
    whole = torch.full((3, 4), step)
    return {"model": {"weight": whole.float()}, "step": step, "moments": {0: [whole]}}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def lost(back: Any, saved: Any, where: str = "state") -> str:
    """Where a state that came back differs from the one that was saved; nothing if nowhere."""
    if isinstance(saved, dict) and isinstance(back, dict):
        if back.keys() != saved.keys():
            return f"{where} had the keys {list(saved)} and comes back with {list(back)}"
        told = (lost(back[key], saved[key], f"{where}[{key!r}]") for key in saved)
        return next(filter(None, told), "")
    if isinstance(saved, list) and isinstance(back, list) and len(saved) == len(back):
        told = (lost(back[i], saved[i], f"{where}[{i}]") for i in range(len(saved)))
        return next(filter(None, told), "")
    if same(back, saved):
        return ""
    if isinstance(saved, torch.Tensor) and isinstance(back, torch.Tensor):
        was, now = (f"of {str(t.dtype)[6:]} {tuple(t.shape)}" for t in (saved, back))
        change = f"{was} and comes back {now}" if was != now else f"{was} and has other numbers"
        return f"{where} was a tensor {change}"
    return f"{where} was {saved!r} and comes back as {back!r}"


def comes_back(save: Callable, path: Path, state: dict[str, Any]) -> None:
    """Whoever loads what was saved must get the state."""
    save(path, dict(state))
    try:
        back = load_checkpoint(path)
    except (FileNotFoundError, ValueError) as error:
        pytest.fail(
            f"What it saves, others cannot load: {str(error).replace(f'{path.parent}/', '')}"
        )
    told = lost(back, state)
    assert not told, told


def is_whole(path: Path, *states: dict[str, Any], before: str = "") -> None:
    """After a kill one of these states must be left."""
    try:
        left = load_checkpoint(path)
    except (FileNotFoundError, ValueError):
        left = None
    assert left is not None and any(same(left, state) for state in states), (
        "After a kill in the middle of a save `load_checkpoint` finds neither the old state nor "
        f"the new one at {path.name}; in the folder there is {sorted(os.listdir(path.parent))}."
        f"{before}"
    )


def must_be(kind: type, act: Callable[[], Any], what: str, naming: str = "") -> None:
    """`what` must be an error of this kind, which names this."""
    try:
        act()
    except kind as error:
        told = f"{what} gives a {kind.__name__} that does not name {naming}: {error}"
        assert naming in str(error), told
    except NotImplementedError:
        raise
    except Exception as error:
        pytest.fail(f"{what} raises {type(error).__name__}; it must be a {kind.__name__}.")
    else:
        pytest.fail(f"{what} is accepted, and must be a {kind.__name__}.")


@dataclass(frozen=True)
class Shape:
    width: int = 8
    heads: int = 2
    norm: Literal["layer", "rms"] = "layer"

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; it must divide width, {self.width}")


@dataclass(frozen=True)
class Settings:
    seed: int = 1
    rate: float = 0.1
    loud: bool = False
    corpus: str | None = None
    fast: bool | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    shape: Shape = field(default_factory=Shape)
    decay: float | None = None


@dataclass(frozen=True)
class Deep:
    name: str = "deep"
    settings: Settings = field(default_factory=Settings)


def differing(changed: Any, wanted: Any) -> str:
    """Which fields of a dataclass are others than wanted, if any are."""
    if type(changed) is not type(wanted):
        return f"a {type(changed).__name__} comes back, and no {type(wanted).__name__}"
    pairs = [(f.name, getattr(changed, f.name), getattr(wanted, f.name)) for f in fields(wanted)]
    return ", ".join(f"{name} is {a!r} and should be {b!r}" for name, a, b in pairs if a != b)


@pytest.mark.exercise("override")
class TestOverride:
    @pytest.mark.parametrize(
        "assignments, expected",
        [
            ({}, Settings()),
            ({"seed": 2}, Settings(seed=2)),
            ({"seed": 2, "loud": True, "corpus": "a.txt"}, Settings(2, 0.1, True, "a.txt")),
            ({"fast": False}, Settings(fast=False)),
            ({"shape.width": 4}, Settings(shape=Shape(width=4))),
            ({"shape": {"width": 4, "norm": "rms"}}, Settings(shape=Shape(4, norm="rms"))),
            ({"shape.heads": 4, "shape.norm": "rms"}, Settings(shape=Shape(8, 4, "rms"))),
        ],
    )
    def test_changes_what_is_named_and_nothing_else(self, impl, assignments, expected):
        told = differing(impl.override(Settings(), copy.deepcopy(assignments)), expected)
        assert not told, f"With {assignments} {told}."

    def test_the_original_stays_as_it_was(self, impl):
        settings = Settings()
        impl.override(settings, {"seed": 2, "shape.width": 4})
        assert settings == Settings(), f"override changes the config it was given: {settings}"

    def test_the_assignments_stay_as_they_were(self, impl):
        assignments = {"shape": {"width": 4}, "shape.norm": "rms", "betas": [0.8, 0.9]}
        before = copy.deepcopy(assignments)
        impl.override(Settings(), assignments)
        assert assignments == before, f"override changes the assignments: now {assignments}"

    @pytest.mark.parametrize("width", [{"shape.width": 4}, {"shape": {"width": 4}}])
    def test_what_was_set_before_is_kept(self, impl, width):
        settings = Settings(rate=0.5, shape=Shape(norm="rms"))
        changed = impl.override(settings, {"seed": 2, **width})
        assert changed.rate == 0.5, f"rate was 0.5 and stays so; here it is {changed.rate}"
        assert changed.shape == Shape(4, norm="rms"), (
            f"shape was {settings.shape}; {width} changes its width, and its other fields stay as "
            f"they were. Here comes {changed.shape}"
        )

    @pytest.mark.parametrize(
        "assignments",
        [
            {"shape.width": 9, "shape.heads": 3},
            {"shape.heads": 3, "shape.width": 9},
            {"shape.width": 9, "shape": {"heads": 3}},
        ],
    )
    def test_settings_that_only_fit_together_can_change_together(self, impl, assignments):
        try:
            changed = impl.override(Settings(), copy.deepcopy(assignments))
        except ValueError as error:
            pytest.fail(
                f"{assignments} fit together and must be changed together, all of one dataclass at "
                f"once; here they are refused: {error}"
            )
        told = differing(changed, Settings(shape=Shape(9, 3)))
        assert not told, f"With {assignments} {told}."

    @pytest.mark.parametrize(
        "assignments",
        [
            {"settings.shape.width": 4, "settings.seed": 2},
            {"settings": {"shape": {"width": 4}, "seed": 2}},
            {"settings": {"shape.width": 4}, "settings.seed": 2},
            {"settings.shape": {"width": 4}, "settings": {"seed": 2}},
        ],
    )
    def test_what_is_nested_twice_is_reached_too(self, impl, assignments):
        changed = impl.override(Deep(), copy.deepcopy(assignments))
        told = differing(changed.settings, Settings(2, shape=Shape(4)))
        assert not told, f"With {assignments} {told} in settings."

    @pytest.mark.parametrize("key, kind", [("rate", "float"), ("decay", "float | None")])
    def test_a_whole_number_will_do_for_a_float(self, impl, key, kind):
        try:
            value = getattr(impl.override(Settings(), {key: 1}), key)
        except ValueError as error:
            pytest.fail(f"{key} is a {kind}, for which 1 may stand; here it is refused: {error}")
        assert (value, type(value)) == (1.0, float), (
            f"{key} is a {kind}, for which the whole number 1 may stand: it becomes 1.0, not "
            f"{value!r}"
        )

    def test_a_list_will_do_for_a_tuple(self, impl):  # TOML has no tuples
        try:
            betas = impl.override(Settings(), {"betas": [0.8, 0.9]}).betas
        except ValueError as error:
            pytest.fail(f"betas is a tuple, for which a list may stand; here: {error}")
        told = f"betas is a tuple, for which a list may stand: it becomes (0.8, 0.9), not {betas}"
        assert betas == (0.8, 0.9), told

    @pytest.mark.parametrize("key", ["sed", "corpse", "seed.x", "shape.wdth", "shapes.width"])
    def test_a_setting_that_does_not_exist_is_an_error_that_names_it(self, impl, key):
        must_be(
            ValueError,
            lambda: impl.override(Settings(), {key: 2}),
            f"A setting {key}, which does not exist,",
            naming=key.removeprefix("shape.").partition(".")[0],  # how much of it is theirs to say
        )

    @pytest.mark.parametrize(
        "key, value",
        [
            ("seed", "2"),
            ("seed", 2.0),
            ("seed", True),
            ("seed", None),
            ("rate", "0.1"),
            ("rate", True),
            ("decay", True),
            ("decay", "0.1"),
            ("loud", 1),
            ("loud", "yes"),
            ("corpus", 3),
            ("fast", 1),
            ("betas", [0.9]),
            ("betas", "ab"),
            ("shape", 3),
            ("shape.width", "4"),
            ("shape.norm", "batch"),
        ],
    )
    def test_a_value_of_the_wrong_type_is_an_error_that_names_the_setting(self, impl, key, value):
        must_be(
            ValueError,
            lambda: impl.override(Settings(), {key: value}),
            f"{key} = {value!r}, which is of the wrong type,",
            naming=key.removeprefix("shape."),
        )

    def test_a_value_that_the_settings_refuse_stays_refused(self, impl):
        told = "3 heads of a width of 8 must stay what the dataclass itself makes of them, an error"
        try:
            changed = impl.override(Settings(), {"shape.heads": 3})
        except ValueError as error:
            assert "must divide" in str(error), f"{told}; here it says: {error}"
        else:
            pytest.fail(f"{told}; here comes {changed.shape}.")

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "override")


class TestTheReferenceOverride:
    def test_whole_numbers_will_do_for_the_floats_of_a_tuple(self):
        betas = override(Settings(), {"betas": [0, 1]}).betas
        assert betas == (0.0, 1.0)
        assert all(type(beta) is float for beta in betas)

    @pytest.mark.parametrize(
        "assignments, sentence",
        [
            (
                {"train.max_lr": 10**400},
                "^max_lr is 10{17}...0{19}; it must be below 2",
            ),
            ({"train.betas": [True, False]}, "^betas is True; it must be a number"),
            ({"train.betas": [0, 1]}, "^betas is 1.0; it must be at least 0 and below 1$"),
            ({"seed": 2**32}, "^seed is 4294967296; it must be at least 0 and at most 4294967295$"),
            ({"keep": -1}, "^keep is -1; it must be at least 0$"),
            ({"eval_every": 0}, "^eval_every is 0; it must be at least 1$"),
            (
                {"train.max_lr": 1e-5},
                "^min_lr is 0.0001; .* at most max_lr, which is 1e-05$",
            ),
        ],
    )
    def test_a_number_that_no_run_can_have_is_one_short_sentence(self, assignments, sentence):
        with pytest.raises(ValueError, match=sentence):
            override(RunConfig(), assignments)

    @pytest.mark.parametrize("value", [1.0, True, math.nan, None])
    @pytest.mark.parametrize("field", ["seed", "log_every", "eval_every", "keep", "snapshots"])
    def test_a_whole_setting_is_whole_however_it_is_set(self, field, value):
        with pytest.raises(ValueError, match=f"^{field} is {value}; it must be "):
            RunConfig(**{field: value})


class TestTheWordsOfOverride:
    @pytest.mark.parametrize(
        "key, value, sentence",
        [
            ("sed", 2, "Settings has no setting 'sed'; did you mean 'seed'?"),
            ("shape.wdth", 2, "Shape has no setting 'wdth'; did you mean 'width'?"),
            ("shapes.width", 2, "Settings has no setting 'shapes.width'; did you mean 'shape'?"),
            ("shape.q", 2, "Shape has no setting 'q'; there are width, heads, norm"),
            ("seed", "2", "seed is '2'; it must be of type int"),
            ("fast", 1, "fast is 1; it must be of type bool | None"),
            ("betas", [1], "betas is (1,); it must be of type tuple[float, float]"),
            ("shape.norm", "batch", "norm is 'batch'; it must be 'layer' or 'rms'"),
            ("shape", 3, "shape is 3; it must be a table of settings"),
        ],
    )
    def test_an_error_says_what_would_be_right(self, key, value, sentence):
        with pytest.raises(ValueError) as error:
            override(Settings(), {key: value})
        assert str(error.value) == sentence


class TestTheConfigFile:
    @pytest.mark.parametrize("name", PRESETS)
    def test_a_preset_comes_back_as_it_was_written(self, name, tmp_path):
        write_config(tmp_path / "config.toml", PRESETS[name])
        assert read_config(tmp_path / "config.toml", RunConfig()) == PRESETS[name]

    def test_settings_that_no_preset_has_come_back_too(self, tmp_path):
        config = replace(PRESETS["cpu"], corpus='a "Ü" \\ b.txt', bf16=False, seed=2**32 - 1)
        write_config(tmp_path / "config.toml", config)
        assert read_config(tmp_path / "config.toml", RunConfig()) == config

    def test_a_file_changes_only_what_it_names(self, tmp_path):
        (tmp_path / "mine.toml").write_text("seed = 7\n[train]\nmax_lr = 1\n", encoding="utf-8")
        read = read_config(tmp_path / "mine.toml", PRESETS["cpu"])
        train = replace(PRESETS["cpu"].train, max_lr=1.0)
        assert read == replace(PRESETS["cpu"], seed=7, train=train)

    @pytest.mark.parametrize(
        "content, what",
        [
            (b"seed = \n", "is not TOML"),
            (b"seed 3\n", "is not TOML"),
            (b"seed = 1\nseed = 2\n", "is not TOML"),
            (b"corpus = '\xff'\n", "is not TOML"),
            (b"[model]\nn_layer = 3\n", "no setting 'n_layer'; did you mean 'n_layers'"),
            (b"seed = true\n", "seed is True; it must be of type int"),
            (b"seed = -1\n", "seed is -1; it must be at least 0"),
            (b"[model]\nnorm = 'batch'\n", "norm is 'batch'; it must be 'layer' or 'rms'"),
        ],
    )
    def test_a_bad_file_is_one_sentence_that_names_it(self, content, what, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            read_config(path, RunConfig())
        sentence = str(error.value)
        assert str(path) in sentence and what in sentence and "\n" not in sentence

    @pytest.mark.parametrize(
        "name, value",
        [("seed", -1), ("log_every", 0), ("eval_every", 0), ("keep", -1), ("snapshots", -1)],
    )
    def test_a_number_out_of_range_is_named(self, name, value):
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least {value + 1}"):
            RunConfig(**{name: value})

    def test_a_kill_leaves_the_old_file_or_the_new_one(self, killer, tmp_path):
        path = tmp_path / "run" / "config.toml"
        path.parent.mkdir()
        old, new = PRESETS["cpu"], PRESETS["smoke"]
        write_config(path, old)
        for _ in killer.at_each_change(lambda: write_config(path, new), path.parent):
            assert read_config(path, RunConfig()) in (old, new)

    def test_nothing_is_left_beside_it(self, tmp_path):
        write_config(tmp_path / "config.toml", PRESETS["cpu"])
        assert os.listdir(tmp_path) == ["config.toml"]

    def test_a_full_disk_is_named_and_leaves_nothing(self, monkeypatch, tmp_path):
        monkeypatch.setattr(os, "fsync", disk_is_full)
        with pytest.raises(OSError, match="No space left on device: '.*config.toml.new"):
            write_config(tmp_path / "config.toml", PRESETS["cpu"])
        assert os.listdir(tmp_path) == []


@pytest.mark.exercise("seed_everything")
class TestSeedEverything:
    DRAWS = {
        "Python's random": random.random,
        "NumPy's np.random": np.random.rand,
        "PyTorch": lambda: torch.rand(1).item(),
    }

    @pytest.mark.parametrize("library", DRAWS)
    def test_every_kind_of_draw_repeats_with_the_seed_and_changes_with_it(self, impl, library):
        draw = self.DRAWS[library]
        impl.seed_everything(3)
        first = draw()
        impl.seed_everything(4)
        other = draw()
        impl.seed_everything(3)
        assert draw() == first, f"After the same seed {library} draws another number."
        assert first != other, f"After another seed {library} draws the same number."

    def test_every_device_is_seeded(self, impl, monkeypatch):
        seen = []
        monkeypatch.setattr(torch.cuda, "manual_seed_all", seen.append)
        impl.seed_everything(3)
        assert 3 in seen, "The generators of PyTorch's GPUs are not seeded, that of the CPU alone."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "seed_everything")


def train_a_little(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9), fused=True)


@pytest.mark.exercise("save_checkpoint")
class TestSaveCheckpoint:
    def test_the_folder_holds_the_promised_files(self, impl, tmp_path):
        impl.save_checkpoint(tmp_path / "last", state_of(1))
        files = sorted(os.listdir(tmp_path / "last"))
        assert files == FILES, f"The folder has {files}; it should have {FILES}."

    def test_its_sums_are_those_that_sha256sum_checks(self, impl, tmp_path):
        impl.save_checkpoint(tmp_path / "last", state_of(1))
        lines = (tmp_path / "last" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        named = [[line for line in lines if line.endswith(name)] for name in FILES[1:]]
        assert [*map(len, named), len(lines)] == [1, 1, 1, 3], (
            f"SHA256SUMS should have 3 lines, one that ends with the name of each other file; it "
            f"has {len(lines)}: {', '.join(f'{line[:8]}...{line[-20:]}' for line in lines)}."
        )
        for name, (line,) in zip(FILES[1:], named, strict=True):
            digest = hashlib.sha256((tmp_path / "last" / name).read_bytes()).hexdigest()
            assert line[:64] == digest, (
                f"The sum of {name} should be {digest}, the SHA-256 of its bytes in hex; "
                f"SHA256SUMS has {line[:64]}."
            )
            between = line[64:].removesuffix(name)
            assert between == "  ", (
                f"Between the sum and the name there should be two spaces; in the line of {name} "
                f"there is a text of length {len(between)}, {between!r}."
            )

    def test_a_tensor_s_place_has_its_name(self, impl, tmp_path):
        impl.save_checkpoint(tmp_path / "last", state_of(1))
        rest = json.loads((tmp_path / "last" / "state.json").read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(tmp_path / "last" / "state.safetensors")
        wanted = {"step": 1, "moments": {"0": [{"tensor": "/moments/0/0"}]}}
        assert rest == wanted, f"state.json has {rest}; it should have {wanted}."
        assert list(tensors) == ["/moments/0/0"], f"state.safetensors has {list(tensors)}"

    def test_a_state_comes_back_as_it_was_saved(self, impl, tmp_path):
        state = {
            "model": {"a.weight": torch.randn(2, 3), "a.bias": torch.zeros(0)},
            "step": 3,
            "val_loss": 0.1 + 0.2,
            "best_loss": None,
            "done": False,
            "characters": "\n 'ü\u2028",
            "deep": {"list": [1, [2.5, "x"], {"inner": torch.tensor(7)}], "empty": {}},
            "bytes": torch.arange(256).to(torch.uint8),
            "halves": torch.randn(4).bfloat16(),
            "mask": torch.tensor([True, False]),
        }
        comes_back(impl.save_checkpoint, tmp_path / "last", state)

    def test_the_path_may_be_text(self, impl, tmp_path):
        impl.save_checkpoint(str(tmp_path / "last"), state_of(1))
        is_whole(tmp_path / "last", state_of(1))

    def test_training_goes_on_as_if_it_had_not_stopped(self, impl, tmp_path):
        model, optimizer = network()
        train_a_little(model, optimizer)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": random_states(),
        }
        impl.save_checkpoint(tmp_path / "last", state)
        train_a_little(model, optimizer)

        resumed, resumed_optimizer = network()
        loaded = load_checkpoint(tmp_path / "last")
        resumed.load_state_dict(loaded["model"])
        resumed_optimizer.load_state_dict(loaded["optimizer"])
        restore_random_states(loaded["random"])
        train_a_little(resumed, resumed_optimizer)
        told = lost(dict(resumed.state_dict()), dict(model.state_dict()), "the weights")
        assert not told, (
            "A training that is saved and loaded goes on to other weights than one that is not: "
            f"{told}"
        )

    def test_what_is_saved_does_not_change(self, impl, tmp_path):
        state = state_of(1)
        impl.save_checkpoint(tmp_path / "last", state)
        told = "save_checkpoint changes the state that it was given, whose owner trains on with it"
        assert same(state, state_of(1)), f"{told}: its keys are now {list(state)}."

    def test_tied_weights_can_be_saved(self, impl, tmp_path):
        weight = torch.randn(3, 4)
        model = {"embedding": weight, "head": weight}
        try:
            comes_back(impl.save_checkpoint, tmp_path / "last", {"model": model})
        except NotImplementedError:
            raise
        except RuntimeError as error:
            pytest.fail(
                "The tensors of a state dict may share memory, as tied weights do, and what is "
                "saved has both. Copies of them share none. Here: "
                f"{str(error).strip().splitlines()[0][:60]}...",
                pytrace=False,
            )

    def test_turned_tensors_can_be_saved(self, impl, tmp_path):
        state = {"model": {"turned": torch.randn(3, 4).T}, "moments": [torch.randn(3, 4).T]}
        comes_back(impl.save_checkpoint, tmp_path / "last", state)

    def test_parameters_can_be_saved(self, impl, tmp_path):
        state = {"model": {"w": nn.Parameter(torch.ones(2))}, "best": nn.Parameter(torch.ones(2))}
        comes_back(impl.save_checkpoint, tmp_path / "last", state)

    def test_no_file_stays_open(self, impl, tmp_path):
        impl.save_checkpoint(tmp_path / "last", state_of(1))
        files = (Path(file.path) for file in psutil.Process().open_files())
        left = sorted(file.name for file in files if tmp_path in file.parents)
        told = "and each save leaves more, until the system gives no more."
        assert not left, f"After a save {', '.join(left)} of it stay open, {told}"

    def test_folders_on_the_way_are_made(self, impl, tmp_path):
        comes_back(impl.save_checkpoint, tmp_path / "runs" / "a" / "last", state_of(1))

    def test_a_second_one_takes_the_place_of_the_first(self, impl, tmp_path):
        impl.save_checkpoint(tmp_path / "last", state_of(1) | {"only": "in the first"})
        comes_back(impl.save_checkpoint, tmp_path / "last", state_of(2))
        left = sorted(os.listdir(tmp_path))
        assert left == ["last"], f"A save must leave last alone; it leaves {left}."

    def test_a_kill_at_any_moment_leaves_the_old_one_or_the_new_one(self, impl, killer, tmp_path):
        path = tmp_path / "run" / "last"
        comes_back(impl.save_checkpoint, path, state_of(1))
        for _ in killer.at_each_change(
            lambda: impl.save_checkpoint(path, state_of(2)), path.parent
        ):
            is_whole(path, state_of(1), state_of(2))
            others = set(os.listdir(path.parent)) - {"last", "last.new", "last.old"}
            told = "In between there is to be nothing but last.new and last.old, which nobody takes"
            assert not others, f"{told} for a checkpoint; a kill leaves {', '.join(others)}."

    def test_a_kill_does_not_stand_in_the_way_of_the_next_save(self, impl, killer, tmp_path):
        path = tmp_path / "run" / "last"
        comes_back(impl.save_checkpoint, path, state_of(1))
        for _ in killer.at_each_change(
            lambda: impl.save_checkpoint(path, state_of(2)), path.parent
        ):
            before = sorted(os.listdir(path.parent))
            try:
                impl.save_checkpoint(path, state_of(3))
            except OSError as error:
                pytest.fail(
                    f"A kill has left {before}, which stands in the way of the next save: it "
                    f"raises {type(error).__name__}."
                )
            told = lost(load_checkpoint(path), state_of(3))
            assert not told, f"After a kill, which left {before}, a save is not whole: {told}"
            left = sorted(os.listdir(path.parent))
            told = f"After a kill, which left {before}, the next save must leave last alone"
            assert left == ["last"], f"{told}; it leaves {left}."

    def test_a_second_kill_is_survived_like_the_first(self, impl, killer, tmp_path):
        path = tmp_path / "run" / "last"
        comes_back(impl.save_checkpoint, path, state_of(1))
        leftovers = {}
        for _ in killer.at_each_change(
            lambda: impl.save_checkpoint(path, state_of(2)), path.parent
        ):
            names = tuple(sorted(os.listdir(path.parent)))
            if names not in leftovers:
                leftovers[names] = shutil.copytree(path.parent, tmp_path / f"{len(leftovers)}")
        for names, folder in leftovers.items():
            before = f" That save began where an earlier kill had left {list(names)}."
            if "last" not in names:
                is_whole(folder / "last", *map(state_of, (1, 2)))
                before += " last.old is the only checkpoint there: it must stay until last is back."
            for _ in killer.at_each_change(
                lambda path=folder / "last": impl.save_checkpoint(path, state_of(3)), folder
            ):
                is_whole(folder / "last", *map(state_of, (1, 2, 3)), before=before)

    def test_a_kill_of_the_first_save_leaves_none_or_a_whole_one(self, impl, killer, tmp_path):
        comes_back(impl.save_checkpoint, tmp_path / "plain" / "last", state_of(1))
        path = tmp_path / "run" / "last"
        path.parent.mkdir()
        for _ in killer.at_each_change(
            lambda: impl.save_checkpoint(path, state_of(1)), path.parent
        ):
            if path.exists():
                is_whole(path, state_of(1))

    def test_the_disk_has_every_file_before_the_folder_has_its_name(
        self, impl, killer, monkeypatch, tmp_path
    ):
        synced, early, fsync, path = set(), [], os.fsync, tmp_path / "last"

        def noted_fsync(file):
            fsync(file)
            status = os.fstat(file if isinstance(file, int) else file.fileno())
            synced.add((status.st_ino, status.st_size))

        def renamed(source: Path, target: Path) -> None:
            if target == path:
                files = {(f.stat().st_ino, f.stat().st_size): f.name for f in source.iterdir()}
                early.extend(sorted(name for key, name in files.items() if key not in synced))

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(killer, "watching", renamed)
        impl.save_checkpoint(path, state_of(1))
        files = [file.stat().st_ino for file in path.iterdir()]
        never = len(set(files) - {number for number, _ in synced})
        assert not never, (
            f"Of the {len(files)} files {never} never went through os.fsync: a power cut may leave "
            "them empty."
        )
        assert not early, (
            f"When the folder takes its name, {len(early)} of its files have not gone through "
            "os.fsync: a power cut may leave the name, and no content."
        )

    def test_what_cannot_be_saved_is_an_error_and_leaves_the_old_one(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        state = state_of(2) | {"chance": random.Random()}
        must_be(
            TypeError,
            lambda: impl.save_checkpoint(tmp_path / "last", state),
            "A state with something in it that JSON cannot hold, a random.Random(),",
        )
        is_whole(tmp_path / "last", state_of(1))

    def test_two_tensors_of_one_name_are_an_error_rather_than_one_tensor(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        state = {"model": {}, "a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}
        must_be(
            ValueError,
            lambda: impl.save_checkpoint(tmp_path / "last", state),
            "A state with two tensors of one name, /a/b,",
            naming="/a/b",
        )
        is_whole(tmp_path / "last", state_of(1))

    @pytest.mark.parametrize("other", ["step.new", "step.old"])
    def test_what_has_another_name_stays(self, impl, other, tmp_path):
        path = tmp_path / "step.1"
        save_checkpoint(tmp_path / other, state_of(5))
        for step in (1, 2):
            impl.save_checkpoint(path, state_of(step))
        left = sorted(os.listdir(tmp_path))
        assert left == sorted(["step.1", other]), (
            f"Beside step.1 there was {other}, which is not step.1.new or step.1.old and so no "
            f"leftover of it; after a save there is {left}."
        )
        is_whole(path, state_of(2))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "save_checkpoint")


class TestTheCheckpointFolder:
    def test_the_disk_has_every_file_before_the_folder_takes_its_name(self, monkeypatch, tmp_path):
        synced, renamed, fsync, rename = set(), [], os.fsync, Path.rename

        def noted_fsync(descriptor):
            fsync(descriptor)
            synced.add((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

        def noted_rename(path, target):
            files = {(file.stat().st_ino, file.stat().st_size) for file in path.iterdir()}
            renamed.append(len(files - synced))
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "rename", noted_rename)
        save_checkpoint(tmp_path / "last", state_of(1))
        assert renamed == [0]

    def test_a_full_disk_is_named_and_leaves_the_old_one(self, monkeypatch, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", disk_is_full)
            with pytest.raises(OSError, match="No space left on device: '.*last.new"):
                save_checkpoint(tmp_path / "last", state_of(2))
        assert same(load_checkpoint(tmp_path / "last"), state_of(1))
        assert os.listdir(tmp_path) == ["last"]

    @pytest.mark.parametrize("value", [torch.ones(2), "a word", {"tensor": torch.ones(2)}, [1]])
    def test_a_part_named_tensor_is_not_mistaken_for_one(self, value, tmp_path):
        state = {"model": {}, "tensor": value}
        save_checkpoint(tmp_path / "last", state)
        assert same(load_checkpoint(tmp_path / "last"), state)

    @pytest.mark.parametrize(
        "draw",
        [
            random.random,
            lambda: random.gauss(0, 1),
            np.random.rand,
            np.random.randn,
            lambda: torch.rand(1).item(),
        ],
    )
    def test_random_states_come_back(self, draw, tmp_path):
        seed_everything(1)
        draw()  # of a normal distribution this draws two, and keeps one for the next time
        save_checkpoint(tmp_path / "last", {"model": {}, "random": random_states()})
        expected = draw()
        seed_everything(2)
        restore_random_states(load_checkpoint(tmp_path / "last")["random"])
        assert draw() == expected

    @pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1).item()])
    def test_looking_at_the_random_states_does_not_change_them(self, draw):
        seed_everything(1)
        expected = draw()
        seed_everything(1)
        random_states()
        assert draw() == expected

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_s_tensors_and_random_state_come_back(self, tmp_path):
        weight = torch.randn(3, device="cuda")
        state = {"model": {"weight": weight}, "random": random_states()}
        save_checkpoint(tmp_path / "last", state)
        expected = torch.rand(3, device="cuda")
        loaded = load_checkpoint(tmp_path / "last")
        restore_random_states(loaded["random"])
        assert torch.equal(torch.rand(3, device="cuda"), expected)
        assert torch.equal(loaded["model"]["weight"], weight.cpu())


class TestStatesOfOtherMachines:
    """Random states are those of as many GPUs as the machine had, and may be a stranger's."""

    def test_where_there_are_fewer_gpus_the_first_ones_go_on(self, monkeypatch):
        gpus = [torch.full((16,), i).byte() for i in (1, 2)]
        states = {**random_states(), "cuda": gpus}
        taken = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: taken.append(args))
        restore_random_states(states)
        assert [(state[0].item(), device) for state, device in taken] == [(1, 0)]

    def test_an_apple_gpu_s_state_comes_back(self, monkeypatch):
        state, taken = torch.arange(16).byte(), []
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
        monkeypatch.setattr(torch.mps, "set_rng_state", taken.append)
        restore_random_states(random_states())
        assert torch.equal(taken[0], state)

    def test_states_from_before_apple_gpus_counted_will_do(self):
        states = random_states()
        del states["mps"]
        restore_random_states(states)

    @pytest.mark.parametrize(
        "changes",
        [
            dict(python=[3, [1, 2], None]),
            dict(python=[3, [0] * 624 + [625], None]),
            dict(python=[3, [0] * 624 + [0], "x"]),
            dict(python=None),
            dict(numpy=["MT19937", torch.zeros(624, dtype=torch.int64), 10**6, 0, 0.0]),
            dict(numpy=["MT19937", torch.zeros(9, dtype=torch.int64), 0, 0, 0.0]),
            dict(numpy=["MT19937", torch.zeros(624, dtype=torch.int64), 0, 0, math.nan]),
            dict(numpy=["PCG64", torch.zeros(624, dtype=torch.int64), 0, 0, 0.0]),
            dict(torch=torch.zeros(16).byte()),
            dict(torch=torch.zeros(5056).byte()),
            dict(torch=3),
            dict(cuda=[3]),
            dict(cuda=None),
        ],
    )
    def test_what_is_no_state_changes_nothing(self, changes):
        before = random_states()
        with pytest.raises(ValueError, match="random holds no states of generators"):
            restore_random_states({**before, **changes})
        assert same(random_states(), before)


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def cut_by_one(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1 if file.suffix == ".safetensors" else len(data) // 2] ^= 1  # a number's, of tensors
    file.write_bytes(data)


DAMAGES = [flip_a_bit, Path.unlink, cut_short, cut_by_one]


@pytest.mark.exercise("load_checkpoint")
class TestLoadCheckpoint:
    def test_no_checkpoint_is_an_error_that_names_the_place(self, impl, tmp_path):
        must_be(
            FileNotFoundError,
            lambda: impl.load_checkpoint(tmp_path / "last"),
            "A place where there is no checkpoint",
            naming="last",
        )

    def test_everybody_s_checkpoint_can_be_loaded(self, impl, tmp_path):
        deep = {0: {"exp": torch.zeros(2)}, 10: [{"x3": None, "2x": 2}]}
        state = state_of(1) | {"deep": deep, "characters": "\n 'ü", "best_loss": 0.1 + 0.2}
        save_checkpoint(tmp_path / "last", state)
        told = lost(impl.load_checkpoint(tmp_path / "last"), state)
        assert not told, told

    def test_the_path_may_be_text(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        told = lost(impl.load_checkpoint(str(tmp_path / "last")), state_of(1))
        assert not told, told

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage_to_any_file_is_an_error(self, impl, damage, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        what = {Path.unlink: "missing", flip_a_bit: "changed by one bit"}.get(damage, "cut short")
        sums = [] if damage is cut_by_one else FILES[:1]  # which may lack their last \n
        for name in (*FILES[1:], *sums):
            copy = shutil.copytree(tmp_path / "last", tmp_path / name / "last")
            damage(copy / name)
            told = f"A checkpoint whose {name} is {what}"
            must_be(ValueError, lambda copy=copy: impl.load_checkpoint(copy), told)

    @pytest.mark.parametrize("name", FILES[1:])
    def test_a_sum_that_is_missing_is_an_error(self, impl, name, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        sums = tmp_path / "last" / "SHA256SUMS"
        lines = sums.read_text(encoding="utf-8").splitlines(keepends=True)
        sums.write_text("".join(line for line in lines if name not in line), encoding="utf-8")
        told = f"A checkpoint whose SHA256SUMS has no line for {name}"
        must_be(ValueError, lambda: impl.load_checkpoint(tmp_path / "last"), told)

    def test_sums_that_are_empty_are_an_error(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        (tmp_path / "last" / "SHA256SUMS").write_bytes(b"")
        told = "A checkpoint whose SHA256SUMS is empty"
        must_be(ValueError, lambda: impl.load_checkpoint(tmp_path / "last"), told)

    def test_nothing_is_unpickled(self, impl, monkeypatch, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))

        def unpickle(*args, **kwargs):
            pytest.fail("Your load_checkpoint unpickles, and a pickle can run any code.")

        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(pickle, name, unpickle)
        told = lost(impl.load_checkpoint(tmp_path / "last"), state_of(1))
        assert not told, told

    def test_no_code_in_state_json_is_run(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        mark = tmp_path / "mark"
        code = f"__import__('os').mkdir({str(mark)!r})"
        (tmp_path / "last" / "state.json").write_text(code, encoding="utf-8")
        seal(tmp_path / "last")
        told = "A checkpoint whose state.json is no JSON"
        must_be(ValueError, lambda: impl.load_checkpoint(tmp_path / "last"), told)
        assert not mark.exists(), "Your load_checkpoint runs the code that stands in state.json."

    def test_tensors_are_those_of_this_checkpoint_alone(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        impl.load_checkpoint(tmp_path / "last")["model"]["weight"].zero_()
        told = "Whoever writes into a tensor that was loaded changes the checkpoint on the disk."
        assert same(impl.load_checkpoint(tmp_path / "last"), state_of(1)), told

    def test_after_a_kill_the_old_one_is_found(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last.old", state_of(1))
        save_checkpoint(tmp_path / "last.new", state_of(2))
        try:
            loaded = impl.load_checkpoint(tmp_path / "last")
        except FileNotFoundError:
            pytest.fail("After a kill the whole checkpoint lies in last.old, and is not found.")
        assert loaded["step"] == 1, "last.new may be half written; last.old is the whole one."

    def test_the_one_that_has_the_name_goes_before_the_old_one(self, impl, tmp_path):
        save_checkpoint(tmp_path / "last.old", state_of(1))
        save_checkpoint(tmp_path / "last.bak", state_of(2))
        (tmp_path / "last.bak").rename(tmp_path / "last")
        told = "last and last.old are both there, and last is the newer one."
        assert impl.load_checkpoint(tmp_path / "last")["step"] == 2, told

    def test_the_old_one_of_another_name_is_not_taken(self, impl, tmp_path):
        save_checkpoint(tmp_path / "step.old", state_of(1))
        must_be(
            FileNotFoundError,
            lambda: impl.load_checkpoint(tmp_path / "step.1"),
            "A step.1 that is not there, nor is step.1.old, beside a step.old of another name",
        )

    @pytest.mark.parametrize("left", ["last", "last.old"])
    def test_loading_changes_nothing_on_the_disk(self, impl, left, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        (tmp_path / "last").rename(tmp_path / left)
        impl.load_checkpoint(tmp_path / "last")
        now = sorted(os.listdir(tmp_path))
        assert now == [left], f"Loading changes the disk: there was {left}, and now there is {now}."

    @pytest.mark.parametrize("value", [torch.ones(2), "a word", {"tensor": torch.ones(2)}, [1], 3])
    def test_a_key_called_tensor_is_not_mistaken_for_a_place(self, impl, value, tmp_path):
        state = {"model": {}, "tensor": value, "inner": {"tensor": value, "other": 1}}
        save_checkpoint(tmp_path / "last", state)
        try:
            told = lost(impl.load_checkpoint(tmp_path / "last"), state)
        except NotImplementedError:
            raise
        except Exception as error:
            pytest.fail(
                f"A key of the state's own may be called 'tensor'; here, with {value!r} under it, "
                f"loading raises {type(error).__name__}: {error}"
            )
        assert not told, f"A key of the state's own may be called 'tensor'; here {told}"

    def test_a_key_that_is_no_whole_number_stays_text(self, impl, tmp_path):
        state = {"model": {}, "powers": {"²": 2, "-1": 3, "1.5": 4}}
        save_checkpoint(tmp_path / "last", state)
        told = "Keys of the digits 0 to 9 come back as ints, all others stay text"
        try:
            back = impl.load_checkpoint(tmp_path / "last")
        except ValueError as error:
            pytest.fail(
                f"{told}, '²' too, which is a digit to str.isdigit, and no int. Loading raises "
                f"ValueError: {error}",
                pytrace=False,
            )
        wrong = lost(back, state)
        assert not wrong, f"{told}; {wrong}"

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "load_checkpoint")


class Planted:
    """Unpickling one makes a folder: a harmless stand-in for any code at all."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def seal(folder: Path) -> None:
    """Make the sums fit again, so that only the content can give it away."""
    sums = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in FILES[1:]
    ]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8", newline="\n")


class TestWhatLoadingRefuses:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_the_damaged_file_is_named(self, name, damage, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        damage(tmp_path / "last" / name)
        with pytest.raises(ValueError, match=name):
            load_checkpoint(tmp_path / "last")

    @pytest.mark.parametrize("name", FILES[1:])
    @pytest.mark.parametrize("sealed", [False, True])
    def test_a_pickle_is_refused_and_not_run(self, name, sealed, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        torch.save(Planted(tmp_path / "mark"), tmp_path / "last" / name)
        if sealed:
            seal(tmp_path / "last")
        with pytest.raises(ValueError):
            load_checkpoint(tmp_path / "last")
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize(
        "name, content",
        [
            ("state.json", b""),
            ("state.json", b"[1]"),
            ("state.json", b"3"),
            ("state.json", b"null"),
            ("state.json", b"{'step': 3}"),
            ("state.json", b'{"step": "\xff"}'),
            ("model.safetensors", b""),
            ("model.safetensors", b"\xff" * 100),
            ("state.safetensors", b"{}"),
        ],
    )
    def test_odd_content_is_an_error_though_its_sum_is_right(self, name, content, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        (tmp_path / "last" / name).write_bytes(content)
        seal(tmp_path / "last")
        with pytest.raises(ValueError, match="last"):
            load_checkpoint(tmp_path / "last")

    @pytest.mark.parametrize("sums", [b"", b"\xff\x00", b"[]", b"0" * 64 + b"  ../x\n"])
    def test_odd_sums_are_an_error(self, sums, tmp_path):
        save_checkpoint(tmp_path / "last", state_of(1))
        (tmp_path / "last" / "SHA256SUMS").write_bytes(sums)
        with pytest.raises(ValueError, match="SHA256SUMS"):
            load_checkpoint(tmp_path / "last")

    def test_a_file_in_the_place_of_the_folder_is_an_error(self, tmp_path):
        (tmp_path / "last").write_bytes(b"")
        with pytest.raises(FileNotFoundError, match="last"):
            load_checkpoint(tmp_path / "last")


def three_records(impl: Any, tmp_path: Path) -> Any:
    log = impl.MetricsLog(tmp_path / "metrics.jsonl")
    for step in (10, 20, 30):
        log.append({"step": step, "train_loss": 1 / step})
    return log


def steps_of(log: Any) -> list[int]:
    return [record["step"] for record in log.read()]


def on_the_disk(tmp_path: Path) -> list[int]:
    """The steps that anyone finds in the file, in its whole lines."""
    data = (tmp_path / "metrics.jsonl").read_bytes()
    for line in data.splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:
            whole = line.endswith(b"\n")
            assert not whole, f"The file now has the line {line.decode()!r}, which is no record."
    return steps_of(MetricsLog(tmp_path / "metrics.jsonl"))


@pytest.mark.exercise("MetricsLog")
class TestMetricsLog:
    def test_records_come_back_in_order_and_exactly(self, impl, tmp_path):
        log = three_records(impl, tmp_path)
        expected = [{"step": step, "train_loss": 1 / step} for step in (10, 20, 30)]
        read = log.read()
        assert isinstance(read, list), f"read should give a list; it gives a {type(read).__name__}."
        file, why = tmp_path / "metrics.jsonl", ""
        if file.exists() and not file.stat().st_size:
            why = " The file is empty: Python may hold back what is written until it is closed."
        assert len(read) == 3, (
            f"Of 3 records that were appended, read gives {len(read)}: {read}.{why}"
        )
        told = lost(read, expected, "records")
        assert not told, told

    def test_a_record_is_one_line_of_json(self, impl, tmp_path):
        record = {"step": 1, "sample": "two\nlines\u2028or three: ü"}
        log = impl.MetricsLog(str(tmp_path / "metrics.jsonl"))
        log.append(record)
        text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
        told = f"A record must be one line that ends; in the file there is {text!r}."
        assert text.count("\n") == 1 and text.endswith("\n"), told
        assert json.loads(text) == record, f"Of the record {record} the file has {text!r}."
        try:
            read = log.read()
        except ValueError as error:
            pytest.fail(
                f"read stumbles over the line {text!r}: {error}. Only \\n ends a line of the log; "
                "str.splitlines() cuts at others, such as \\u2028, too.",
                pytrace=False,
            )
        assert read == [record], f"Of the record {record} read gives {read}."

    def test_a_log_not_begun_is_empty(self, impl, tmp_path):
        told = "A file that does not exist yet must be an empty log."
        try:
            assert impl.MetricsLog(tmp_path / "metrics.jsonl").read() == [], told
        except FileNotFoundError:
            pytest.fail(told)

    def test_a_log_not_begun_can_be_rewound(self, impl, tmp_path):
        log = impl.MetricsLog(tmp_path / "metrics.jsonl")
        try:
            log.rewind(3)
        except FileNotFoundError:
            pytest.fail("A file that does not exist yet must be an empty log, for rewind too.")
        log.append({"step": 1})
        steps = steps_of(log)
        assert steps == [1], f"After rewind(3) of an empty log and append of step 1 it has {steps}."

    def test_a_record_can_be_read_at_once_from_elsewhere(self, impl, tmp_path):
        log = three_records(impl, tmp_path)  # is held: one that is let go would close its file
        file = tmp_path / "metrics.jsonl"
        seen = on_the_disk(tmp_path) if file.exists() else []
        assert seen == [10, 20, 30] == steps_of(log), (
            f"When append has returned, another process must find the record in the file; of the "
            f"steps 10, 20 and 30 it finds {seen}. Python may hold back what is written until the "
            "file is flushed or closed."
        )

    def test_whoever_follows_the_file_sees_a_new_record(self, impl, tmp_path):
        log = three_records(impl, tmp_path)
        with (tmp_path / "metrics.jsonl").open("rb") as follower:
            follower.read()
            log.append({"step": 40})
            assert b"40" in follower.read(), (
                "A process that holds the log open, as tail -f does, does not see the new record: "
                "append must add to the file, and not write it anew."
            )

    def test_another_process_goes_on_after_the_last_record(self, impl, tmp_path):
        log = three_records(impl, tmp_path)
        impl.MetricsLog(tmp_path / "metrics.jsonl").append({"step": 40})
        steps = steps_of(log)
        assert steps == [10, 20, 30, 40], (
            "After the steps 10, 20 and 30 a second MetricsLog of the same file appends 40; the "
            f"first then reads {steps}."
        )

    @pytest.mark.parametrize("cut", [2, 9, 30])
    def test_a_last_line_that_was_cut_short_is_left_out(self, impl, tmp_path, cut):
        log = three_records(impl, tmp_path)
        file = tmp_path / "metrics.jsonl"
        os.truncate(file, file.stat().st_size - cut)
        try:
            steps = steps_of(log)
        except ValueError as error:
            steps = f"a {type(error).__name__}"
        told = f"A kill has cut the last line of 10, 20, 30 short; the others are read: {steps}"
        assert steps == [10, 20], told

    def test_a_last_record_without_its_end_of_line_is_left_out(self, impl, tmp_path):
        file = tmp_path / "metrics.jsonl"
        file.write_text('{"step": 1}\n{"step": 2}', encoding="utf-8")
        told = 'A last line without its end, {"step": 2}, is cut short: it may be of {"step": 2e3}.'
        assert impl.MetricsLog(file).read() == [{"step": 1}], told

    @pytest.mark.parametrize("line", ["x", "", '{"step": 2', '{"step": 2}{"step": 3}'])
    def test_a_whole_line_that_is_no_record_is_not_passed_over(self, impl, line, tmp_path):
        file = tmp_path / "metrics.jsonl"
        file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 4}}\n', encoding="utf-8")
        told = f"A log with the line {line!r} in its middle, which no kill has cut,"
        must_be(ValueError, lambda: impl.MetricsLog(file).read(), told)

    @pytest.mark.parametrize("cut", [2, 9, 30])
    def test_a_record_after_a_cut_line_is_not_lost_in_it(self, impl, tmp_path, cut):
        log = three_records(impl, tmp_path)
        file = tmp_path / "metrics.jsonl"
        os.truncate(file, file.stat().st_size - cut)
        log.append({"step": 31})
        log.append({"step": 32})
        steps = on_the_disk(tmp_path)
        told = f"A kill has cut the last line of 10, 20, 30 short; after 31 and 32 there is {steps}"
        assert steps == steps_of(log) == [10, 20, 31, 32], told

    def test_a_kill_while_appending_loses_no_record(self, impl, tmp_path, killer):
        folder = tmp_path / "run"
        folder.mkdir()
        log = three_records(impl, folder)
        for _ in killer.at_each_change(lambda: log.append({"step": 40}), folder):
            steps = on_the_disk(folder)
            told = f"A kill in the middle of append loses records: of 10, 20, 30 there is {steps}."
            assert steps[:3] == [10, 20, 30], told

    @pytest.mark.parametrize("step, left", [(0, []), (20, [10, 20]), (29, [10, 20])])
    def test_rewind_forgets_what_came_after_the_step(self, impl, tmp_path, step, left):
        log = three_records(impl, tmp_path)
        log.rewind(step)
        told = f"Of the steps 10, 20, 30 rewind({step}) should leave {left}; it leaves"
        assert steps_of(log) == left, f"{told} {steps_of(log)}."

    def test_rewind_to_the_end_forgets_nothing(self, impl, tmp_path):
        log = three_records(impl, tmp_path)
        before = log.read()
        log.rewind(30)
        told = f"Of the steps 10, 20, 30 rewind(30) forgets some: it leaves {steps_of(log)}."
        assert log.read() == before, told

    def test_a_rewound_log_goes_on(self, impl, tmp_path):
        log = three_records(impl, tmp_path)
        log.rewind(10)
        log.append({"step": 11})
        steps = steps_of(log)
        assert steps == [10, 11], f"After rewind(10) and append of step 11 the log has {steps}."

    def test_a_kill_while_rewinding_loses_no_record_that_stays(self, impl, tmp_path, killer):
        folder = tmp_path / "run"
        folder.mkdir()
        log = three_records(impl, folder)
        for _ in killer.at_each_change(lambda: log.rewind(20), folder):
            steps = on_the_disk(folder)
            told = f"A kill in the middle of rewind(20) loses records that stay: it leaves {steps}."
            assert steps[:2] == [10, 20], told

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "MetricsLog")


LOSSES = {"step-1": 9.5, "step-2": 2.25, "step-3": 10.0, "step-4": 0.001, "step-5": 1e-5}


@pytest.fixture
def checkpoints(tmp_path) -> Path:
    """A folder of checkpoints, the newest of which is not the worst, nor text order the order."""
    for name, loss in LOSSES.items():
        save_checkpoint(tmp_path / "all" / name, {"model": {}, "val_loss": loss})
    return tmp_path / "all"


@pytest.mark.exercise("keep_best")
class TestKeepBest:
    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_the_n_lowest_losses_stay_and_the_rest_go(self, impl, checkpoints, n):
        impl.keep_best(checkpoints, n)
        best, left = sorted(LOSSES, key=LOSSES.__getitem__)[:n], sorted(os.listdir(checkpoints))
        assert left == sorted(best), (
            f"Of val_loss {LOSSES} keep_best(folder, {n}) should leave {sorted(best)}, the lowest; "
            f"it leaves {left}."
        )

    @pytest.mark.parametrize("n", [5, 9])
    def test_all_stay_where_there_are_no_more_than_n(self, impl, checkpoints, n):
        impl.keep_best(checkpoints, n)
        left = sorted(os.listdir(checkpoints))
        assert left == sorted(LOSSES), (
            f"Of 5 checkpoints keep_best(folder, {n}) leaves only {left}."
        )

    def test_what_stays_is_whole(self, impl, checkpoints):
        impl.keep_best(checkpoints, 1)
        try:
            left = load_checkpoint(checkpoints / "step-5")
        except (FileNotFoundError, ValueError) as error:
            left = f"what gives a {type(error).__name__}"
        told = f"keep_best(folder, 1) should leave step-5 whole, the best one; it leaves {left}"
        assert left == {"model": {}, "val_loss": 1e-5}, told

    @pytest.mark.parametrize("n", [0, -1])
    def test_to_keep_none_is_an_error_that_deletes_nothing(self, impl, checkpoints, n):
        must_be(ValueError, lambda: impl.keep_best(checkpoints, n), f"n = {n}", naming=f"{n}")
        left = sorted(os.listdir(checkpoints))
        assert left == sorted(LOSSES), f"n = {n} is refused, and yet it leaves only {left}."

    @pytest.mark.parametrize(
        "losses, expected",
        [
            ([0.3, 0.1, 0.2], ["1", "2"]),
            ([0.2, 0.1, 0.2, 0.2], ["1", "0"]),
            ([math.nan, 0.2, 0.1, math.nan], ["2", "1"]),
            ([0.2, math.nan, math.inf], ["0", "2"]),
            ([math.nan, math.nan, math.nan], ["0", "1"]),
        ],
    )
    def test_the_best_comes_first_ties_by_name_and_nan_last(self, impl, losses, expected, tmp_path):
        for i in reversed(range(len(losses))):  # neither oldest nor newest is what counts
            save_checkpoint(tmp_path / f"{i}", {"model": {}, "val_loss": losses[i]})
        kept = [Path(path).name for path in impl.keep_best(tmp_path, 2)]
        assert kept == expected, (
            f"Of checkpoints 0, 1, ... with val_loss {losses} the two best are {expected}, the "
            f"best first; it returns {kept}."
        )
        left = sorted(os.listdir(tmp_path))
        assert left == sorted(kept), f"It returns {kept}, and leaves {left}."

    def test_it_returns_paths_in_the_folder_which_may_be_text(self, impl, checkpoints):
        kept = impl.keep_best(str(checkpoints), 1)
        told = f"It should return the path of step-5, the best one, in a list; it returns {kept}"
        assert kept == [checkpoints / "step-5"], told

    @pytest.mark.parametrize("leftover", ["1.new", "1.old"])
    def test_what_a_kill_left_behind_takes_no_place(self, impl, leftover, tmp_path):
        for name, loss in (("0", 0.5), (leftover, 0.1)):
            save_checkpoint(tmp_path / name, {"model": {}, "val_loss": loss})
        kept = [Path(path).name for path in impl.keep_best(tmp_path, 1)]
        told = f"{leftover} is the leftover of a kill, and no checkpoint beside 0"
        assert kept == ["0"], f"{told}; it returns {kept}."
        assert (tmp_path / "0").exists(), f"{told}; but 0 was deleted for it."

    def test_other_things_in_the_folder_stay(self, impl, tmp_path):
        (tmp_path / "notes").mkdir()
        (tmp_path / "readme.txt").write_text("mine", encoding="utf-8")
        for name, loss in (("0", 0.5), ("1", 0.1), ("9.new", 0.9), ("9.old", 0.8)):
            save_checkpoint(tmp_path / name, {"model": {}, "val_loss": loss})
        save_checkpoint(tmp_path / "notes" / "kept", {"model": {}, "val_loss": 0.3})
        impl.keep_best(tmp_path, 1)
        assert (tmp_path / "notes" / "kept" / "state.json").exists(), (
            "A folder without a state.json is no checkpoint, and stays with all that is in it; "
            "here notes/kept, a checkpoint inside of another folder, is deleted."
        )
        wanted, left = ["1", "9.new", "9.old", "notes", "readme.txt"], sorted(os.listdir(tmp_path))
        told = "All other things in the folder stay, those of a kill among them"
        assert left == wanted, f"{told}: there should be {wanted}, and there is {left}."

    def test_an_empty_folder_has_no_best(self, impl, tmp_path):
        kept = impl.keep_best(tmp_path, 3)
        assert kept == [], f"Of an empty folder it should return an empty list; it gives {kept!r}."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "keep_best")


class TestTheBestOfDamagedOnes:
    @pytest.mark.parametrize("content", ["x", "{}", "[]", '{"val_loss": "low"}', "[" * 100_000])
    def test_a_loss_that_cannot_be_read_is_the_worst(self, content, tmp_path):
        for name, loss in (("0", 0.1), ("1", 0.5)):
            save_checkpoint(tmp_path / name, {"model": {}, "val_loss": loss})
        (tmp_path / "0" / "state.json").write_text(content, encoding="utf-8")
        assert keep_best(tmp_path, 2) == [tmp_path / "1", tmp_path / "0"]
        assert keep_best(tmp_path, 1) == [tmp_path / "1"]

    def test_a_kill_leaves_a_checkpoint_or_a_leftover_and_no_half(self, killer, tmp_path):
        for name, loss in (("0", 0.1), ("1", 0.5)):
            save_checkpoint(tmp_path / "all" / name, {"model": {}, "val_loss": loss})
        folder = tmp_path / "all"
        for _ in killer.at_each_change(lambda: keep_best(folder, 1), folder):
            for path in (folder / "0", folder / "1"):
                assert not path.exists() or load_checkpoint(path)
            assert keep_best(folder, 1) == [folder / "0"]


class TestTheLogOfALongRun:
    def test_to_append_reads_no_more_than_the_end(self, tmp_path):
        file = tmp_path / "metrics.jsonl"
        with file.open("wb") as log:
            log.seek(2**26)
            log.write(b"\n")
        tracemalloc.start()
        MetricsLog(file).append({"step": 1})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20

    @pytest.mark.parametrize("line", [b"null", b"[]", b"3", b"x", b"\xff", b"[" * 100_000])
    def test_a_line_that_is_no_record_is_named(self, line, tmp_path):
        file = tmp_path / "metrics.jsonl"
        file.write_bytes(b'{"step": 1}\n' + line + b"\n")
        with pytest.raises(ValueError, match=r"metrics.jsonl, line 2, is .*delete that line"):
            MetricsLog(file).read()
