"""The classic model beside GPT-2 in Hugging Face's `transformers`, whose import takes seconds."""

import pytest
import torch

from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig


@pytest.mark.parametrize("tie_weights", [True, False])
def test_the_classic_configuration_is_gpt_2(tie_weights):
    transformers = pytest.importorskip("transformers", reason="pip install -e .[dev] brings it")
    config = ModelConfig(tie_weights=tie_weights)
    ours = build(config).eval()
    for parameter in ours.parameters():  # a scale of 1 or a bias of 0 would hide its absence
        parameter.data += torch.randn_like(parameter) / 4
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.max_len,
            n_embd=config.d_model,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            n_inner=config.d_ff,
            activation_function="gelu_new",
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            tie_word_embeddings=tie_weights,
        )
    ).eval()
    theirs.load_state_dict(as_gpt2(ours))
    tokens = torch.randint(config.vocab_size, (3, config.max_len))
    with torch.no_grad():
        got, wanted = ours(tokens), theirs(tokens).logits
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


def as_gpt2(model):
    """The weights of a classic model under the names and in the layout of Hugging Face's GPT-2."""
    ours = model.state_dict()
    theirs = {
        "transformer.wte.weight": ours["embedding.token.weight"],
        "transformer.wpe.weight": ours["embedding.position.weight"],
        "transformer.ln_f.weight": ours["ln_f.weight"],
        "transformer.ln_f.bias": ours["ln_f.bias"],
        "lm_head.weight": ours["head.weight"],
    }
    for layer in range(len(model.blocks)):
        source, target = f"blocks.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            qkv = [ours[f"{source}attention.{name}_proj.{kind}"] for name in "qkv"]
            matrices = {
                "attn.c_attn": torch.cat(qkv),
                "attn.c_proj": ours[f"{source}attention.out_proj.{kind}"],
                "mlp.c_fc": ours[f"{source}feed_forward.up.{kind}"],
                "mlp.c_proj": ours[f"{source}feed_forward.down.{kind}"],
            }
            for name, value in matrices.items():
                theirs[f"{target}{name}.{kind}"] = value.T if kind == "weight" else value
            for norm in ("ln_1", "ln_2"):
                theirs[f"{target}{norm}.{kind}"] = ours[f"{source}{norm}.{kind}"]
    return theirs
