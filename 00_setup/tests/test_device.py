"""Choosing a device, and seeding."""

import random

import numpy as np
import pytest
import torch

from tiny_transformer.setup.device import choose_device, seed_everything


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has these accelerators."""

    def pretend(gpus: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    "gpus, mps, best", [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (1, True, "cuda")]
)
def test_auto_takes_the_fastest_that_is_there(machine, gpus, mps, best):
    machine(gpus, mps)
    assert choose_device() == torch.device(best)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_a_device_can_be_named(machine, name):
    machine(gpus=2, mps=False)
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda:2", "mps", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(machine, name):
    machine(gpus=2, mps=False)
    with pytest.raises(ValueError, match=f"'{name}'; this machine has cuda, cuda:0, cuda:1, cpu"):
        choose_device(name)


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1).item()])
def test_the_same_seed_repeats_every_kind_of_draw(draw):
    seed_everything(3)
    first, second = draw(), draw()
    seed_everything(3)
    assert draw() == first != second


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True])
def test_a_seed_that_not_all_can_take_is_refused_before_any_takes_it(seed):
    before = random.getstate()
    with pytest.raises(ValueError, match=f"^seed is {seed}; it must be "):
        seed_everything(seed)
    assert random.getstate() == before
