"""A stranger's state: what differs from what a run would save is named, and nothing else is."""

import json
import math

import pytest
import torch
from torch import nn

from tiny_transformer.engineering.expected import (
    check_like,
    check_optimizer,
    check_weights,
    first_not_finite,
    is_finite,
)
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import AdamW, TrainConfig, make_optimizer

SMALL = ModelConfig(vocab_size=5, max_len=4, d_model=4, n_layers=1, n_heads=2, d_ff=8)


@pytest.mark.parametrize(
    "found, expected",
    [
        ({"a": [1, 2.0]}, {"a": (3, 0.5)}),
        (2, 0.5),
        (torch.ones(2), torch.zeros(2)),
        (None, None),
        ({"a": {}}, {"a": {}}),
    ],
)
def test_what_could_stand_in_the_place_passes(found, expected):
    check_like(found, expected, "x")


@pytest.mark.parametrize(
    "found, expected, sentence",
    [
        ({}, {"a": 1}, "state.json: x has no 'a'"),
        ({"a": 1, "b": 1}, {"a": 1}, "state.json: x has 'b', which this run does not know"),
        ({"a": [1]}, {"a": [1, 2]}, "state.json: x/a is [1]; this run expects [1, 2]"),
        (True, 1, "state.json: x is True; this run expects a whole number"),
        (False, True, "state.json: x is False; this run expects True"),
        (0.5, 1, "state.json: x is 0.5; this run expects a whole number"),
        (10**400, 1, "x is 10000"),
        (math.nan, 0.5, "state.json: x is not finite"),
        ("a", "b", "state.json: x is 'a'; this run expects 'b'"),
        ([], {}, "state.json: x is []; this run expects a table"),
        (
            torch.ones(2, 3),
            torch.ones(3, 2),
            "state.safetensors: x is a tensor [2, 3] of float32; this run expects a tensor [3, 2]",
        ),
        (torch.ones(2).long(), torch.ones(2), "a tensor [2] of int64; this run expects"),
        (torch.tensor([1, math.inf]), torch.ones(2), "state.safetensors: x is not finite"),
        (3, torch.ones(2), "state.json: x is 3; this run expects a tensor [2] of float32"),
    ],
)
def test_what_could_not_is_named(found, expected, sentence):
    with pytest.raises(ValueError) as error:
        check_like(found, expected, "x")
    assert sentence in str(error.value)


def test_the_first_number_that_is_none_is_found():
    state = {"a": torch.ones(2), "b": {"c": torch.tensor([1.0, math.nan])}, "n": 1}
    assert first_not_finite(state, "x") == "x/b/c"
    assert first_not_finite({"a": torch.ones(2), "n": 1}, "x") is None


def test_tied_weights_must_be_the_same_and_any_float_will_do():
    model = TinyTransformerLM(SMALL)
    state = {name: weight.bfloat16() for name, weight in model.state_dict().items()}
    check_weights(state, model)
    with pytest.raises(ValueError, match="head.weight is not embedding.token.weight, to which"):
        check_weights({**state, "head.weight": state["head.weight"] + 1}, model)


class Counting(AdamW):
    """An optimizer of somebody's own: attributes beside PyTorch's, a count in its groups."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.scale = 1.0
        for group in self.param_groups:
            group["t"] = 0

    def step(self):
        for group in self.param_groups:
            group["t"] += 1
            group["lr"] *= self.scale
        super().step()


@pytest.mark.parametrize(
    "make",
    [
        lambda model: make_optimizer(model, TrainConfig()),
        lambda model: make_optimizer(model, TrainConfig(optimizer="muon")),
        lambda model: Counting(model.parameters(), 1e-3),
    ],
    ids=["adamw", "muon", "own"],
)
class TestCheckOptimizer:
    @pytest.fixture
    def trained(self, make):
        model = TinyTransformerLM(SMALL)
        optimizer = make(model)
        before = [p.clone() for p in model.parameters()]
        for _ in range(2):
            model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        state = optimizer.state_dict()
        state["param_groups"] = json.loads(json.dumps(state["param_groups"]))
        assert not all(map(torch.equal, before, model.parameters()))
        return state

    def test_its_own_state_passes_and_nothing_changes(self, make, trained):
        model = TinyTransformerLM(SMALL)
        optimizer = make(model)
        before, drawn = [p.clone() for p in model.parameters()], torch.get_rng_state()
        check_optimizer(trained, model, optimizer, 2)
        assert all(map(torch.equal, before, model.parameters()))
        assert not optimizer.state and torch.equal(drawn, torch.get_rng_state())

    def test_another_constant_is_named(self, make, trained):
        model = TinyTransformerLM(SMALL)
        trained["param_groups"][0]["weight_decay"] = 7.0
        with pytest.raises(ValueError, match="param_groups/0/weight_decay is 7.0; by its settings"):
            check_optimizer(trained, model, make(model), 2)

    def test_a_step_that_was_not_taken_is_named(self, make, trained):
        model = TinyTransformerLM(SMALL)
        with pytest.raises(ValueError, match="/step is .*after 1 steps"):
            check_optimizer(trained, model, make(model), 1)

    def test_a_missing_average_is_named(self, make, trained):
        model = TinyTransformerLM(SMALL)
        name = next(key for key in trained["state"][0] if key != "step")
        del trained["state"][0][name]
        with pytest.raises(ValueError, match=f"optimizer/state/0 has no '{name}'"):
            check_optimizer(trained, model, make(model), 2)


def test_a_layer_that_training_never_reaches_needs_no_state():
    class Spare(TinyTransformerLM):
        def __init__(self, config):
            super().__init__(config)
            self.spare = nn.Linear(2, 2)

    model = Spare(SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    optimizer.step()
    state = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    check_optimizer({**optimizer.state_dict(), "param_groups": state}, model, optimizer, 1)


@pytest.mark.parametrize(
    "values, finite",
    [
        ([1.0, -2.0], True),
        ([3e38] * 9, True),
        ([1.0, math.nan], False),
        ([math.inf, -math.inf], False),
        ([], True),
        ([1 + 2j], True),
    ],
)
def test_numbers_are_finite_or_not_whatever_their_sum_is(values, finite):
    assert is_finite(torch.tensor(values)) == finite
