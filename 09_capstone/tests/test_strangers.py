"""A run folder that others have written into: damaged, edited, forged, or held by another run."""

import json
import math
import random
import re
import shlex
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from tiny_transformer.capstone import reference
from tiny_transformer.capstone.reference import build_model, load_run, train
from tiny_transformer.capstone.session import LOCK, Session, claim_folder, resume_command
from tiny_transformer.capstone.verify import verify
from tiny_transformer.engineering import expected
from tiny_transformer.engineering.config import PRESETS, read_run_config
from tiny_transformer.engineering.processes import ALONE
from tiny_transformer.engineering.reference import (
    FILES,
    MetricsLog,
    load_checkpoint,
    save_checkpoint,
    sum_line,
)
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import TrainConfig, make_optimizer

PRETRAINED = Path(__file__).parents[1] / "pretrained"
TEXT = "to be or not to be, that is the question: " * 20
MODEL = ModelConfig(max_len=8, d_model=8, n_layers=1, n_heads=2, d_ff=8)
STEPS = TrainConfig(batch_size=2, max_steps=3, warmup_steps=0)


@pytest.fixture(scope="module")
def run(request, tmp_path_factory):
    """A finished run, with AdamW unless a test asks for another optimizer."""
    optimizer = getattr(request, "param", "adamw")
    folder = tmp_path_factory.mktemp(optimizer)
    (folder / "words.txt").write_text(TEXT, encoding="utf-8")
    recipe = replace(STEPS, optimizer=optimizer)
    config = replace(
        PRESETS["smoke"], corpus=str(folder / "words.txt"), eval_every=2, model=MODEL, train=recipe
    )
    train(config, folder / "run")
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(LOCK))


def session_of(run: Path) -> Session:
    config = read_run_config(run)
    model, _ = build_model(config.model, TEXT)
    optimizer = make_optimizer(model, config.train)
    return Session(model, optimizer, torch.Generator(), TEXT, config)


ODD = [None, True, -1, 0, 0.5, math.nan, math.inf, 10**30, "", "x", [], {}, [[]], {"tensor": "x"}]


def mutate(chance: random.Random, files: dict[str, bytes]) -> dict[str, bytes]:
    """One change of one file, as a stranger might make it who then corrects the sums."""
    name = chance.choice(["state.json", "state.json", "model.safetensors", "state.safetensors"])
    data = files[name]
    kind = chance.choice(["bytes", "cut", "entry", "entry", "entry"])
    if kind == "cut":
        changed = data[: chance.randrange(len(data))]
    elif kind == "bytes":
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    elif name == "state.json":
        changed = json.dumps(with_another_entry(chance, json.loads(data))).encode()
    else:
        changed = with_another_tensor(chance, data)
    return {**files, name: bytes(changed)}


def with_another_entry(chance: random.Random, state: Any) -> Any:
    """The same JSON, but for one entry, at any depth, that is gone, odd, new or another's."""
    places = []

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                walk(value[key])

    walk(state)
    # The 625 numbers of Python's generator would crowd out all the others.
    owner, key = chance.choice([p for p in places if len(p[0]) < 100 or chance.random() < 0.01])
    match chance.randrange(4):
        case 0:
            del owner[key]
        case 1:
            owner[key] = chance.choice(ODD)
        case 2:
            other, of = chance.choice(places)
            owner[key] = json.loads(json.dumps(other[of]))
        case _:
            if isinstance(owner, dict):
                owner[chance.choice(["x", "model", "7", str(key) + "0"])] = owner[key]
            else:
                owner.append(owner[key])
    return state


def with_another_tensor(chance: random.Random, data: bytes) -> bytes:
    """The same safetensors file, but for one tensor's name, shape, type or numbers."""
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match chance.randrange(5):
        case 0:
            del header[name]
        case 1:
            header[name + "x"] = header.pop(name)
        case 2:
            entry["shape"] = chance.choice([[], [0], [1, *entry["shape"]], entry["shape"][::-1]])
        case 3:
            entry["dtype"] = chance.choice(["F16", "BF16", "I32", "U8", "F64", "BOOL", "F8_E4M3"])
        case _:
            start, end = entry["data_offsets"]
            if end - start >= 4:
                at = start + 4 * chance.randrange((end - start) // 4)
                odd = chance.choice([math.nan, math.inf, -1.0, 1e30])
                body[at : at + 4] = struct.pack("<f", odd)
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + bytes(body)


def forge(folder: Path, files: dict[str, bytes]) -> None:
    sums = b"".join(sum_line(name, data) for name, data in files.items())
    for name, data in {**files, "SHA256SUMS": sums}.items():
        (folder / name).unlink()  # some disks wait when a file is cut to nothing and written anew
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("run", ["adamw", "muon"], indirect=True)
def test_no_forged_checkpoint_gives_more_than_a_sentence(run, copy, monkeypatch):
    """Sums recomputed: only the content can give it away, or it is as good as any other."""
    session, chance = session_of(run), random.Random(0)
    stepped = expected.after_a_step(session.model, session.optimizer)  # once instead of each time
    monkeypatch.setattr(expected, "after_a_step", lambda *_: stepped)
    files = {name: (run / "last" / name).read_bytes() for name in FILES[1:]}
    forged, refused = copy, 0
    shutil.rmtree(forged / "best")
    for number in range(500):
        forge(forged / "last", mutate(chance, files))
        try:
            if number % 5:
                session.restore(forged / "last")
            else:
                load_run(forged)
        except ValueError as error:
            told = str(error)
            assert "\n" not in told and str(forged) in told and len(told) < 500, (number, told)
            refused += 1
    assert refused > 385  # of 500; the others are as good as what was there


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda s: s["optimizer"]["state"].pop(0), "optimizer/state has no 0"),
        (lambda s: s["optimizer"]["param_groups"][0].pop("eps"), "param_groups/0 has no 'eps'"),
        (lambda s: s.update(step=4), "state.json: step is 4; it must be at least 0 and at most 3"),
        (lambda s: s.update(step=True), "state.json: step is True"),
        (lambda s: s.update(seconds=-1.0), "state.json: seconds is -1.0; it must be at least 0"),
        (lambda s: s.update(val_loss=None), "state.json: val_loss is None"),
        (lambda s: s.update(best_loss="low"), "state.json: best_loss is 'low'"),
        (lambda s: s.pop("batches"), "state.json has no batches"),
        (lambda s: s.update(batches=s["random"]["torch"][:9]), "batches is a tensor [9]"),
        (lambda s: s["batches"].zero_(), "batches is no state of a generator"),
        (lambda s: s["random"]["numpy"].__setitem__(2, 10**6), "random holds no states"),
        (lambda s: s["random"].pop("cuda"), "random holds no states of generators"),
        (lambda s: s["model"]["ln_f.weight"].fill_(math.nan), "ln_f.weight is not finite"),
        (lambda s: s["model"]["head.weight"].add_(1), "head.weight is not embedding.token.weight"),
        (lambda s: s["model"].update(x=torch.ones(1)), "it has 'x', which this run does not know"),
        (
            lambda s: s["model"].update({"ln_f.weight": torch.ones(9)}),
            "ln_f.weight is a tensor [9]",
        ),
    ],
)
def test_what_a_run_cannot_go_on_from_is_named_before_it_is_used(run, copy, change, sentence):
    state = load_checkpoint(copy / "last")
    change(state)
    save_checkpoint(copy / "last", state)
    session = session_of(copy)
    before = [p.clone() for p in session.model.parameters()]
    with pytest.raises(ValueError) as error:
        session.restore(copy / "last")
    assert sentence in str(error.value) and str(copy / "last") in str(error.value)
    assert str(error.value).endswith(
        f"; to go on from {copy / 'best'}, copy it into the place of {copy / 'last'}"
    )
    assert all(map(torch.equal, before, session.model.parameters())) and session.step == 0


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"model": 1}'])
def test_odd_json_is_refused_in_a_sentence(copy, content):
    files = {name: (copy / "last" / name).read_bytes() for name in FILES[1:]}
    forge(copy / "last", files | {"state.json": content.encode()})
    with pytest.raises(ValueError, match="last"):
        session_of(copy).restore(copy / "last")


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("n_heads = 2", "n_heads = 4", "model.n_heads = 2, but config.toml has 4"),
        ("qk_norm = false", "qk_norm = true", "model.qk_norm = False, but config.toml has True"),
        ("dropout = 0.0", "dropout = 0.5", "model.dropout = 0.0, but config.toml has 0.5"),
        ("max_lr = 0.001", "max_lr = 0.002", "train.max_lr = 0.001, but config.toml has 0.002"),
    ],
)
def test_settings_that_were_edited_are_named(copy, old, new, told, capsys):
    file = copy / "config.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        train(read_run_config(copy), copy, resume=True)
    assert not verify(copy)
    assert re.search(f"FAILED .*{told}", capsys.readouterr().out)
    if told.startswith("model."):
        with pytest.raises(ValueError, match=told):
            load_run(copy)


def test_a_checkpoint_that_does_not_know_its_settings_is_no_wrong_one(copy, capsys):
    for name in ("best", "last"):
        state = load_checkpoint(copy / name)
        del state["settings"]
        save_checkpoint(copy / name, state)
    assert verify(copy)
    assert "unknown" in capsys.readouterr().out
    train(read_run_config(copy), copy, resume=True)


def test_verify_says_what_it_could_check_without_last(copy, capsys):
    shutil.rmtree(copy / "last")
    assert verify(copy)
    assert re.search("unknown +last/ +there is none", capsys.readouterr().out)


class TestVerifyLooksAtAll:
    @pytest.mark.parametrize(
        "harm, told",
        [
            (lambda run: forge_entry(run, "step", {}), "last is not of this run: state.json: step"),
            (lambda run: forge_entry(run, "optimizer", None), "last is not of this run"),
            (lambda run: (run / "metrics.jsonl").write_bytes(b"x\n"), "metrics.jsonl, line 1"),
            (lambda run: (run / "checkpoints" / "step-000001").mkdir(parents=True), "incomplete"),
            (
                lambda run: shutil.move(run / "last", run / "kept") and (run / "last").touch(),
                "last is no folder",
            ),
        ],
    )
    def test_whatever_is_wrong_is_told(self, copy, harm, told, capsys):
        harm(copy)
        assert not verify(copy)
        assert re.search(f"FAILED .*{told}", capsys.readouterr().out)

    def test_another_text_is_told(self, copy, capsys):
        text = copy.parent / "other.txt"
        text.write_text(TEXT + "!", encoding="utf-8")
        file = copy / "config.toml"
        old = read_run_config(copy).corpus
        file.write_text(file.read_text(encoding="utf-8").replace(old, str(text)), encoding="utf-8")
        assert not verify(copy)
        assert "corpus is not the text" in capsys.readouterr().out


def forge_entry(run: Path, name: str, value: Any) -> None:
    state = json.loads((run / "last" / "state.json").read_bytes())
    files = {file: (run / "last" / file).read_bytes() for file in FILES[1:]}
    forge(run / "last", files | {"state.json": json.dumps(state | {name: value}).encode()})


def test_a_link_in_the_place_of_a_checkpoint_is_replaced_and_what_it_leads_to_stays(copy):
    best = (copy / "best" / "state.json").read_bytes()
    shutil.rmtree(copy / "last")
    (copy / "last").symlink_to("best")
    session = session_of(copy)
    for _ in range(2):
        session.save(copy / "last")
    assert not (copy / "last").is_symlink() and (copy / "best" / "state.json").read_bytes() == best
    assert not (copy / "last.old").exists()


def test_a_command_to_paste_is_quoted(tmp_path):
    told = resume_command(tmp_path / "a b; c", ALONE)
    assert shlex.split(told)[:4] == ["tiny-transformer", "train", "--out", str(tmp_path / "a b; c")]


class Killed(BaseException):
    """Not an Exception: what is killed does not get to handle it."""


class TestWhatIsMissing:
    """A folder in which anything was trained is never started over without a word."""

    @pytest.fixture
    def refused(self, copy):
        def check(sentence: str) -> None:
            (copy / LOCK).touch()
            before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
            with pytest.raises(ValueError, match=sentence):
                train(read_run_config(copy), copy, resume=True)
            after = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
            assert after == before

        return check

    def test_without_last_it_says_how_to_go_on_from_an_older_best(self, copy, refused, monkeypatch):
        losses = iter([1.0, 2.0, 1.5])
        monkeypatch.setattr(reference, "evaluate", lambda *_: next(losses))
        config = read_run_config(copy)
        shutil.rmtree(copy)
        train(config, copy)
        shutil.rmtree(copy / "last")
        refused("there is no last/ to go on from: put it back; to go on from .*best, copy it")
        shutil.copytree(copy / "best", copy / "last")
        assert train(config, copy, resume=True) == 1.0
        assert [r["step"] for r in MetricsLog(copy / "metrics.jsonl").read()] == [1, 2, 3]

    @pytest.mark.parametrize("saved", [0, 1])
    def test_a_kill_at_the_first_checkpoint_costs_nothing(self, run, tmp_path, monkeypatch, saved):
        """Before `best/`, or between `best/` and `last/`."""
        done, original = [], Session.save

        def save(session, path):
            if len(done) == saved:
                raise Killed
            done.append(path)
            original(session, path)

        config, out = read_run_config(run), tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(Session, "save", save)
            with pytest.raises(Killed):
                train(config, out)
        assert [path.name for path in done] == ["best"][:saved] and not (out / "last").exists()
        train(config, out, resume=True)
        for name in ("last", "best"):
            weights = [(folder / name / "model.safetensors").read_bytes() for folder in (out, run)]
            assert weights[0] == weights[1]

    def test_without_best_too_the_evaluations_count(self, copy, refused):
        shutil.rmtree(copy / "last")
        shutil.rmtree(copy / "best")
        refused("where a run was trained, but there is no last/ to go on from: put it back$")

    def test_a_file_in_the_place_of_last_is_told(self, copy, refused):
        shutil.rmtree(copy / "last")
        (copy / "last").write_text("", encoding="utf-8")
        refused("last is no folder")

    def test_a_link_that_leads_nowhere_is_told(self, copy, refused):
        shutil.rmtree(copy / "last")
        (copy / "last").symlink_to(copy / "elsewhere")
        refused("last is no folder")

    def test_a_run_without_its_settings_is_told(self, copy):
        config = read_run_config(copy)
        (copy / "config.toml").unlink()
        with pytest.raises(ValueError, match="a run whose config.toml is missing"):
            train(config, copy, resume=True)

    def test_the_pretrained_folder_is_no_run_to_go_on_with(self, tmp_path):
        copy = shutil.copytree(PRETRAINED, tmp_path / "pretrained")
        before = (copy / "metrics.jsonl").read_bytes()
        with pytest.raises(ValueError, match="there is no last/ to go on from: put it back$"):
            claim_folder(copy, read_run_config(copy), resume=True)
        assert (copy / "metrics.jsonl").read_bytes() == before

    @pytest.mark.parametrize("resume", [False, True])
    def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(
        self, run, tmp_path, monkeypatch, capsys, resume
    ):
        def fail(*_):
            raise OSError("the disk is full")

        config, out = read_run_config(run), tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(Session, "save", fail)
            with pytest.raises(OSError):
                train(config, out)
        assert "val_loss" in MetricsLog(out / "metrics.jsonl").read()[-1]
        train(replace(config, seed=config.seed if resume else 2), out, resume)
        assert f"no checkpoint in {out}: starting from the beginning" in capsys.readouterr().out
        assert read_run_config(out).seed == (1 if resume else 2)

    @pytest.mark.parametrize("dangling", [False, True])
    def test_settings_of_somebody_else_stay(self, run, tmp_path, dangling):
        config, file = read_run_config(run), tmp_path / "config.toml"
        if dangling:
            file.symlink_to(tmp_path / "elsewhere")
        else:
            file.write_text("mine = 'no'", encoding="utf-8")
        with pytest.raises(ValueError, match="which holds a run; add --resume"):
            train(config, tmp_path)
        with pytest.raises((OSError, ValueError), match="config.toml"):
            train(config, tmp_path, resume=True)
        assert file.is_symlink() == dangling


class TestDamage:
    """What is beside the checkpoints stops no run without saying what to do."""

    @pytest.fixture
    def kept(self, run, tmp_path):
        """A run that keeps numbered checkpoints, cut after its first evaluation."""
        config = replace(read_run_config(run), keep=2, eval_every=1)
        out = tmp_path / "kept"
        train(replace(config, train=replace(config.train, max_steps=1)), out)
        text = (out / "config.toml").read_text(encoding="utf-8")
        (out / "config.toml").write_text(
            text.replace("max_steps = 1", "max_steps = 3"), encoding="utf-8"
        )
        state = load_checkpoint(out / "last")
        del state["settings"]
        save_checkpoint(out / "last", state)
        return out

    @pytest.mark.parametrize("content", ["x", "{}", "[]", '{"val_loss": null}', "[" * 100_000])
    def test_a_damaged_numbered_checkpoint_is_the_worst(self, kept, content):
        file = kept / "checkpoints" / "step-000001" / "state.json"
        file.write_text(content, encoding="utf-8")
        train(read_run_config(kept), kept, resume=True)
        assert sorted(path.name for path in (kept / "checkpoints").iterdir()) == [
            "step-000002",
            "step-000003",
        ]

    def test_what_a_kill_left_of_numbered_checkpoints_goes(self, kept):
        for name in ("step-000007.new", "step-000007.old", "step-000008"):
            (kept / "checkpoints" / name).mkdir()
            (kept / "checkpoints" / name / "state.json").write_text("{", encoding="utf-8")
        train(read_run_config(kept), kept, resume=True)
        assert len(list((kept / "checkpoints").iterdir())) == 2

    @pytest.mark.parametrize(
        "line",
        ["null", "[]", '{"a": 1}', '{"step": 1}', '{"step": "1", "train_loss": 1}', "\xff", "x"],
    )
    def test_a_line_that_is_no_record_is_named_and_nothing_is_forgotten(self, copy, line):
        file = copy / "metrics.jsonl"
        whole = file.read_bytes()
        file.write_bytes(line.encode("latin-1") + b"\n" + whole)
        with pytest.raises(ValueError, match=r"metrics.jsonl, line 1, .*delete that line"):
            train(read_run_config(copy), copy, resume=True)
        assert file.read_bytes().endswith(whole)
        file.write_bytes(whole)
        train(read_run_config(copy), copy, resume=True)


class TestOneAtATime:
    def test_a_folder_that_another_run_holds_is_left_alone(self, copy):
        with FileLock(copy / LOCK):  # as another process would hold it
            with pytest.raises(ValueError, match="into which another process trains"):
                train(read_run_config(copy), copy, resume=True)
        train(read_run_config(copy), copy, resume=True)

    def test_a_run_lets_go_however_it_ends(self, run, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Session, "save", fail)
            with pytest.raises(OSError):
                train(read_run_config(run), tmp_path / "run")
        with FileLock(tmp_path / "run" / LOCK, timeout=0):
            pass
