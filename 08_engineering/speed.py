"""What makes a step faster and is no part of the mathematics: how products are computed."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Meanwhile float32 matrices are multiplied as `torch.set_float32_matmul_precision` says.

    "highest" is float32. "high" lets a GPU round what it multiplies to TF32, and "medium" to
    bfloat16, a CPU too if it has instructions for that. Sums and all else stay float32.
    """
    # PyTorch's fused attention for CPUs is made of many small products, which would become slower.
    plain = precision == "medium" and device.type == "cpu"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Meanwhile Linux's C library keeps what is freed for the next step, which needs it again.

    Otherwise it gives large blocks back to the system, which has to clean new ones each time.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: blocks of up to 32 MiB are the library's,
    libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD: and so is 1 GiB of them while unused
    try:
        yield
    finally:
        libc.malloc_trim(0)


def packed(model: nn.Module) -> nn.Module:
    """A copy of a float32 model on the CPU, for inference: up to rounding the same, and faster.

    Its linear layers are `PackedLinear`, where PyTorch was built with oneDNN.
    """
    model = deepcopy(model)
    if torch.backends.mkldnn.is_available():
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    setattr(module, name, PackedLinear(child))
    return model


class PackedLinear(nn.Module):
    """A linear layer whose weight lies in the order in which oneDNN multiplies it.

    A plain one goes to MKL, which uses one core where there is one row. torch.compile makes the
    same exchange when it freezes a model; PyTorch has no public function for it.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
