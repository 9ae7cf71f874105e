"""Muon: what it does to a matrix, which matrices it takes, and that it goes on where it stopped."""

import copy
from dataclasses import replace

import pytest
import torch

from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.muon import QUINTICS, Muon, orthogonalize
from tiny_transformer.training.reference import AdamW, TrainConfig, make_optimizer, training_steps

SMALL = ModelConfig(vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=2, d_ff=32)
BRIEF = TrainConfig(batch_size=4, max_steps=6, warmup_steps=2, optimizer="muon")
TOKENS = torch.randint(11, (300,), generator=torch.Generator().manual_seed(0))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("shape", [(16, 16), (3, 24, 8), (2, 8, 24)])
def test_singular_values_follow_the_polynomials_and_directions_stay(shape):
    matrices = torch.randn(shape)
    u, values, vh = torch.linalg.svd(matrices, full_matrices=False)
    lifted = u.mT @ orthogonalize(matrices) @ vh.mT
    diagonal = lifted.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(lifted, torch.diag_embed(diagonal), rtol=0, atol=1e-4)
    x = values / values.norm(dim=-1, keepdim=True) / 1.02
    for a, b, c in QUINTICS:
        x = a * x + b * x**3 + c * x**5
    torch.testing.assert_close(diagonal, x, rtol=1e-3, atol=1e-4)


def test_what_is_not_tiny_ends_in_the_band_that_the_file_names():
    value = torch.linspace(0.005, 1, 1000) / 1.02
    for a, b, c in QUINTICS:
        value = a * value + b * value**3 + c * value**5
    assert 0.18 < value.min() and value.max() < 1.87


def test_takes_the_matrices_inside_the_blocks_and_leaves_adamw_the_rest():
    model = TinyTransformerLM(SMALL)
    groups = make_optimizer(model, BRIEF).param_groups
    inner = [id(p) for group in groups if "momentum" in group for p in group["params"]]
    assert sorted(inner) == sorted(id(p) for p in model.blocks.parameters() if p.dim() == 2)
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in model.parameters())


def test_elsewhere_it_is_adamw():
    torch.manual_seed(0)
    ours, theirs = (TinyTransformerLM(SMALL) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    options = dict(lr=1e-2, betas=(0.8, 0.95), weight_decay=0.3)
    optimizers = Muon(ours.parameters(), **options), AdamW(theirs.parameters(), **options)
    for seed in range(4):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            torch.manual_seed(seed)
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            model.ln_f.bias.grad = None if seed == 1 else model.ln_f.bias.grad
            optimizer.step()
    torch.testing.assert_close(weights(ours), weights(theirs))


def test_its_state_has_the_names_that_checkpoints_have():
    model = TinyTransformerLM(SMALL)
    optimizer = make_optimizer(model, BRIEF)
    for _ in training_steps(model, optimizer, TOKENS, BRIEF, torch.Generator()):
        pass
    names = [{*optimizer.state[g["params"][0]]} for g in optimizer.param_groups]
    assert names == [{"step", "mean", "square"}, {"step", "mean", "square"}, {"mean"}]


def test_what_is_said_of_tables_changes_nothing_without_any():
    ends = []
    for config in (BRIEF, replace(BRIEF, ngram_decay=2.0)):
        torch.manual_seed(0)
        model, generator = TinyTransformerLM(SMALL), torch.Generator().manual_seed(1)
        for _ in training_steps(model, make_optimizer(model, config), TOKENS, config, generator):
            pass
        ends.append(weights(model))
    assert ends[0].equal(ends[1])


def test_goes_on_from_its_saved_state():
    model, generator = TinyTransformerLM(SMALL), torch.Generator().manual_seed(1)
    optimizer = make_optimizer(model, BRIEF)
    for step, _ in training_steps(model, optimizer, TOKENS, BRIEF, generator):
        if step == 3:
            states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            batches = generator.get_state()
    end = weights(model)
    optimizer = make_optimizer(model, BRIEF)
    model.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    generator.set_state(batches)
    for _ in training_steps(model, optimizer, TOKENS, BRIEF, generator, start=3):
        pass
    assert weights(model).equal(end)
