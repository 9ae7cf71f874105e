"""What makes a step faster and is no part of the mathematics: how products are computed."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
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
