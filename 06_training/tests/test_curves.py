"""What is said of a run's losses, tried on runs that go wrong in the ways it speaks of."""

import math

import pytest
import torch

from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.curves import explain_curve
from tiny_transformer.training.reference import (
    TrainConfig,
    evaluate,
    make_optimizer,
    training_steps,
)

V = 8


@pytest.fixture
def model():
    return TinyTransformerLM(
        ModelConfig(vocab_size=V, max_len=8, d_model=16, n_layers=1, n_heads=2, d_ff=32)
    )


def words(n: int, generator: torch.Generator) -> torch.Tensor:
    """A text that can be learned in part: of every two tokens the second follows from the first."""
    first = torch.randint(V, (n,), generator=generator)
    return torch.stack((first, (3 * first + 1) % V), dim=1).flatten()


def run(model, steps=60, train_tokens=600, **settings):
    """The records of a short run, evaluated every 20 steps."""
    generator = torch.Generator().manual_seed(1)
    config = TrainConfig(**{"max_steps": steps, "warmup_steps": 0, "max_lr": 1e-2, **settings})
    tokens, val_tokens = words(train_tokens, generator), words(200, generator)
    records = []
    optimizer = make_optimizer(model, config)
    for step, loss in training_steps(model, optimizer, tokens, config, generator):
        records.append({"step": step, "train_loss": loss.item()})
        if step % 20 == 0:
            records[-1]["val_loss"] = evaluate(model, val_tokens)
    return records


def test_a_good_run_needs_no_words(model):
    assert explain_curve(run(model), V) == {}


def test_weights_that_start_too_large_are_seen_in_the_first_loss(model):
    torch.nn.init.normal_(model.embedding.token.weight, std=2.0)
    told = explain_curve(run(model, steps=1), V)
    assert told.keys() == {"start"}
    assert "ln 8 = 2.08: the weights start too large" in told["start"]


def test_steps_that_are_too_long_are_seen_in_a_loss_that_grows(model):
    told = explain_curve(run(model, max_lr=30.0, max_norm=1e9), V)
    assert "the steps are too long" in told["grow"] and "flat" not in told


def test_a_trained_model_is_seen_in_the_first_loss(model):
    run(model, steps=300)
    assert "trained before" in explain_curve(run(model, steps=1), V)["start"]


def test_a_model_that_sees_the_future_falls_below_what_the_text_allows(model):
    for block in model.blocks:
        block.attention.causal = False
    told = explain_curve(run(model, steps=500), V)
    assert told.keys() == {"leak"}
    assert "sees its targets" in told["leak"]


@pytest.mark.parametrize("cause", ["no rate", "frozen"])
def test_a_model_that_does_not_learn_is_flat(model, cause):
    if cause == "frozen":
        model.requires_grad_(False)
        model.embedding.position.weight.requires_grad_(True)
        rate = 1e-5
    else:
        rate = 1e-9
    told = explain_curve(run(model, max_lr=rate, min_lr=0.0), V)
    assert told.keys() == {"flat"}
    assert "nothing learns" in told["flat"]


def test_a_diverging_run_is_told_with_its_step(model):
    records = run(model, steps=5)
    records[3]["train_loss"] = math.nan
    assert "not finite at step 4" in explain_curve(records, V)["not finite"]


def test_a_text_learned_by_heart_makes_the_validation_loss_rise(model):
    told = explain_curve(run(model, steps=300, train_tokens=12), V)
    assert told.keys() == {"rise"}
    assert "learns its text by heart" in told["rise"]
