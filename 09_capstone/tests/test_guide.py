"""What a command says on its way: what to do, what may be changed, and a text while it is drawn."""

import io
import re
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tiny_transformer.capstone import cli, guide
from tiny_transformer.capstone.guide import LARGER, to_try
from tiny_transformer.engineering.config import ABOUT, PRESETS, write_config
from tiny_transformer.engineering.reference import save_checkpoint
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM

TEXT = "the cat sat on a mat\n" * 40
TOKENS = 30  # twice the context and more


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    shape = ModelConfig(vocab_size=len(set(TEXT)), max_len=8, d_model=8, n_layers=1, n_heads=1)
    settings = replace(PRESETS["smoke"], corpus=str(tmp_path / "text"), model=shape)
    (tmp_path / "run").mkdir()
    write_config(tmp_path / "run" / "config.toml", settings)
    state = {
        "characters": "".join(sorted(set(TEXT))),
        "model": TinyTransformerLM(shape).state_dict(),
    }
    save_checkpoint(tmp_path / "run" / "best", state)
    return tmp_path / "run"


class Watched(io.StringIO):
    """A stream that remembers what had been written at each flush."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal
        self.flushed = set()

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.flushed.add(self.getvalue())


def looking_twice(model, tokens, max_new_tokens, *_):
    """A `generate` that reads its prompt once more than it has to."""
    model(tokens)
    for _ in range(max_new_tokens):
        new = model(tokens[:, -8:])[:, -1:].argmax(dim=-1)
        tokens = torch.cat((tokens, new), dim=1)
    return tokens


class TestSample:
    @pytest.fixture
    def sample(self, run, monkeypatch):
        def said(*args: str, terminal: bool = True) -> Watched:
            monkeypatch.setattr(sys, "stdout", out := Watched(terminal))
            args = "--run", str(run), "--prompt", "the", "--tokens", str(TOKENS), *args
            monkeypatch.setattr(sys, "argv", ["tiny-transformer", "sample", *args])
            with pytest.raises(SystemExit) as exit:
                cli.main()
            assert not exit.value.code
            return out

        return said

    @pytest.mark.parametrize("terminal", [True, False])
    @pytest.mark.parametrize("args", [(), ("--temperature", "0"), ("--top-k", "3")])
    def test_each_character_is_written_as_soon_as_it_is_drawn(self, sample, args, terminal):
        out = sample(*args, terminal=terminal)
        text = out.getvalue()
        assert len(text) == len("the") + TOKENS + 1
        assert {text[:n] for n in range(len("the"), len("the") + TOKENS)} <= out.flushed

    def test_a_draft_writes_the_same_in_pieces(self, sample):
        plain, ahead = sample("--temperature", "0"), sample("--temperature", "0", "--draft")
        assert ahead.getvalue() == plain.getvalue()
        assert "the" in ahead.flushed and len(ahead.flushed) > 5

    @pytest.mark.parametrize("terminal", [True, False])
    def test_yours_is_written_in_pieces_to_a_terminal_and_whole_to_a_file(
        self, sample, monkeypatch, terminal
    ):
        monkeypatch.setattr(cli, "exercises", lambda *_: nullcontext())
        out = sample("--mine", terminal=terminal)
        assert out.getvalue() == sample().getvalue()
        assert ("the" in out.flushed) == terminal

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_generate_that_reads_what_it_does_not_keep_has_the_last_word(
        self, sample, monkeypatch, terminal
    ):
        monkeypatch.setattr(cli, "exercises", lambda *_: nullcontext())
        text = sample("--temperature", "0").getvalue()
        monkeypatch.setattr(cli, "generate", looking_twice)
        out = sample("--mine", terminal=terminal).getvalue()
        assert out == text or (terminal and out.endswith(f"\n{text}"))

    def test_what_an_encoding_may_lack_waits_for_the_end(self, sample, monkeypatch):
        monkeypatch.setattr(Watched, "encoding", "ascii")
        assert "the" in sample(terminal=False).flushed
        monkeypatch.setattr(cli, "characters_of", lambda _: "\u03b1")
        assert "the" not in sample(terminal=False).flushed

    def test_it_names_its_run_on_standard_error(self, sample, run, capsys):
        sample()
        assert capsys.readouterr().err == f"run: {run}\n"


class TestHelpOfTraining:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_it_has_the_presets_first_and_fits_a_terminal(self, command, preset):
        status, page, _ = command("train", "--preset", preset, "--help")
        names = re.findall(r"^  (\w+) +\w", page, re.M)
        assert status == 0 and names == [*PRESETS] == [*ABOUT]
        assert max(map(len, page.splitlines())) <= 80 and len(page.splitlines()) <= 32

    @pytest.mark.parametrize("preset", PRESETS)
    def test_what_it_shows_is_what_holds(self, command, preset):
        _, page, _ = command("train", "--preset", preset, "--help")
        shown = re.findall(r"^  --(\S+) (\S+)  ", page, re.M)
        told = [(f"--{name}", value) for name, value in shown if value not in ("FOLDER", "FILE")]
        args = [part for option in told for part in option]
        assert cli.parse(["train", *args]) == cli.parse(["train", "--preset", preset])

    def test_the_rest_is_in_a_longer_one(self, command):
        _, short, _ = command("train", "--help")
        status, long, _ = command("train", "--help-all")
        options = set(re.findall(r"--[\w.-]+", short)) - {"--help-all"}
        assert status == 0 and options < set(re.findall(r"--[\w.-]+", long))

    @pytest.mark.parametrize("preset", ["cpu", "gpu"])
    def test_every_setting_says_what_it_is(self, command, preset):
        _, page, _ = command("train", "--preset", preset, "--help-all")
        text = " ".join(re.sub("[\u2502\u2500]", " ", page).split())
        silent = re.findall(r"--(?:model|train)\.\S+ (?:[A-Z ]+ |\{[^}]*\} )?\(default", text)
        assert not silent

    def test_a_switch_shows_both_of_its_names_and_how_it_stands(self, command):
        for preset in ("cpu", "gpu"):
            _, page, _ = command("train", "--preset", preset, "--help-all")
            text = " ".join(page.replace("\u2502", " ").split())
            stands = PRESETS[preset].model.qk_norm
            told = "--model.qk-norm, --model.no-qk-norm queries and keys are normalized"
            assert f"{told} (default: {stands})" in text


class TestTheEndOfARun:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_it_says_what_to_try(self, preset, tmp_path):
        lines = to_try(PRESETS[preset], tmp_path / "a run")
        commands = [shlex.split(line) for line in lines if line.startswith("  tiny-transformer")]
        assert [words[:2] for words in commands[:3]] == [
            ["tiny-transformer", "sample"],
            ["tiny-transformer", "gallery"],
            ["tiny-transformer", "explore"],
        ]
        for words in commands:
            cli.parse(words[1:])
        assert {cli.parse(words[1:]).run for words in commands[:3]} == {tmp_path / "a run"}
        larger = [cli.parse(words[1:]).preset for words in commands[3:]]
        assert larger == ([LARGER[preset]] if preset in LARGER else [])

    def test_a_larger_run_has_what_is_one_s_own(self, tmp_path):
        settings = replace(PRESETS["smoke"], corpus="my text", mine=True)
        *_, last, _ = to_try(settings, tmp_path)
        larger = cli.parse(shlex.split(last)[1:]).settings
        assert (larger.corpus, larger.mine) == ("my text", True)

    def test_a_shape_of_one_s_own_has_no_larger_preset(self, tmp_path):
        wide = replace(PRESETS["cpu"].model, d_model=64)
        assert len(to_try(replace(PRESETS["cpu"], model=wide), tmp_path)) == 4

    def test_a_trained_preset_is_known_by_its_shape_whatever_the_vocabulary(self, tmp_path):
        other = replace(PRESETS["cpu"].model, vocab_size=90)
        assert "--preset minute" in to_try(replace(PRESETS["cpu"], model=other), tmp_path)[-2]


class TestTheNameAlone:
    @pytest.fixture
    def states(self, monkeypatch):
        def given(*states: str) -> None:
            exercises = [
                SimpleNamespace(
                    file="01_attention/exercises.py", line=i, name=f"part{i}", state=state
                )
                for i, state in enumerate(states)
            ]
            monkeypatch.setattr(guide, "folders", lambda _: ["01_attention"])
            monkeypatch.setattr(guide, "read_exercises", lambda *_: exercises)
            monkeypatch.setattr(guide, "graded", lambda *_: exercises)
            coming = [exercise for exercise in exercises if exercise.state != "solved"]
            monkeypatch.setattr(guide, "next_step", lambda *_: coming[0] if coming else None)

        return given

    @pytest.mark.parametrize(
        "of, said",
        [
            (
                ["not started"] * 2,
                ["0 of 2", "exercises.py:0 part0", "read 01_attention/"],
            ),
            (["solved", "begun"], ["1 of 2", "exercises.py:1 part1", "go on, then run: pytest"]),
            (["solved"] * 2, ["2 of 2", "what you have built", "gallery --mine"]),
        ],
    )
    def test_it_says_in_five_lines_what_to_do_next(self, command, states, of, said):
        states(*of)
        status, page, err = command()
        assert (status, err) == (0, "")
        assert all(part in page for part in said)
        assert len(page.splitlines()) == 5 and max(map(len, page.splitlines())) <= 80
        for line in re.findall(r"tiny-transformer (.*?)  ", page):
            if line != "--help":
                cli.parse(line.split())

    def test_what_is_missing_is_to_be_put_back_first(self, command, states, monkeypatch):
        states("solved")
        monkeypatch.setattr(guide, "next_step", lambda *_: "there is no exercises.py")
        assert command()[1].splitlines()[1] == "there is no exercises.py"
