"""What a command says to a mistake: one sentence that names the argument and its value."""

import errno
import io
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from tiny_transformer.capstone import __main__, cli
from tiny_transformer.capstone.board import Board
from tiny_transformer.capstone.terminal import visible
from tiny_transformer.engineering import memory
from tiny_transformer.engineering.config import PRESETS, write_config
from tiny_transformer.engineering.memory import check_training_fits
from tiny_transformer.engineering.reference import load_checkpoint, save_checkpoint
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM

TEXT = "the cat sat on a mat\n" * 40
HUGE = "99999999999999999998"  # more than 64 bits
TRILLION = "1000000000000"
SETTINGS = {  # files of settings, and what is said of them
    "[train]\nmax_stepz = 5\n": "did you mean 'max_steps'",
    "[train]\nmax_steps = 'many'\n": "max_steps is 'many'; it must be of type int",
    "[train]\nmax_steps = 1.5\n": "max_steps is 1.5; it must be of type int",
    "[train]\nmax_steps = true\n": "max_steps is True; it must be of type int",
    "[train]\nbetas = [0.9]\n": "betas is",
    "[train]\nbetas = [1, 1]\n": "betas is 1",
    f"[train]\nmax_lr = {'9' * 400}\n": "max_lr is 999",
    f"[train]\nbatch_size = {'9' * 400}\n": "batch_size is 999",
    f"[train]\nbatch_size = {'9' * 5000}\n": " is not TOML",
    f"[model]\nd_model = {'9' * 400}\n": "d_model is 999",
    "[model]\nd_model = 0\n": "d_model is 0; it must be at least 1",
    "[model]\nnorm = 'none'\n": "norm is 'none'",
    "[model\n": " is not TOML",
    "model = 5\n": "model is 5; it must be a table",
    "seed = -1\n": "seed is -1; it must be at least 0",
    "seed = 1\nseed = 2\n": " is not TOML",
    f"seed = {'[' * 20_000}\n": " is not TOML",
    "caf\u00e9 = 1\n": " is not TOML",
    "device = 'tpu'\n": "--device is 'tpu'",
    "sed = 1\n": "did you mean 'seed'",
    "preset = 'fast'\n": "preset is no setting but an option: --preset NAME",
}
RUNS = {  # settings of a run that its folder should not have, and what is said of them
    "[model]\nn_layers = 0\n": "n_layers is 0; it must be at least 1",
    f"[model]\nn_layers = {TRILLION}\n": f"model.n_layers is {TRILLION}; the model takes at least",
    f"[model]\nd_ff = {TRILLION}\n": f"model.d_ff is {TRILLION}; the model takes at least",
    f"[model]\nd_model = {HUGE}\n": f"d_model is {HUGE}",
    f"[model]\nd_model = {'9' * 5000}\n": "config.toml is not TOML",
    "[model\n": "config.toml is not TOML",
}


def options(names: str, values: dict[str, str]) -> list[tuple[list[str], str]]:
    """Every option with every value: {"0": "at least 1"} -> (["--a", "0"], "--a is 0; ...")"""
    return [
        ([f"--{name}", *value.split(" ")], f"--{name} is {value}; it must be {asked}".rstrip())
        for name in names.split()
        for value, asked in values.items()
    ]


def unreadable(names: str, *values: str) -> list[tuple[list[str], str]]:
    """Every option with every value, of which tyro says in a box that it cannot be read."""
    return [([f"--{name}", value], f"--{name}") for name in names.split() for value in values]


TRAIN = [
    *options(
        "model.vocab-size model.max-len model.d-model model.n-layers model.n-heads model.d-ff "
        "train.batch-size train.accumulate train.max-steps log-every eval-every",
        {"0": "at least 1", HUGE: "below 2**63"},
    ),
    *options("train.warmup-steps keep", {"-1": "at least 0", HUGE: "below 2**63"}),
    *options("train.max-lr train.max-norm train.muon-lr", {"0.0": "above 0", "-1.0": "above 0"}),
    *options("train.max-lr train.max-norm train.muon-lr", {"nan": "finite", "inf": "finite"}),
    *options("train.min-lr train.weight-decay", {"-1.0": "at least 0", "nan": "finite"}),
    *options("train.decay-fraction", {"0.0": "above 0", "2.0": "above 0 and at most 1"}),
    *options("model.dropout", {"-0.1": "at least 0", "1.0": "at least 0 and below 1", "nan": ""}),
    *options("seed", {"-1": "at least 0", "4294967296": "at least 0 and at most 4294967295"}),
    *unreadable("model.max-len train.max-steps seed keep", "many", "1.5", ""),
    *unreadable("train.max-lr model.dropout", "much", ""),
    *unreadable("model.norm model.positions model.activation train.schedule", "none"),
    *unreadable("train.optimizer train.order matmul-precision preset", "none"),
    *unreadable("bf16 compile", "perhaps"),
    *unreadable("train.betas", "0.9"),
    *unreadable("train.max-stepz model.widht nothing", "5"),
    *unreadable("seed", "9" * 5000),
    (["--train.betas", "1", "0.9"], "--train.betas is 1"),
    (["--train.betas", "0.9", "nan"], "--train.betas is nan"),
    (["--train.min-lr", "1"], "--train.min-lr is 1.0; it must be at most max_lr"),
    (["--model.n-heads", "3"], "--model.n-heads is 3; it must divide d_model"),
    (["--model.vocab-size", "7"], "--model.vocab-size is 7; it is that of the text: leave it out"),
    (
        ["--train.muon-lr", "1e300"],
        "--train.muon-lr is 1e+300; it must be above 0 and at most 1e+38",
    ),
    (["--model.positions", "rope", "--model.n-heads", "32"], "rope needs an even head width"),
    (["--train.accumulate", "5"], "--train.accumulate is 5; it must divide batch_size, 12"),
    (["--seed"], "--seed"),
    (["--out"], "--out"),
    (["surplus"], "surplus"),
    (["--device", "tpu"], "--device is 'tpu'; this machine has"),
    (["--device", "cuda:99"], "--device is 'cuda:99'; this machine has"),
    (["--device", ""], "--device is ''; this machine has"),
    (["--corpus", "NOWHERE"], "--corpus NOWHERE cannot be read"),
    (["--corpus", "."], "--corpus . cannot be read: it is a directory"),
    (["--corpus", "FIFO"], "--corpus FIFO cannot be read: it is not a file"),
    (["--corpus", os.devnull], "cannot be read: it is not a file"),
    (["--corpus", "EMPTY"], "--corpus EMPTY is empty"),
    (["--corpus", "LATIN"], "--corpus LATIN is not UTF-8 at byte 3"),
    (["--corpus", "SHORT"], "--corpus has 9 characters"),
    (["--model.max-len", "5000"], "a context (model.max_len) of 5000 needs more"),
    (["--config", "NOWHERE"], "--config is NOWHERE; it must be a file of settings"),
    (["--config", "."], "--config is .; it must be a file of settings"),
    (["--config", "FIFO"], "--config is FIFO; it must be a file of settings"),
    (["--config", os.devnull], "it must be a file of settings"),
    (["--config", "EMPTY", "--seed", "-1"], "--seed is -1"),
    (["--out", "RUN"], "--out is RUN, which holds a run; add --resume"),
    (["--out", "FOLDER"], "--out is FOLDER, which holds other things"),
    (["--out", "SHORT"], "--out is SHORT"),
    (["--out", "SHORT/run"], "SHORT"),
    (["--out", "RUN", "--resume", "--config", "NOWHERE"], "--config is NOWHERE; it must be a file"),
    (["--out", "RUN", "--resume", "--config", "OTHER"], "--seed is 7, but RUN was started with 1"),
    *(
        ([f"--{name}", TRILLION, *others], f"--{name} is {TRILLION}; {what} takes at least")
        for name, what, *others in (
            ("model.d-model", "the model", "--model.n-heads", "1"),
            ("model.n-layers", "the model"),
            ("model.d-ff", "the model"),
            ("model.max-len", "the model"),
            ("train.batch-size", "a training step"),
            ("train.batch-size", "a training step", "--train.accumulate", TRILLION),
            ("model.max-len", "the model", "--model.positions", "rope"),
        )
    ),
]
SAMPLE = [
    *options("tokens", {"-1": "at least 0", HUGE: "below 2**63"}),
    *options("seed", {"-1": "at least 0", "4294967296": "at least 0 and at most 4294967295"}),
    *options("top-k", {"0": "at least 1", "-1": "at least 1", HUGE: "below 2**63"}),
    *options("top-p", {"0.0": "above 0", "-1.0": "above 0", "2.0": "above 0 and at most 1"}),
    *options("top-p temperature", {"nan": "finite", "inf": "finite"}),
    *options("temperature", {"-1.0": "at least 0"}),
    *unreadable("tokens seed top-k", "many", "1.5", ""),
    *unreadable("top-p temperature", "hot"),
    *unreadable("nothing", "5"),
    (["--tokens", TRILLION], f"--tokens is {TRILLION}; the text takes at least 16,000.0 GB"),
    (["--prompt", ""], "--prompt is empty"),
    (["--prompt", "Zeus"], "--prompt: text has 'Z' at position 0"),
    (["--prompt", "ROMEO:"], "--prompt: text has 'R' at position 0"),
    (["--prompt", "a\x1b"], r"--prompt: text has '\x1b' at position 1"),
    (["--prompt"], "--prompt"),
    (["surplus"], "surplus"),
]
GALLERY = [
    *options("tokens", {"-1": "at least 0", HUGE: "below 2**63"}),
    *options("seed", {"-1": "at least 0", "4294967296": "at least 0 and at most 4294967295"}),
    *unreadable("tokens", "many"),
    (["--tokens", TRILLION], f"--tokens is {TRILLION}; the text takes at least 48,000.0 GB"),
    (["--prompts"], "--prompts is empty; it must be at least one text"),
    (["--prompts", ""], "--prompts is empty"),
    (["--prompts", "the", "Zeus"], "--prompts: text has 'Z' at position 0"),
]
EXPORT = [
    (["--to", "pickle", "--out", "NEW"], "pickle"),
    (["--to", "hf"], "--out"),
    (["--out", "NEW"], "--to"),
    (["--to", "hf", "--out", "NEW"], "positions is 'rope'; Hugging Face's GPT-2 has 'learned'"),
    (["--to", "onnx", "--out", "FOLDER"], "--out is FOLDER, which holds other things"),
    (["--to", "onnx", "--out", "SHORT"], "--out is SHORT, which is no folder"),
]
EXPLORE = [
    (["--out", "FOLDER"], "--out is FOLDER, which is a folder; it must be a file"),
    (["--out"], "--out"),
    (["--no-opne"], "--no-opne"),
    ([], "this run expects a whole number"),  # the step of its checkpoint, which has none
]
EXPORTED = ["export", "--to", "onnx", "--out", "NEW"]
COMMANDS = [["sample"], ["gallery"], ["explore", "--no-open"], EXPORTED, ["verify"]]
TRAIN += [(["--config", f"SETTINGS{i}"], said) for i, said in enumerate(SETTINGS.values())]
CASES = [
    *((["train", "--preset", "smoke", "--corpus", "TEXT", *args], said) for args, said in TRAIN),
    *((["sample", "--run", "RUN", *args], said) for args, said in SAMPLE),
    *((["gallery", "--run", "RUN", *args], said) for args, said in GALLERY),
    *((["export", "--run", "RUN", *args], said) for args, said in EXPORT),
    *((["explore", "--run", "RUN", *args], said) for args, said in EXPLORE),
    *(([*command, "--run", "NOWHERE"], "--run: no run at NOWHERE") for command in COMMANDS),
    *(([*command, "--run", "SHORT"], "--run: no run at SHORT") for command in COMMANDS),
    *(
        ([*command, "--run", f"RUN{i}"], said)
        for i, said in enumerate(RUNS.values())
        for command in COMMANDS[:-1]  # verify has a table to say it in
    ),
    (["progress", "--fast"], "--fast"),
    (["hint", "casual_mask"], "did you mean causal_mask?"),
    (["reset", "gellu"], "did you mean gelu?"),
    (["check", "01_atention"], "did you mean 01_attention?"),
    (["learn", "causal_mask"], "no module is called causal_mask"),
    (["verify"], "tiny-transformer train"),
    (["gallery"], "tiny-transformer train"),
    (["train", "--resume"], "tiny-transformer train"),
    (["trian"], "trian"),
    (["--run", "RUN"], "--run"),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A working folder with all that the cases name. It must stay as it is."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "TEXT").write_text(TEXT, encoding="utf-8")
    (folder / "EMPTY").touch()
    (folder / "LATIN").write_bytes(b"Caf\xe9")
    (folder / "SHORT").write_text("to be or\n", encoding="utf-8")
    (folder / "OTHER").write_text("seed = 7\n", encoding="utf-8")
    (folder / "FOLDER").mkdir()
    (folder / "FOLDER" / "thesis.txt").write_text("two years of work", encoding="utf-8")
    os.mkfifo(folder / "FIFO")
    model = ModelConfig(
        vocab_size=len(set(TEXT)), max_len=8, d_model=8, n_layers=1, n_heads=1, positions="rope"
    )
    (folder / "RUN").mkdir()
    (folder / "RUN" / ".lock").touch()
    settings = replace(PRESETS["smoke"], corpus=str(folder / "TEXT"), model=model)
    write_config(folder / "RUN" / "config.toml", settings)
    torch.manual_seed(0)
    state = {
        "characters": "".join(sorted(set(TEXT))),
        "model": TinyTransformerLM(model).state_dict(),
    }
    save_checkpoint(folder / "RUN" / "best", state)
    for i, content in enumerate(SETTINGS):
        (folder / f"SETTINGS{i}").write_bytes(content.encode("latin-1"))
    for i, content in enumerate(RUNS):
        shutil.copytree(folder / "RUN", folder / f"RUN{i}")
        (folder / f"RUN{i}" / "config.toml").write_text(content, encoding="utf-8")
    return folder


def files(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("args, said", CASES, ids=[" ".join(args)[:60] for args, _ in CASES])
def test_a_mistake_is_one_sentence_with_the_argument_and_its_value(
    command, desk, monkeypatch, args, said
):
    monkeypatch.chdir(desk)
    before = files(desk)
    status, out, err = command(*args)
    assert status not in (0, None)
    assert out == ""
    in_a_box = err.startswith((" ", "\u256d"))  # tyro's, in ASCII or not
    assert in_a_box or re.fullmatch(r"tiny-transformer: [^\n]+", err)
    assert "Traceback" not in err and "settings." not in err
    assert said in " ".join(err.replace("\u2502", " ").split())
    assert files(desk) == before


class Failing(io.StringIO):
    """A stream that takes nothing, or nothing any more."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        self.write("")


def status_of(monkeypatch, *args) -> object:
    """The exit status of a command, or what Python would print of it, streams as they are."""
    monkeypatch.setattr(sys, "argv", ["tiny-transformer", *map(str, args)])
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert (sys.stdout, sys.stderr) == before
    return exit.value.code


@pytest.fixture
def two_steps(desk, tmp_path):
    def args(corpus: str = "TEXT") -> list[str]:
        brief = ["--train.max-steps", "2", "--eval-every", "1", "--model.max-len", "8"]
        return ["train", "--preset", "smoke", "--corpus", desk / corpus, *brief]

    return lambda **other: [*args(**other), "--out", tmp_path / "run"]


class TestWhoeverReadsAlong:
    @pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
    def test_training_goes_on_without_a_reader(self, two_steps, tmp_path, monkeypatch, number):
        monkeypatch.setattr(sys, "stdout", Failing(number))
        monkeypatch.setattr(sys, "stderr", Failing(number))
        assert status_of(monkeypatch, *two_steps()) == 0
        assert load_checkpoint(tmp_path / "run" / "last")["step"] == 2

    def test_training_goes_on_where_the_streams_are_closed(self, two_steps, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        assert status_of(monkeypatch, *two_steps()) == 0
        assert load_checkpoint(tmp_path / "run" / "last")["step"] == 2

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_what_a_log_cannot_show_is_replaced(
        self, desk, two_steps, tmp_path, monkeypatch, encoding
    ):
        (desk / "GREEK").write_text("\u03b1\u03b2 \u03b3\n" * 100, encoding="utf-8")
        log = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", log)
        assert status_of(monkeypatch, *two_steps(corpus="GREEK")) == 0
        assert b"?" in log.buffer.getvalue()
        page = (tmp_path / "run" / "samples.md").read_text(encoding="utf-8")
        assert {*"\u03b1\u03b2\u03b3"} & {*page}

    def test_an_evaluation_is_told_once_its_checkpoint_is_there(
        self, two_steps, tmp_path, monkeypatch
    ):
        class Looking(io.StringIO):
            def write(self, text: str) -> int:
                if told := re.match(r"step (\d), validation loss", text):
                    assert load_checkpoint(tmp_path / "run" / "last")["step"] >= int(told[1])
                return super().write(text)

        monkeypatch.setattr(sys, "stdout", log := Looking())
        assert status_of(monkeypatch, *two_steps()) == 0
        assert log.getvalue().count("validation loss") == 3

    def test_control_characters_do_not_reach_a_terminal(self, desk, monkeypatch, capsys):
        monkeypatch.chdir(desk)
        monkeypatch.setattr(cli.Sample, "text", lambda *_: "a\tb\n\x1b[2J\x9b\u202e\u0434")
        status_of(monkeypatch, "sample")
        assert capsys.readouterr().out == "a\tb\n\x1b[2J\x9b\u202e\u0434\n"  # a pipe: exact
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        status_of(monkeypatch, "sample")
        assert capsys.readouterr().out == "a\tb\n\\x1b[2J\\x9b\\u202e\u0434\n"

    def test_a_mistake_is_told_to_a_terminal_as_to_a_file(self, command, monkeypatch):
        mistake = ("sample", "--tokenz", 3)
        _, _, told = command(*mistake)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        assert command(*mistake) == (2, "", told) and "--tokenz" in told

    def test_joined_letters_stay_joined(self):
        assert (
            visible("\u0645\u06cc\u200c\u0631\u0648\u062f")
            == "\u0645\u06cc\u200c\u0631\u0648\u062f"
        )

    def test_a_sample_that_cannot_be_written_exactly_is_not_written(self, desk, monkeypatch):
        log = io.TextIOWrapper(io.BytesIO(), "cp1252")
        monkeypatch.setattr(sys, "stdout", log)
        monkeypatch.setattr(cli.Sample, "text", lambda *_: "so \u03b1")
        said = status_of(monkeypatch, "sample")
        assert "standard output is in cp1252, which has no '\u03b1' (U+03B1): set PYTHONIO" in said
        assert log.buffer.getvalue() == b""

    def test_a_reader_that_has_seen_enough_ends_a_command_in_silence(self, desk, monkeypatch):
        monkeypatch.chdir(desk)
        monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
        assert status_of(monkeypatch, "sample", "--run", "RUN", "--tokens", 1) == 141

    @pytest.mark.parametrize("args", [["sample", "--run", "RUN"], ["verify", "--run", "RUN"]])
    def test_a_full_disk_behind_the_output_is_one_sentence(self, desk, monkeypatch, args):
        monkeypatch.chdir(desk)
        monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
        said = status_of(monkeypatch, *args)
        assert said == "tiny-transformer: standard output: No space left on device"

    def test_a_page_that_cannot_be_written_leaves_the_old_one(self, desk, tmp_path, monkeypatch):
        run = shutil.copytree(desk / "RUN", tmp_path / "RUN")
        (run / "gallery.md").write_text("an older page", encoding="utf-8")

        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        said = status_of(monkeypatch, "gallery", "--run", run, "--tokens", 1)
        assert said == f"tiny-transformer: {run / 'gallery.md.new'}: No space left on device"
        assert (run / "gallery.md").read_text(encoding="utf-8") == "an older page"
        assert not (run / "gallery.md.new").exists()


@pytest.mark.parametrize(
    "message, said",
    [
        ("n_heads is 3; it must divide d_model", "--model.n-heads is 3; it must divide d_model"),
        ("train.accumulate is 5", "--train.accumulate is 5"),
        ("model/last/state.json is damaged", None),
        ("seed.txt is no folder", None),
    ],
)
def test_a_setting_is_told_by_its_option_and_a_path_by_its_name(message, said):
    assert cli.named_by_option(message) == said


def test_ctrl_c_ends_the_command_in_silence_even_while_it_is_imported(monkeypatch):
    handlers = []

    class Slow(ModuleType):
        def __getattr__(self, name):
            handlers.append(signal.getsignal(signal.SIGINT))
            return lambda: handlers.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setitem(sys.modules, "tiny_transformer.capstone.cli", Slow("cli"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        __main__.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers[-2:] == [signal.SIG_DFL, signal.default_int_handler]


class TestTensorBoard:
    def test_it_reads_the_log_and_what_a_resumed_run_repeats_only_once(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for start, value in ((1, 5.0), (3, 4.0)):
            with Board(tmp_path, start) as board:
                for step in range(start, 5):
                    board.add("train_loss", value, step)
        log = EventAccumulator(str(tmp_path)).Reload()
        losses = [(event.step, event.value) for event in log.Scalars("train_loss")]
        assert losses == [(1, 5.0), (2, 5.0), (3, 4.0), (4, 4.0)]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
    def test_a_full_disk_is_named(self, tmp_path):
        with Board(tmp_path, 1) as board, open("/dev/full", "wb", buffering=0) as full:
            board.records = RecordWriter(full)
            with pytest.raises(OSError, match="No space left on device: '.*events.out.tfevents"):
                board.add("train_loss", 5.0, 1)


class TestPrompts:
    @pytest.mark.parametrize("text, prompt", [(TEXT, "the cat sat on a mat"), (None, "\n")])
    def test_a_run_without_the_usual_characters_has_prompts_of_its_own(
        self, command, desk, tmp_path, text, prompt
    ):
        run = shutil.copytree(desk / "RUN", tmp_path / "run")
        if text is None:  # it is gone
            config = (run / "config.toml").read_text(encoding="utf-8")
            (run / "config.toml").write_text(config.replace("TEXT", "GONE"), encoding="utf-8")
        status, out, _ = command("sample", "--run", run, "--tokens", 3)
        assert status == 0 and out.startswith(prompt)
        assert command("gallery", "--run", run, "--tokens", 3)[0] == 0
        assert f"```text\n{prompt}" in (run / "gallery.md").read_text(encoding="utf-8")


class TestMemory:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_every_preset_fits_a_small_machine(self, monkeypatch, preset):
        has(monkeypatch, 2 * 10**9)
        check_training_fits(PRESETS[preset], torch.device("cpu"))

    def test_a_model_of_half_the_memory_fits_and_one_of_more_than_all_does_not(self, monkeypatch):
        has(monkeypatch, 10**9)
        config = replace(PRESETS["smoke"], model=ModelConfig(d_model=1024, n_layers=3, d_ff=4096))
        check_training_fits(config, torch.device("cpu"))
        config = replace(config, model=replace(config.model, n_layers=6))
        with pytest.raises(
            ValueError, match="^model.d_model is 1024; a training step takes at lea"
        ):
            check_training_fits(config, torch.device("cpu"))

    def test_a_model_too_large_for_one_process_fits_those_that_share_it(self, monkeypatch):
        has(monkeypatch, 10**9)
        large = ModelConfig(d_model=1024, n_layers=6, d_ff=4096)
        config = replace(PRESETS["smoke"], model=large, shard=True)
        check_training_fits(config, torch.device("cpu"), processes=2)
        with pytest.raises(ValueError, match="model.d_model is 1024"):
            check_training_fits(config, torch.device("cpu"))

    def test_a_gpu_counts_where_it_trains(self, monkeypatch):
        has(monkeypatch, 64 * 10**9)
        gpu = SimpleNamespace(total_memory=10**9)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
        check_training_fits(PRESETS["gpu"], torch.device("cuda"))
        wide = replace(PRESETS["gpu"], model=ModelConfig(d_ff=10**6))
        with pytest.raises(ValueError, match="model.d_ff is 1000000; .*, and the GPU has 1.0 GB"):
            check_training_fits(wide, torch.device("cuda"))

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nstack"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate"),
        ],
    )
    def test_too_little_memory_is_one_sentence(self, command, desk, monkeypatch, error):
        def fails(*_):
            raise error

        monkeypatch.setattr(cli, "load_run", fails)
        status, _, err = command("sample", "--run", desk / "RUN")
        assert status == 1
        assert err.startswith("tiny-transformer: there is too little memory") and "\n" not in err


def has(monkeypatch, size: int) -> None:
    """Let this machine have so many bytes of memory."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=size))
    monkeypatch.setattr(memory.psutil, "swap_memory", lambda: SimpleNamespace(total=0))
