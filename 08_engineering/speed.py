"""What makes a step faster and is no part of the mathematics: how products are computed."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.setup.device import (
    compile_obstacle,
    half_precision,
    multiplies_bfloat16,
    multiplies_float16,
    sm_version,
)


@dataclass(frozen=True)
class Arithmetic:
    """How a run computes its steps, and a line about what the machine chose, or nothing."""

    bf16: bool
    fp16: bool
    compile: bool
    chosen: str = ""


def choose_arithmetic(config: RunConfig, device: torch.device, sharded: bool = False) -> Arithmetic:
    """What `config` says, and where it leaves the choice, what the device is best at.

    A setting of one of `bf16` and `fp16` decides about both: a run without either is in float32.
    A run whose weights are `sharded` is not compiled.

    Raises:
        ValueError: if the run must be compiled, and cannot be here.
    """
    chosen, otherwise, line = [], [], ""
    half = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
    if config.bf16 is None and config.fp16 is None:
        half = half_precision(device)
        rounds = config.matmul_precision == "medium" and device.type == "cpu"
        # With tiles (AMX) products of float32 gain as much, and the rest is faster in float32.
        tiles = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
        if rounds and multiplies_bfloat16() and not tiles:
            half = torch.bfloat16
            line = "this CPU multiplies in bfloat16, so the run does; otherwise: --bf16 False"
        what, other = {
            torch.bfloat16: ("bfloat16", "--bf16 False"),
            torch.float16: ("float16 with a gradient scaler", "--fp16 False"),
            None: ("float32", "--fp16 True"),
        }[half]
        chosen.append(what)
        otherwise.append(other)
    compiled, obstacle = bool(config.compile), ""
    if compiled or (config.compile is None and device.type == "cuda"):
        obstacle = "its weights are sharded" if sharded else compile_obstacle(device)
    if config.compile is None and device.type == "cuda":
        compiled = not obstacle
        chosen.append("compiled" if compiled else f"not compiled, since {obstacle}")
        otherwise += ["--compile False"] if compiled else []
    elif obstacle:
        raise ValueError(f"compile is True, but {obstacle}; train with --compile False")
    if chosen and device.type == "cuda":
        line = f"{torch.cuda.get_device_name(device)} ({sm_version(device)}): {', '.join(chosen)}"
        line += f"; otherwise: {', '.join(otherwise)}" if otherwise else ""
    elif device.type == "cpu" and half is torch.bfloat16 and not multiplies_bfloat16():
        line = (
            "this CPU has no instructions for bfloat16 and is slow at it; otherwise: --bf16 False"
        )
    return Arithmetic(half is torch.bfloat16, half is torch.float16, compiled, line)


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Meanwhile float32 matrices are multiplied as `torch.set_float32_matmul_precision` says.

    "highest" is float32. "high" lets a GPU round what it multiplies to TF32, and "medium" to
    bfloat16, a CPU too if it has instructions for that: one without them stays at "highest". Sums
    and all else stay float32.
    """
    on_cpu = device.type == "cpu"
    if on_cpu and precision == "medium" and not multiplies_bfloat16():
        precision = "highest"  # some CPUs would round and be no faster
    # PyTorch's fused attention for CPUs is made of many small products, which would become slower.
    plain = on_cpu and precision == "medium"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """Meanwhile the same step gives the same bytes when it is compiled too, if on a CPU.

    Otherwise compiled code adds up the gradients of an embedding in whatever order they come.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def freed_memory_kept(largest: int = 2**25) -> Iterator[None]:
    """Meanwhile Linux's C library keeps what is freed for the next step, which needs it again.

    Otherwise it gives large blocks back to the system, which has to clean new ones each time. It
    still does with those of more bytes than `largest`, 32 MiB or less.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, largest)  # M_MMAP_THRESHOLD: blocks of up to this are the library's,
    libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD: and so is 1 GiB of them while unused
    try:
        yield
    finally:
        libc.malloc_trim(0)


LARGE = 2_500_000  # weights; fewer lie in a CPU's caches, and the rounding would gain little


def pays_to_pack(model: nn.Module) -> bool:
    """Whether `packed` makes it faster: a large model, on a CPU that multiplies float16 weights.

    That is decided by sizes and instructions (AVX2), not by a measurement, which would change from
    call to call: the same seed gives the same text.
    """
    weights = [part.weight for part in model.modules() if type(part) is nn.Linear]
    large = sum(weight.numel() for weight in weights) >= LARGE
    return multiplies_float16() and large and all(map(fits_float16, weights))


def fits_float16(weight: Tensor) -> bool:
    """Whether rounding leaves the 11 bits of its largest: nothing from 65,520 on, nor all tiny."""
    error = (weight.half().float() - weight).abs().max()
    return bool(error <= weight.abs().max() / 2**11)


def packed(model: nn.Module) -> nn.Module:
    """A copy of a float32 model on the CPU, for inference, with `PackedLinear` for linear layers.

    Raises:
        ValueError: if this CPU has no instructions for it, or float16 no place for a weight.
    """
    if not multiplies_float16():
        raise ValueError("fp16 is True, but this CPU does not multiply by weights in float16")
    for name, part in model.named_modules():
        if type(part) is nn.Linear and not fits_float16(part.weight):
            raise ValueError(f"fp16 is True, but float16 cannot hold the weights of {name}")
    model = deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child))
    return model


class PackedLinear(nn.Module):
    """A linear layer whose weight is in float16, in the order in which FBGEMM multiplies it.

    One token takes each weight once, so its time is that of reading them, and there are half the
    bytes. Products and sums are float32's: all that is rounded is the weight, to 11 bits. What a
    row gives does not depend on the rows beside it. PyTorch has no public function for it.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight, bias = linear.weight.detach(), linear.bias
        bias = None if bias is None else bias.detach()
        self.weight = torch.ops.quantized.linear_prepack_fp16(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self.weight)
