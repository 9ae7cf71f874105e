"""Your model in other programs, and GPT-2 in yours.

A folder for Hugging Face's `transformers`, a graph for ONNX runtimes, and the way back. The two
GPT-2s differ in names, and in this: Hugging Face keeps the queries', keys' and values' projections
in one matrix, `c_attn`, and stores the matrices of a block as (in, out), where `nn.Linear` has
(out, in).

Shapes: B batch, T positions, vocab_size tokens.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.memory import check_model_fits
from tiny_transformer.engineering.reference import naming, override
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import MODERN, ModelConfig, TinyTransformerLM, in_evaluation

CHOSEN = ("tie_weights", "zero_init")  # by their model as by ours, or of the first weights alone
CLASSIC = ("positions", *(name for name in MODERN if name not in CHOSEN))
FIXED = {  # where Hugging Face leaves a choice, and our model has made it
    "model_type": "gpt2",
    "activation_function": "gelu_new",  # the tanh form
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
SETTINGS = {  # their name: our name, and what they take where it is missing, the smallest GPT-2's
    "vocab_size": ("vocab_size", 50257),
    "n_positions": ("max_len", 1024),
    "n_embd": ("d_model", 768),
    "n_layer": ("n_layers", 12),
    "n_head": ("n_heads", 12),
    "n_inner": ("d_ff", None),  # 4 n_embd
    "tie_word_embeddings": ("tie_weights", True),
    **dict.fromkeys(DROPOUTS, ("dropout", 0.1)),
}
BLOCK = {
    "ln_1": ["ln_1"],
    "attn.c_attn": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    "attn.c_proj": ["attention.out_proj"],
    "ln_2": ["ln_2"],
    "mlp.c_fc": ["feed_forward.up"],
    "mlp.c_proj": ["feed_forward.down"],
}
ABOUT = """# A model from Tiny Transformer

{what} It takes token ids (B, T), T at most {max_len}, and gives logits (B, T, {size}).

A token is one character. Its id is its place, from 0, in the list `characters.json`.
"""


def export_hf(model: TinyTransformerLM, tokenizer: CharTokenizer, out: Path) -> None:
    """Write the folder `out`, from which `GPT2LMHeadModel.from_pretrained` loads this model.

    Raises:
        ValueError: if the model is not a GPT-2, or `out` holds anything.
    """
    for name in CLASSIC:
        value, classic = getattr(model.config, name), getattr(ModelConfig, name)
        if value != classic:
            raise ValueError(
                f"{name} is {value!r}; Hugging Face's GPT-2 has {classic!r} only: use --to onnx, "
                "or train with --preset smoke, whose model is classic, in the size that you like"
            )
    state, tensors = model.state_dict(), {}
    for theirs, ours in names(model.config):
        prefix = "" if theirs == "lm_head.weight" else "transformer."
        fused = torch.cat([state[name] for name in ours])
        tensors[prefix + theirs] = transposed(theirs, fused).contiguous()
    config = {theirs: getattr(model.config, ours) for theirs, (ours, _) in SETTINGS.items()}
    config |= FIXED | {"architectures": ["GPT2LMHeadModel"]}
    config |= {"bos_token_id": None, "eos_token_id": None}  # a text of ours has no ends
    with new_folder(out) as new:
        describe(model, tokenizer, new, "`GPT2LMHeadModel.from_pretrained` loads it.")
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
        (new / "model.safetensors").write_bytes(weights)


def export_onnx(model: TinyTransformerLM, tokenizer: CharTokenizer, out: Path) -> None:
    """Write the folder `out` with the graph `model.onnx`: tokens (B, T), int64, to logits.

    Raises:
        ImportError: if the package that draws the graph is not there.
        ValueError: if `out` holds anything, or the context is too short to draw.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportError("to export to onnx, install onnxscript: pip install -e '.[dev]'")
    if model.config.max_len < 3:
        raise ValueError(f"max_len is {model.config.max_len}; a graph for any T needs at least 3")
    must_be_free(out)  # before the seconds that it takes
    tokens = torch.zeros(2, 2, dtype=torch.long, device=model.head.weight.device)
    with quiet(), in_evaluation(model):
        program = torch.onnx.export(
            model,
            (tokens,),
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_shapes=({0: "B", 1: "T"},),
            verbose=False,
        )
    with new_folder(out) as new:
        describe(model, tokenizer, new, "`onnxruntime` runs `model.onnx`.")
        program.save(new / "model.onnx")


def load_gpt2(folder: Path | str) -> TinyTransformerLM:
    """Hugging Face's GPT-2, from the `config.json` and `model.safetensors` of a folder.

    Within `your_parts()` of `mine.py` it is your own code that runs it (Radford et al. 2019).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: says what makes the checkpoint none of a GPT-2 as ours.
    """
    folder = Path(folder)
    file = folder / "model.safetensors"
    if not file.exists() and (folder / "pytorch_model.bin").exists():
        raise ValueError(
            f"{folder} has its weights in pytorch_model.bin, a pickle, which may run any code "
            "when it is opened; this needs model.safetensors"
        )
    config = read_gpt2_config(folder / "config.json")
    try:
        stored = safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    masks = (".attn.bias", ".attn.masked_bias")  # older folders store the causal mask too
    stored = {n.removeprefix("transformer."): t for n, t in stored.items() if not n.endswith(masks)}
    table, head = stored.get("wte.weight"), stored.get("lm_head.weight")
    if config.tie_weights and table is not None and head is not None and torch.equal(table, head):
        del stored["lm_head.weight"]  # the same again
    model = build(config)
    try:
        state = {}
        for theirs, ours in names(config):
            tensor = transposed(theirs, stored.pop(theirs))
            state |= zip(ours, tensor.tensor_split(len(ours)), strict=True)
        if config.tie_weights:
            state["head.weight"] = state["embedding.token.weight"]
        model.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"{file} has no {error.args[0]}, which its config.json needs") from None
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{file} does not have the shapes of its config.json: {told}") from None
    if stored:
        raise ValueError(f"{file} has {min(stored)}, for which our model has no place")
    return model.eval()


def read_gpt2_config(file: Path) -> ModelConfig:
    """A missing setting has the value that Hugging Face gives it, that of the smallest GPT-2.

    Raises:
        ValueError: names the setting with which the model would compute something else.
    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        theirs = FIXED | {name: default for name, (_, default) in SETTINGS.items()} | told
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a configuration in JSON: {error}") from None
    for name, value in FIXED.items():
        if theirs[name] != value:
            raise ValueError(f"{file}: {name} is {theirs[name]!r}; our GPT-2 has {value!r}")
    if any(theirs[name] != theirs["resid_pdrop"] for name in DROPOUTS):
        raise ValueError(f"{file}: {', '.join(DROPOUTS)} differ; our model has one dropout")
    try:
        if theirs["n_inner"] is None:
            theirs["n_inner"] = 4 * theirs["n_embd"]
        ours = {ours: theirs[name] for name, (ours, _) in SETTINGS.items()}
        config = override(ModelConfig(), ours)
        check_model_fits(RunConfig(model=config))
        return config
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def names(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """Each tensor of a GPT-2 folder, without its prefix, and those of ours that it is made of."""
    yield "wte.weight", ["embedding.token.weight"]
    yield "wpe.weight", ["embedding.position.weight"]
    for layer in range(config.n_layers):
        for theirs, ours in BLOCK.items():
            for kind in ("weight", "bias"):
                yield f"h.{layer}.{theirs}.{kind}", [f"blocks.{layer}.{x}.{kind}" for x in ours]
    yield "ln_f.weight", ["ln_f.weight"]
    yield "ln_f.bias", ["ln_f.bias"]
    if not config.tie_weights:
        yield "lm_head.weight", ["head.weight"]


def transposed(theirs: str, tensor: Tensor) -> Tensor:
    """(out, in) <-> (in, out) where Hugging Face has its Conv1D, whose names begin with c_."""
    return tensor.t() if ".c_" in theirs else tensor  # t() leaves a bias as it is


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter has to say about itself and packages that nobody needs here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def must_be_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {out}, which is no folder; choose a new one")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"out is {out}, which holds other things; choose a new folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the name `out`: all of it is there, or nothing."""
    must_be_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with naming(out), TemporaryDirectory(dir=out.parent, prefix=".unfinished-") as beside:
        new = Path(beside, out.name)
        new.mkdir()
        yield new
        if out.exists():
            out.rmdir()  # it is empty
        new.rename(out)


def describe(model: TinyTransformerLM, tokenizer: CharTokenizer, folder: Path, what: str) -> None:
    """Write what a reader needs to turn text into ids."""
    about = ABOUT.format(what=what, max_len=model.config.max_len, size=tokenizer.vocab_size)
    (folder / "README.md").write_text(about, encoding="utf-8")
    characters = json.dumps(tokenizer.characters, ensure_ascii=False)
    (folder / "characters.json").write_text(characters + "\n", encoding="utf-8")
