"""Choosing a device, and seeding."""

import random
import re
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tiny_transformer.setup import device as module
from tiny_transformer.setup.device import (
    choose_device,
    compile_obstacle,
    half_precision,
    multiplies_bfloat16,
    seed_everything,
    sm_version,
)

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


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


@pytest.fixture
def card(monkeypatch):
    """Pretend that the machine has this generation of card, and on Linux all that Triton needs."""

    def pretend(capability: tuple[int, int], triton: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)  # so it says
        monkeypatch.setattr("torch.utils._triton.has_triton", lambda: triton)
        monkeypatch.setattr(module.platform, "system", lambda: "Linux")
        monkeypatch.setattr(module, "has_c_compiler", lambda: True)
        monkeypatch.setattr(module, "has_python_headers", lambda: True)

    return pretend


CARDS = [  # name, generation, what it multiplies fastest, whether Triton writes programs for it
    ("B200", (10, 0), torch.bfloat16, True),
    ("H100", (9, 0), torch.bfloat16, True),
    ("RTX 4090", (8, 9), torch.bfloat16, True),
    ("A100", (8, 0), torch.bfloat16, True),
    ("T4, RTX 2080, GTX 1650", (7, 5), torch.float16, True),
    ("V100", (7, 0), torch.float16, True),
    ("GTX 1080", (6, 1), None, False),
    ("P100", (6, 0), None, False),
]


@pytest.mark.parametrize("capability, half, compiles", [row[1:] for row in CARDS])
def test_a_card_s_generation_says_what_it_is_good_at(card, capability, half, compiles):
    card(capability)
    assert half_precision(CUDA) is half
    assert compile_obstacle(CUDA) == ("" if compiles else "Triton needs a GPU of sm_70 or newer")
    assert sm_version(CUDA) == "sm_{}{}".format(*capability)


@pytest.mark.parametrize("device", [CPU, MPS])
def test_what_is_no_card_trains_in_float32(device):
    assert half_precision(device) is None


def test_a_machine_without_triton_does_not_compile_for_its_card(card):
    card((8, 9), triton=False)  # Windows, say
    assert compile_obstacle(CUDA) == "Triton is not installed"


@pytest.mark.parametrize("there", [True, False])
def test_triton_is_looked_for_where_pytorch_does_not_tell(monkeypatch, there):
    monkeypatch.delattr("torch.utils._triton")
    monkeypatch.setitem(sys.modules, "torch.utils._triton", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if there else None)
    assert module.has_triton() is there


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_compiled_code_needs_from_the_system_is_named(card, monkeypatch, device):
    card((7, 5))
    monkeypatch.setattr(module, "has_cpp_compiler", lambda: True)
    assert compile_obstacle(device) == ""
    monkeypatch.setattr(module, "has_python_headers", lambda: False)
    assert "Python.h is missing" in compile_obstacle(device)
    monkeypatch.setattr(module, "has_c_compiler", lambda: False)
    monkeypatch.setattr(module, "has_cpp_compiler", lambda: False)
    assert re.search(r"no C(\+\+)? compiler", compile_obstacle(device))
    monkeypatch.setattr(module.platform, "system", lambda: "Windows")  # whose Triton brings one
    assert bool(compile_obstacle(device)) is (device == CPU)


@pytest.mark.parametrize("error, there", [(None, True), (RuntimeError("no compiler"), False)])
def test_pytorch_is_asked_for_its_cpp_compiler(monkeypatch, error, there):
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", Mock(side_effect=error))
    assert module.has_cpp_compiler() is there


# What PyTorch's library says and what the processor has. Without AVX512_BF16 it only imitates.
CPUS = [
    ("an AVX2 laptop", "x86_64", False, {}, False),
    ("Skylake-X, Ice Lake", "x86_64", True, {}, False),
    ("Zen 4", "AMD64", True, {"_is_avx512_bf16_supported"}, True),
    (
        "Sapphire Rapids",
        "x86_64",
        True,
        {"_is_avx512_bf16_supported", "_is_amx_tile_supported"},
        True,
    ),
    ("held down to AVX2 by its library", "x86_64", False, {"_is_avx512_bf16_supported"}, False),
    ("Graviton 3", "aarch64", True, {}, True),
    ("Raspberry Pi", "aarch64", False, {}, False),
]


@pytest.mark.parametrize("machine, library, processor, rounds", [row[1:] for row in CPUS])
def test_a_cpu_multiplies_bfloat16_where_it_has_instructions_for_it(
    monkeypatch, machine, library, processor, rounds
):
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: library)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in processor)
    assert multiplies_bfloat16() is rounds


def test_a_pytorch_without_its_library_for_products_rounds_nothing(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # on a Mac
    assert not multiplies_bfloat16()


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
