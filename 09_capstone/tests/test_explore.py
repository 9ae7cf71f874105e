"""The page that shows a model from inside: what it computes, what it holds, what it refuses.

Its worker runs in a real browser and is asked what PyTorch is asked.
"""

import json
import math
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny_transformer.capstone import explore
from tiny_transformer.capstone.cli import LINE, PRETRAINED
from tiny_transformer.capstone.explore import joined, packed, write_explorer
from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.engineering.config import PRESETS, RunConfig, write_config
from tiny_transformer.engineering.reference import save_checkpoint
from tiny_transformer.sampling.reference import (
    apply_temperature,
    top_k_filter,
    top_p_filter,
    window_start,
)
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig

SMALL = {"max_len": 12, "d_model": 12, "n_layers": 2, "n_heads": 3, "d_ff": 22, "vocab_size": 7}
CLASSIC = ModelConfig(**SMALL)
SWITCHES = {
    "positions": "sinusoidal",
    "norm": "rms",
    "bias": False,
    "tie_weights": False,
    "qk_norm": True,
    "activation": "relu2",
    "token_shift": True,
    "ngrams": 11,
    "zero_init": True,
}
MODELS = {
    "classic": CLASSIC,
    "rope": replace(CLASSIC, positions="rope"),
    **{name: replace(CLASSIC, **{name: value}) for name, value in SWITCHES.items()},
    **{
        name: replace(preset.model, **SMALL, ngrams=min(11, preset.model.ngrams))
        for name, preset in PRESETS.items()
    },
}
ASK = """async ([messages, atOnce]) => {
    const plain = (value) => ArrayBuffer.isView(value) ? [...value] :
        Array.isArray(value) ? value.map(plain) : value;
    const answered = (message) => new Promise((resolve, reject) => {
        worker.onerror = (event) => reject(new Error(event.message));
        const id = (globalThis.asked = (globalThis.asked ?? 0) + 1);
        worker.addEventListener("message", function hear({ data }) {
            if (data.id !== id) return;
            worker.removeEventListener("message", hear);
            resolve(Object.fromEntries(Object.entries(data).map(([k, v]) => [k, plain(v)])));
        });
        worker.postMessage({ id, ...message });
    });
    if (atOnce) return Promise.all(messages.map(answered));
    const replies = [];
    for (const message of messages) replies.push(await answered(message));
    return replies;
}"""


@pytest.fixture(scope="module")
def ask(browser):
    """Sends messages to a worker, each once the one before is answered, and gives its replies."""
    blank = browser.new_page()
    blank.evaluate(
        "source => { globalThis.worker = new Worker(URL.createObjectURL(new Blob([source]))) }",
        joined("worker.js"),
    )
    return lambda *messages, at_once=False: blank.evaluate(ASK, [messages, at_once])


def random_model(config: ModelConfig) -> nn.Module:
    """A model with weights that all matter, in bfloat16's values."""
    model = build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter, mean=float("ln_" in name), std=0.5)
            parameter.copy_(parameter.bfloat16())
    return model


def load(model: nn.Module, kind: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    weights = packed(model, model.state_dict(), kind)
    return {"kind": "load", "data": {"config": vars(model.config), "weights": [weights]}}


def read(tokens: Tensor, **options: Any) -> dict[str, Any]:
    return {"kind": "read", "tokens": tokens.tolist(), **options}


def random_tokens(length: int) -> Tensor:
    return torch.randint(SMALL["vocab_size"], (length,))


@torch.no_grad()
def agrees(model: nn.Module, tokens: Tensor, reply: dict[str, Any]) -> bool:
    """Whether a reply has the logits and attention that PyTorch computes for these tokens."""
    start = window_start(len(tokens), model.config.max_len)
    window = tokens[None, start:]
    logits = torch.tensor(reply["logits"], dtype=torch.float32).view(-1, model.config.vocab_size)
    attention = torch.cat(attention_maps(model, window))  # (n_layers, n_heads, T, T)
    ours = torch.tensor(reply["attention"], dtype=torch.float32).view(attention.shape)
    return (
        reply["start"] == start
        and torch.allclose(logits, model(window)[0], rtol=0, atol=1e-4)
        and torch.allclose(ours, attention, rtol=0, atol=1e-4)
    )


class TestTheModelInThePage:
    @pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
    def test_its_numbers_are_pytorchs_with_and_without_its_cache_and_past_the_context(
        self, ask, config
    ):
        model, tokens = random_model(config), random_tokens(config.max_len + 8)
        texts = [tokens[:end] for end in (1, 2, 3, 10, 11, 12, 13, 14, 18, 19, 20)]
        _, *growing = ask(load(model), *map(read, texts))
        assert all(map(partial(agrees, model), texts, growing))
        _, whole = ask(load(model), read(tokens))
        assert whole["cached"] == 0 and agrees(model, tokens, whole)

    def test_the_model_in_the_box_reads_a_line_as_pytorch_does(self, ask):
        model, tokenizer = load_run(PRETRAINED)
        tokens = torch.tensor(tokenizer.encode("\n\nROMEO:\nBut, soft! what light"))
        assert agrees(model, tokens, ask(load(model), read(tokens))[1])

    def test_no_score_is_too_large_for_its_softmax(self, ask):
        model, tokens = random_model(CLASSIC), random_tokens(12)
        for block in model.blocks:
            block.attention.q_proj.weight.data *= 1000
        assert agrees(model, tokens, ask(load(model), read(tokens))[1])

    def test_float32_weights_arrive_as_they_are(self, ask):
        model = random_model(CLASSIC)
        for parameter in model.parameters():
            parameter.data += 1e-4 * torch.randn_like(parameter)
        tokens = random_tokens(12)
        assert agrees(model, tokens, ask(load(model, torch.float32), read(tokens))[1])

    def test_what_has_been_read_costs_nothing_again(self, ask):
        tokens = random_tokens(12)
        other = tokens.clone()
        other[8] = (other[8] + 1) % SMALL["vocab_size"]
        model = random_model(CLASSIC)
        _, first, longer, edited, same = ask(
            load(model), read(tokens[:11]), read(tokens), read(other), read(other)
        )
        assert [r["cached"] for r in (first, longer, edited, same)] == [0, 11, 8, 12]
        d, d_ff, layers = SMALL["d_model"], SMALL["d_ff"], SMALL["n_layers"]
        one = layers * (4 * d * d + 2 * d * d_ff + 2 * 12 * d) + d * SMALL["vocab_size"]
        assert longer["multiplications"] == one and same["multiplications"] == 0
        assert agrees(model, other, edited) and agrees(model, other, same)

    def test_a_newer_text_ends_the_reading_of_an_older_one(self, ask):
        long = replace(CLASSIC, max_len=512)
        model, tokens = random_model(long), random_tokens(512)
        ask(load(model))
        texts = tokens, tokens[1:], tokens[:9]
        *older, newest = ask(*map(read, texts), at_once=True)
        assert [reply["kind"] for reply in older] == ["cancelled", "cancelled"]
        assert agrees(model, texts[-1], newest)

    def test_what_is_off_adds_nothing_and_the_whole_model_is_remembered(self, ask):
        model, tokens = random_model(CLASSIC), random_tokens(12)
        off = {"heads": [[0, 1], [1, 2]], "mlps": [1]}
        _, _, cut, whole, same, other = ask(
            load(model),
            read(tokens),
            read(tokens, off=off),
            read(tokens),
            read(tokens, off=off),
            read(tokens, off={"heads": [[0, 0]], "mlps": []}),
        )
        assert whole["cached"] == same["cached"] == 12 and other["cached"] == 0
        assert agrees(model, tokens, whole)
        with torch.no_grad():
            for layer, head in off["heads"]:
                at = slice(4 * head, 4 * head + 4)
                model.blocks[layer].attention.out_proj.weight[:, at] = 0
            model.blocks[1].feed_forward.down.weight.zero_()
            model.blocks[1].feed_forward.down.bias.zero_()
        assert agrees(model, tokens, cut)

    @torch.no_grad()
    def test_the_inside_of_a_position_is_what_each_layer_leaves_and_each_part_adds(self, ask):
        model, tokens = random_model(CLASSIC), random_tokens(16)
        at = 13  # in a window that has moved on
        start = window_start(len(tokens), CLASSIC.max_len)
        looks = [{"kind": "inside", "at": place} for place in (start, at, start - 1)]
        _, _, _, inside, outside, longer = ask(load(model), read(tokens[:-1]), *looks, read(tokens))
        assert outside["message"] == f"position {start - 1} is not in the window that was read"
        assert longer["cached"] == len(tokens) - 1 - start and agrees(model, tokens, longer)
        seen = {"stream": [], "attention": [], "mlp": []}

        def keep(name: str):
            return lambda _, __, out: seen[name].append(out[0, -1])

        model.embedding.register_forward_hook(keep("stream"))
        for block in model.blocks:
            block.register_forward_hook(keep("stream"))
            block.attention.register_forward_hook(keep("attention"))
            block.feed_forward.register_forward_hook(keep("mlp"))
        model(tokens[None, start : at + 1])
        spoken = [model.head(model.ln_f(x)).softmax(-1) for x in seen["stream"]]
        assert np.allclose(inside["lens"], torch.stack(spoken), atol=1e-5)
        for name, lengths in (("stream", "norms"), ("attention", "attention"), ("mlp", "mlp")):
            assert np.allclose(inside[lengths], [x.norm() for x in seen[name]], rtol=1e-5)


class TestDrawing:
    @pytest.mark.parametrize(
        "temperature, top_k, top_p",
        [
            (1, None, None),
            (0.5, 3, None),
            (2, None, 0.6),
            (0.8, 4, 0.5),
            (1, 99, 1),
            (0, 2, 0.1),
        ],
    )
    @torch.no_grad()
    def test_the_rules_leave_what_module_07_leaves(self, ask, temperature, top_k, top_p):
        model, tokens = random_model(CLASSIC), random_tokens(5)
        rules = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        message = {"kind": "draw", "tokens": tokens.tolist(), "seed": 1, "step": 0, **rules}
        _, drawn = ask(load(model), message)
        logits = model(tokens[None])[0, -1]
        if temperature == 0:
            expected = nn.functional.one_hot(logits.argmax(), len(logits)).float()
        else:
            scores = apply_temperature(logits, temperature)
            scores = scores if top_k is None else top_k_filter(scores, top_k)
            expected = (scores if top_p is None else top_p_filter(scores, top_p)).softmax(-1)
        assert np.allclose(drawn["probabilities"], expected, atol=1e-5)
        assert drawn["kept"] == (expected > 0).tolist() == [not rule for rule in drawn["cut"]]
        assert drawn["chance"] == drawn["probabilities"][drawn["token"]] > 0

    def test_near_temperature_0_the_likeliest_is_all_but_certain(self, ask):
        model = random_model(CLASSIC)
        message = {"kind": "draw", "tokens": [0], "seed": 1, "step": 0}
        _, cold, greedy = ask(
            load(model), {**message, "temperature": 1e-300}, {**message, "temperature": 0}
        )
        assert cold["probabilities"] == greedy["probabilities"]

    def test_of_equal_scores_top_k_keeps_all_and_top_p_the_fewest(self, ask):
        model = random_model(replace(CLASSIC, vocab_size=4))
        model.head.weight.data.zero_()
        message = {"kind": "draw", "tokens": [0], "seed": 1, "step": 0}
        _, most, fewest = ask(load(model), {**message, "top_k": 1}, {**message, "top_p": 0.5})
        assert sum(most["kept"]) == 4 and sum(fewest["kept"]) == 2

    def test_a_seed_draws_the_same_on_every_machine_and_each_character_as_often_as_it_should(
        self, ask
    ):
        model, tokens = random_model(CLASSIC), random_tokens(5)
        message = {"kind": "draw", "tokens": tokens.tolist(), "temperature": 1}
        steps = [{**message, "seed": 7, "step": step} for step in range(500)]
        _, *drawn = ask(load(model), *steps)
        probabilities = drawn[0]["probabilities"]
        bounds = np.cumsum(probabilities)
        assert [r["token"] for r in drawn] == [
            int(np.searchsorted(bounds, uniform(7, step), side="right")) for step in range(500)
        ]
        counts = np.bincount([reply["token"] for reply in drawn], minlength=len(probabilities))
        assert np.abs(counts / 500 - probabilities).max() < 4 * math.sqrt(0.25 / 500)

    def test_without_the_cache_everything_is_read_again(self, ask):
        model, tokens = random_model(CLASSIC), random_tokens(10).tolist()
        message = {"kind": "draw", "tokens": tokens, "seed": 1, "step": 0}
        _, first, cached, again, after = ask(
            load(model), message, message, {**message, "cache": False}, message
        )
        assert cached["multiplications"] == after["multiplications"] == 0
        assert again["multiplications"] == first["multiplications"] > 0
        assert first["cache"] == {"filled": 10, "of": 12}
        assert again["cache"] == {"filled": 0, "of": 12}
        assert again["token"] == first["token"]


class TestTheFile:
    @pytest.fixture
    def run(self, tmp_path) -> Path:
        """The least that is a run: settings and its best weights, which are those of a stranger."""
        return make_run(tmp_path / "run")

    def test_it_asks_for_nothing_and_breaks_none_of_its_own_rules(self, browser, run, tmp_path):
        write_explorer(run, tmp_path / "page.html", "a", lambda _: ["abc"])
        tab = browser.new_page()
        seen = []
        tab.on("request", lambda request: seen.append(request.url))
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.add_init_script(
            "addEventListener('securitypolicyviolation', ({blockedURI}) => console.log(blockedURI))"
        )
        tab.goto((tmp_path / "page.html").as_uri())
        tab.wait_for_timeout(300)
        urls = ("file://", "blob:")
        assert seen and not [told for told in seen if not told.startswith(urls)]
        tab.evaluate("fetch('https://example.org').catch(() => {})")  # so that the rules are there
        tab.wait_for_timeout(50)
        assert any("example.org" in told for told in seen[2:])
        tab.close()

    def test_a_run_has_no_markup(self, tmp_path):
        characters = "".join(sorted('</script>!-"&'))
        run = make_run(tmp_path / "<img onerror=alert(1)>", characters)
        text = written(run, title="</title><script>alert(1)</script>")
        assert "<img" not in text and "alert(1)</script>" not in text
        assert text.count("<script") == text.count("</script>") == 3 and "<!--" not in text
        assert data_of(text)["characters"] == list(characters)

    @pytest.mark.parametrize("kind", ["bfloat16", "float32"])
    def test_weights_are_written_as_the_run_has_them(self, tmp_path, kind):
        data = data_of(written(make_run(tmp_path / "run", kind=getattr(torch, kind))))
        assert [weights["kind"] for weights in data["weights"]] == [kind]
        assert data["said"] == [f"The weights are in {kind}, as the run has them."]

    def test_where_earlier_moments_are_rounded_it_is_said(self, tmp_path):
        run = make_run(tmp_path / "run", kind=torch.float32)
        save_checkpoint(run / "snapshots" / "step-000001", state_of(1, kind=torch.float32))
        data = data_of(written(run))
        assert [weights["kind"] for weights in data["weights"]] == ["bfloat16", "float32"]
        assert data["said"][1:] == ["Those of earlier moments are in bfloat16."]

    def test_large_ones_are_rounded_and_it_is_said(self, run, monkeypatch):
        monkeypatch.setattr(explore, "FLOAT32_UP_TO", 1000)
        data = data_of(written(make_run(run, kind=torch.float32)))
        assert [weights["kind"] for weights in data["weights"]] == ["bfloat16"]
        assert "rounded to bfloat16" in data["said"][0]

    def test_the_moments_of_training_come_first_and_their_losses_are_those_of_the_metrics(
        self, run
    ):
        for step in (1, 10, 50, 200):  # the run's own model is of step 100
            save_checkpoint(run / "snapshots" / f"step-{step:06}", state_of(step))
        records = [{"step": s, "train_loss": 3.0, "val_loss": 2.0, "sample": "a"} for s in (10, 20)]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (run / "metrics.jsonl").write_text(lines, encoding="utf-8")
        data = data_of(written(run))
        assert [moment["step"] for moment in data["snapshots"]] == [1, 10, 50, 100]
        assert [moment["val_loss"] for moment in data["snapshots"]] == [None, 2.0, None, 1.5]
        assert len(data["weights"]) == 4 and data["losses"] == [[10, 2.0], [20, 2.0]]

    def test_where_not_all_moments_fit_those_that_do_are_spread_and_it_is_said(
        self, run, monkeypatch
    ):
        for step in range(1, 10):
            save_checkpoint(run / "checkpoints" / f"step-{step:06}", state_of(step))
        assert [m["step"] for m in data_of(written(run))["snapshots"]] == [1, 2, 4, 5, 6, 8, 9, 100]
        whole, one = len(written(run)), len(data_of(written(run))["weights"][0]["data"])
        monkeypatch.setattr(explore, "LARGEST", whole - 3 * one)
        text = written(run)
        assert len(text) <= explore.LARGEST
        assert [moment["step"] for moment in data_of(text)["snapshots"]] == [1, 4, 5, 8, 100]
        assert "Of 8 moments of its training 5 are here" in data_of(text)["said"][-1]

    def test_a_model_that_is_too_large_gets_a_sentence_and_no_page(self, run, command, monkeypatch):
        monkeypatch.setattr(explore, "LARGEST", 1000)
        status, out, err = command("explore", "--run", run, "--no-open")
        assert (status, out) == (1, "") and "MB, and it may have" in err
        assert not list(run.glob("*.html"))

    @pytest.mark.parametrize("kind", ["fifo", "text", "folder"])
    def test_what_is_no_page_stays_as_it_is(self, run, command, tmp_path, kind):
        out = tmp_path / "there"
        make = {"fifo": os.mkfifo, "text": lambda out: out.write_bytes(b"mine"), "folder": os.mkdir}
        make[kind](out)
        before = out.stat()
        status, told, err = command("explore", "--run", run, "--no-open", "--out", out)
        assert (status, told) == (1, "") and f"out is {out}, which is" in err and "\n" not in err
        after = out.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_a_slash_at_its_end_means_a_folder_and_an_older_page_is_replaced(
        self, run, command, tmp_path
    ):
        for _ in range(2):
            status, out, _ = command(
                "explore", "--run", run, "--no-open", "--out", f"{tmp_path}/a/"
            )
            assert status == 0 and out == f"{tmp_path}/a/explore.html\n"

    def test_a_snapshot_that_is_a_file_is_said_to_be_none(self, run, command):
        (run / "snapshots").mkdir()
        (run / "snapshots" / "step-000001").touch()
        status, _, err = command("explore", "--run", run, "--no-open")
        assert status == 1 and "step-000001 is no folder" in err

    @pytest.mark.parametrize("file", ["best/model.safetensors", "best/state.json", "config.toml"])
    def test_a_truncated_run_gets_a_sentence_and_no_page(self, run, command, file):
        (run / file).write_bytes((run / file).read_bytes()[:-9])
        status, out, err = command("explore", "--run", run, "--no-open")
        assert (status, out) == (1, "")
        assert err.startswith("tiny-transformer: ") and str(run) in err and "\n" not in err
        assert not list(run.glob("*.html"))

    @pytest.mark.parametrize(
        "change, said",
        [
            ({"characters": "bca"}, "no vocabulary"),
            ({"characters": "abcdefgh"}, "is not of this run"),
            ({"model": {}}, "has no 'embedding.token.weight'"),
            ({"step": "<b>"}, "step is '<b>'"),
            ({"val_loss": math.nan}, "val_loss is not finite"),
            ({"step": -1}, "step is -1"),
            ({"val_loss": -5.0}, "val_loss is -5.0"),
            ({"val_loss": 1e300}, "val_loss is 1e+300"),
            ({"val_loss": "</script>"}, "val_loss is '</script>'"),
            ({"settings": {"model.n_layers": 3}}, "was made with model.n_layers = 3"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("which", ["best", "snapshots/step-000001"])
    def test_a_forged_checkpoint_gets_a_sentence_and_no_page(
        self, run, command, which, change, said
    ):
        if which != "best" and "characters" in change:
            return  # a page has those of the run's own model alone
        save_checkpoint(run / which, {**state_of(1), **change})
        status, out, err = command("explore", "--run", run, "--no-open")
        assert (status, out) == (1, "") and said in err and "\n" not in err
        assert not list(run.glob("*.html"))

    def test_the_model_in_the_box_fits_and_knows_where_it_comes_from(
        self, command, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        opened = []
        monkeypatch.setattr(explore.webbrowser, "open", opened.append)
        monkeypatch.setenv("DISPLAY", ":0")
        status, out, err = command("explore")
        file = tmp_path / "runs" / "explore.html"
        assert status == 0 and out == f"{file.relative_to(tmp_path)}\n" and "not trained yet" in err
        assert opened == [file.as_uri()]
        data = data_of(file.read_text(encoding="utf-8"))
        assert data["run"]["preset"] == "small" and data["examples"] == [LINE]
        assert file.stat().st_size <= 20_000_000

    def test_sources_in_two_files_have_names_of_their_own(self):
        for entry in ("page.js", "worker.js"):
            names = re.findall(
                r"^(?:async )?(?:const|let|function\*?|class) (\w+)", joined(entry), re.M
            )
            assert len(names) == len({*names})


def make_run(folder: Path, characters: str = "abcdefg", kind: torch.dtype = torch.bfloat16) -> Path:
    folder.mkdir(exist_ok=True)
    config = replace(CLASSIC, vocab_size=len(characters))
    write_config(folder / "config.toml", RunConfig(model=config))
    save_checkpoint(folder / "best", state_of(100, characters, kind))
    return folder


def state_of(
    step: int, characters: str = "abcdefg", kind: torch.dtype = torch.bfloat16
) -> dict[str, Any]:
    model = build(replace(CLASSIC, vocab_size=len(characters)))
    weights = {name: weight.to(kind) for name, weight in model.state_dict().items()}
    evaluated = {"val_loss": 1.5} if step == 100 else {}
    return {"step": step, "characters": characters, "model": weights, **evaluated}


def written(run: Path, title: str = "a run") -> str:
    write_explorer(run, run / "explore.html", title, lambda _: ["a"])
    return (run / "explore.html").read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*)</script>', text)[1]
    )


def uniform(seed: int, step: int) -> float:
    """mulberry32, once more."""

    def times(a: int, b: int) -> int:
        return a * b % 2**32

    a = (times(seed, 0x9E3779B9) + times(step + 1, 0x6D2B79F5)) % 2**32
    a = times(a ^ a >> 15, a | 1)
    a ^= (a + times(a ^ a >> 7, a | 61)) % 2**32
    return (a ^ a >> 14) / 2**32
