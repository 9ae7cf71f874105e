"""The steps of a compiled model, whose compiler takes seconds."""

import copy

import torch

from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import (
    TrainConfig,
    evaluate,
    make_optimizer,
    training_steps,
)

SMALL = ModelConfig(vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=2, d_ff=32)
BRIEF = TrainConfig(batch_size=4, max_steps=3, warmup_steps=2, max_lr=1e-2, min_lr=1e-3)


def test_a_compiled_model_trains_like_the_eager_one():
    tokens, ends = torch.randint(11, (300,)), []
    model = TinyTransformerLM(SMALL)
    for compiled in (False, True):
        trained = copy.deepcopy(model)
        steps = training_steps(
            torch.compile(trained, backend="aot_eager") if compiled else trained,
            make_optimizer(trained, BRIEF),
            tokens,
            BRIEF,
            torch.Generator().manual_seed(0),
        )
        for _ in steps:
            evaluate(trained, tokens[:20])  # between steps, as the capstone does
        ends.append(trained.state_dict())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)
