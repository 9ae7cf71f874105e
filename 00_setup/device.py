"""Where tensors live, what a device can do, and how a run is made repeatable."""

import importlib.util
import os
import platform
import random
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import torch

from tiny_transformer.setup.limits import LARGEST_SEED, check_number

# NVIDIA's first cards with tensor cores, for float16, and the first whose cores take bfloat16.
VOLTA, AMPERE = (7, 0), (8, 0)


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes cuda, else mps, else cpu.

    Raises:
        ValueError: if `name` is no device of this machine.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        available = ["cuda", *numbered, *available]
    if name == "auto":
        name = available[0]
    if name not in available:
        raise ValueError(f"device is {name!r}; this machine has {', '.join(available)} (or auto)")
    return torch.device(name)


def half_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type in which this device multiplies fastest; None where that is float32.

    `torch.cuda.is_bf16_supported` counts the slow emulation of bfloat16 on older cards too.
    """
    if device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= AMPERE:
        return torch.bfloat16
    return torch.float16 if capability >= VOLTA else None


def sm_version(device: torch.device) -> str:
    """The generation of an NVIDIA GPU, as its programs name it: sm_75."""
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def compile_obstacle(device: torch.device) -> str:
    """What keeps `torch.compile` from working on this device; empty where nothing is known to.

    On a GPU it writes programs in Triton, whose way into Python is compiled here, on a CPU in C++.
    """
    on_linux = platform.system() == "Linux"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < VOLTA:
            return "Triton needs a GPU of sm_70 or newer"
        if not has_triton():
            return "Triton is not installed"
        if on_linux and not has_c_compiler():
            return "Triton finds no C compiler (gcc or clang)"
    elif device.type == "cpu" and not has_cpp_compiler():
        return "there is no C++ compiler (g++, clang++ or, on Windows, cl)"
    if on_linux and device.type in ("cpu", "cuda") and not has_python_headers():
        return "Python.h is missing (the system's package python3-dev has it)"
    return ""


def has_triton() -> bool:
    try:
        from torch.utils import _triton
    except ImportError:  # it is PyTorch's own affair, and may go
        return importlib.util.find_spec("triton") is not None
    return _triton.has_triton()


def has_c_compiler() -> bool:
    return bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))


def has_python_headers() -> bool:
    return Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").exists()


def has_cpp_compiler() -> bool:
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler  # slow to import
    except ImportError:
        return True  # not known
    try:
        get_cpp_compiler()
    except RuntimeError:
        return False
    return True


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16, and PyTorch's library uses them.

    Where it has none, that library still rounds to bfloat16 on some CPUs, and gains nothing.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True  # on ARM the library has asked for just these instructions
    asked = "_is_avx512_bf16_supported", "_is_amx_tile_supported"
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def multiplies_float16() -> bool:
    """Whether PyTorch has products of float32 and float16 weights for this CPU: from AVX2 on."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def seed_everything(seed: int) -> None:
    """Set every random state a run draws from: Python's, NumPy's, and PyTorch's on all devices."""
    check_number("seed", seed, least=0, most=LARGEST_SEED, whole=True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
