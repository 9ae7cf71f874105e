"""The way out, to Hugging Face's `transformers` and to ONNX, and the way in, from a GPT-2."""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_transformer.capstone.interchange import export_hf, export_onnx, load_gpt2
from tiny_transformer.capstone.mine import swapped
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import RunConfig, write_config
from tiny_transformer.engineering.reference import save_checkpoint
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM

DEV = "pip install -e .[dev] brings it"
TEXT = "to be or not\nü"
CLASSIC = ModelConfig(vocab_size=len(set(TEXT)), max_len=16, d_model=16, n_layers=2, n_heads=2)
MODERN = dict(norm="rms", bias=False, qk_norm=True, token_shift=True, ngrams=13, activation="relu2")
ROPE = replace(CLASSIC, positions="rope", **MODERN)
SHAPES = [(1, 1), (3, 7), (2, 16), (5, 1)]


def random_model(config: ModelConfig) -> TinyTransformerLM:
    """Without zeros among the biases or ones among the norms, which could stand in for others."""
    torch.manual_seed(0)
    model = build(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_tokens(config: ModelConfig, shape: tuple[int, int]) -> torch.Tensor:
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokenizer():
    return CharTokenizer(TEXT)


@pytest.fixture
def folder(tokenizer, tmp_path):
    """The classic model as a Hugging Face folder."""
    export_hf(random_model(CLASSIC), tokenizer, tmp_path / "gpt2")
    return tmp_path / "gpt2"


VARIANTS = {
    "classic": CLASSIC,
    "untied": replace(CLASSIC, tie_weights=False, n_layers=3, n_heads=4),
    "narrow": replace(CLASSIC, d_ff=24, n_heads=1, dropout=0.2),
}
variants = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


class TestExportHf:
    @variants
    def test_transformers_loads_it_and_gives_the_same_logits(self, config, tokenizer, tmp_path):
        transformers = pytest.importorskip("transformers", reason=DEV)
        model = random_model(config)
        export_hf(model, tokenizer, tmp_path / "out")
        theirs, told = transformers.GPT2LMHeadModel.from_pretrained(
            tmp_path / "out", output_loading_info=True, local_files_only=True
        )
        assert not any(told.values())  # nothing was missing, left over or of another shape
        for shape in SHAPES:
            tokens = random_tokens(config, shape)
            torch.testing.assert_close(
                theirs.eval()(tokens).logits, model(tokens), rtol=0, atol=1e-5
            )

    @variants
    def test_what_went_out_comes_back_to_the_bit(self, config, tokenizer, tmp_path):
        model = random_model(config)
        export_hf(model, tokenizer, tmp_path / "out")
        back = load_gpt2(tmp_path / "out")
        assert back.config == config
        assert back.state_dict().keys() == model.state_dict().keys()
        for name, tensor in back.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name
        assert (back.head.weight is back.embedding.token.weight) == config.tie_weights

    def test_it_needs_no_transformers(self, tokenizer, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        export_hf(random_model(CLASSIC), tokenizer, tmp_path / "out")
        assert load_gpt2(tmp_path / "out").config == CLASSIC

    def test_the_ids_of_the_characters_go_with_it(self, folder, tokenizer):
        characters = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
        assert [characters.index(c) for c in TEXT] == tokenizer.encode(TEXT)
        assert "characters.json" in (folder / "README.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        "change, sentence",
        [
            (dict(positions="rope"), "positions is 'rope'.*'learned' only: use --to onnx"),
            (dict(positions="sinusoidal"), "positions is 'sinusoidal'"),
            (dict(norm="rms"), "norm is 'rms'"),
            (dict(bias=False), "bias is False"),
            (dict(qk_norm=True), "qk_norm is True"),
            (dict(activation="relu2"), "activation is 'relu2'"),
            (dict(token_shift=True), "token_shift is True"),
            (dict(ngrams=13), "ngrams is 13"),
        ],
    )
    def test_what_gpt2_does_not_have_is_named(self, tokenizer, tmp_path, change, sentence):
        with pytest.raises(ValueError, match=sentence):
            export_hf(random_model(replace(CLASSIC, **change)), tokenizer, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", [export_hf, export_onnx])
class TestTheFolder:
    def test_what_is_there_is_never_overwritten(self, export, tokenizer, tmp_path):
        if export is export_onnx:
            pytest.importorskip("onnxscript", reason=DEV)
        (tmp_path / "config.json").write_text("mine", encoding="utf-8")
        for out, told in (
            (tmp_path, "holds other things"),
            (tmp_path / "config.json", "no folder"),
        ):
            with pytest.raises(ValueError, match=f"{told}; choose a new"):
                export(random_model(CLASSIC), tokenizer, out)
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
        assert (tmp_path / "config.json").read_text(encoding="utf-8") == "mine"

    def test_a_full_disk_is_named_and_leaves_nothing_in_the_way(
        self, export, tokenizer, tmp_path, monkeypatch
    ):
        if export is export_onnx:
            pytest.importorskip("onnxscript", reason=DEV)

        def write_text(path, *_, **__):
            path.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", write_text)
            patch.setattr(torch.onnx, "export", lambda *_, **__: None)  # takes seconds
            with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'out'}'"):
                export(random_model(CLASSIC), tokenizer, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        if export is export_hf:
            export(random_model(CLASSIC), tokenizer, tmp_path / "out")
            assert load_gpt2(tmp_path / "out").config == CLASSIC


class TestLoadGpt2:
    @pytest.mark.parametrize(
        "settings",
        [
            dict(),
            dict(tie_word_embeddings=False, n_layer=3),
            dict(n_inner=20, n_head=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        ],
        ids=["plain", "untied", "narrow"],
    )
    def test_a_hugging_face_gpt2_gives_the_same_logits(self, tmp_path, settings):
        transformers = pytest.importorskip("transformers", reason=DEV)
        torch.manual_seed(0)
        sizes = dict(vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=2)
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes | settings))
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        theirs.eval().save_pretrained(tmp_path)
        model = load_gpt2(tmp_path)
        assert not model.training
        for shape in SHAPES:
            tokens = random_tokens(model.config, shape)
            torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)

    def test_a_trunk_without_a_head_is_loaded_too(self, tmp_path):
        transformers = pytest.importorskip("transformers", reason=DEV)
        config = transformers.GPT2Config(
            vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=2
        )
        theirs = transformers.GPT2Model(config).eval()
        theirs.save_pretrained(tmp_path)
        model = load_gpt2(tmp_path)
        tokens = random_tokens(model.config, (2, 9))
        expected = theirs(tokens).last_hidden_state @ theirs.wte.weight.T
        torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-5)

    def test_the_masks_of_old_folders_and_a_second_copy_of_the_head_change_nothing(self, folder):
        before = load_gpt2(folder).state_dict()
        tensors = load_file(folder / "model.safetensors")
        for layer in range(CLASSIC.n_layers):
            tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        save_file(tensors, folder / "model.safetensors")
        for name, tensor in load_gpt2(folder).state_dict().items():
            assert torch.equal(tensor, before[name]), name

    def test_half_precision_becomes_single(self, folder):
        tensors = load_file(folder / "model.safetensors")
        save_file({n: t.half() for n, t in tensors.items()}, folder / "model.safetensors")
        assert {p.dtype for p in load_gpt2(folder).parameters()} == {torch.float32}

    def test_settings_left_out_are_those_of_the_smallest_gpt2(self, folder):
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        for name in ("n_inner", "tie_word_embeddings", "activation_function"):
            del config[name]
        file.write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(ValueError, match="shapes of its config.json"):  # 4 x 16 is not 512
            load_gpt2(folder)

    def test_a_learner_s_own_model_runs_it(self, folder):
        class Mine(TinyTransformerLM):
            pass

        with swapped({TinyTransformerLM: Mine}):
            model = load_gpt2(folder)
        assert type(model) is Mine
        tokens = random_tokens(CLASSIC, (2, 5))
        assert torch.equal(model(tokens), random_model(CLASSIC)(tokens))

    @pytest.mark.parametrize(
        "change, sentence",
        [
            (dict(model_type="llama"), "model_type is 'llama'; our GPT-2 has 'gpt2'"),
            (dict(activation_function="relu"), "activation_function is 'relu'"),
            (dict(layer_norm_epsilon=1e-6), "layer_norm_epsilon is 1e-06"),
            (dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is True"),
            (dict(attn_pdrop=0.5), "resid_pdrop, embd_pdrop, attn_pdrop differ"),
            (dict(n_head=3), "n_heads is 3; it must divide d_model"),
            (dict(n_layer="two"), "n_layers is 'two'; it must be of type int"),
            (dict(n_embd=None, n_inner=None), "config.json: "),
            (dict(n_layer=10**9), "config.json: model.n_layers is 1000000000; the model takes at"),
            (dict(n_embd=10**30), "config.json: "),
            (dict(n_layer=3), r"has no h\.2\.ln_1\.weight"),
            (dict(n_layer=1), r"has h\.1\.attn\.c_attn\.bias, for which our model has no place"),
            (dict(vocab_size=5), "shapes of its config.json: .*embedding.token.weight"),
            (dict(tie_word_embeddings=False), r"has no lm_head\.weight"),
        ],
    )
    def test_a_setting_that_does_not_fit_is_named(self, folder, change, sentence):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        with pytest.raises(ValueError, match=sentence):
            load_gpt2(folder)

    def test_a_head_of_its_own_is_not_lost(self, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(ValueError, match="has lm_head.weight, for which"):
            load_gpt2(folder)

    def test_a_pickle_is_never_opened(self, folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match="a pickle, which may run any code"):
            load_gpt2(folder)

    def test_a_damaged_or_missing_file_is_named(self, folder):
        (folder / "model.safetensors").write_bytes(b"cut")
        with pytest.raises(ValueError, match="model.safetensors is damaged"):
            load_gpt2(folder)
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="model.safetensors"):
            load_gpt2(folder)
        (folder / "config.json").write_text("[", encoding="utf-8")
        with pytest.raises(ValueError, match="config.json is not a configuration in JSON"):
            load_gpt2(folder)
        (folder / "config.json").unlink()
        with pytest.raises(FileNotFoundError, match="config.json"):
            load_gpt2(folder)


def assert_graph_is_the_model(out: Path, model: TinyTransformerLM) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason=DEV)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    for shape in SHAPES:
        tokens = random_tokens(model.config, shape)
        (logits,) = session.run(["logits"], {"tokens": tokens.numpy()})
        torch.testing.assert_close(torch.tensor(logits), model(tokens), rtol=0, atol=1e-4)


class TestExportOnnx:
    def test_onnxruntime_gives_the_same_logits_and_the_model_stays_in_training(
        self, tokenizer, tmp_path
    ):
        pytest.importorskip("onnxscript", reason=DEV)
        model = random_model(replace(CLASSIC, n_layers=1, dropout=0.5)).train()
        (tmp_path / "out").mkdir()  # empty, and so free
        export_onnx(model, tokenizer, tmp_path / "out")
        assert all(module.training for module in model.modules())
        assert_graph_is_the_model(tmp_path / "out", model.eval())

    def test_without_the_package_it_says_what_to_install(self, tokenizer, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(ImportError, match="install onnxscript: pip install"):
            export_onnx(random_model(CLASSIC), tokenizer, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_context_too_short_to_draw_is_named(self, tokenizer, tmp_path):
        pytest.importorskip("onnxscript", reason=DEV)
        with pytest.raises(ValueError, match="max_len is 2"):
            export_onnx(random_model(replace(CLASSIC, max_len=2)), tokenizer, tmp_path / "out")


@pytest.fixture
def export(command):
    """Runs `tiny-transformer export ARGS`; gives exit status and all that was printed."""

    def run_command(*args) -> tuple[int, str]:
        status, *printed = command("export", *args)
        return status, " ".join("".join(printed).replace("\u2502", " ").split())

    return run_command


@pytest.fixture
def run(tmp_path):
    """A function that makes a run folder with a model of this shape, which nobody trained."""

    def make(config: ModelConfig):
        model, folder = random_model(config), tmp_path / "run"
        state = {"characters": "".join(sorted(set(TEXT))), "model": model.state_dict()}
        save_checkpoint(folder / "best", state)
        write_config(folder / "config.toml", RunConfig(model=config))
        return folder

    return make


class TestCommandLine:
    def test_a_run_becomes_a_folder_that_load_gpt2_reads(self, export, run, tmp_path):
        out = tmp_path / "out"
        status, printed = export("--run", run(CLASSIC), "--to", "hf", "--out", out)
        assert status == 0 and str(out) in printed
        tokens = random_tokens(CLASSIC, (2, 5))
        assert torch.equal(load_gpt2(out)(tokens), random_model(CLASSIC)(tokens))

    def test_a_run_of_a_modern_model_becomes_a_graph(self, export, run, tmp_path):
        pytest.importorskip("onnxscript", reason=DEV)
        out, shallow = tmp_path / "out", replace(ROPE, n_layers=1)
        assert export("--run", run(shallow), "--to", "onnx", "--out", out)[0] == 0
        assert_graph_is_the_model(out, random_model(shallow))
        assert {path.name for path in out.iterdir()} == {
            "README.md",
            "characters.json",
            "model.onnx",
        }

    @pytest.mark.parametrize(
        "args, sentence",
        [
            (["--to", "hf", "--out", "OUT"], "positions is 'rope'"),
            (["--to", "hf", "--out", "OUT", "--run", "NOWHERE"], "no run at NOWHERE"),
            (["--to", "pickle", "--out", "OUT"], "pickle"),
            (["--to", "onnx"], "--out"),
        ],
    )
    def test_a_mistake_is_one_sentence(self, export, run, tmp_path, monkeypatch, args, sentence):
        monkeypatch.chdir(tmp_path)
        status, printed = export("--run", run(ROPE), *args)
        assert status != 0 and sentence in printed and "Traceback" not in printed
        assert not (tmp_path / "OUT").exists()

    def test_a_full_folder_is_refused_in_a_sentence(self, export, run, tmp_path):
        folder = run(CLASSIC)
        status, printed = export("--run", folder, "--to", "hf", "--out", folder)
        assert status == 1 and "choose a new folder" in printed
        assert not (folder / "model.safetensors").exists()
