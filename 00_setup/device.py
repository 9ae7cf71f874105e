"""Where tensors live, and how a run is made repeatable."""

import random

import numpy as np
import torch

from tiny_transformer.setup.limits import LARGEST_SEED, check_number


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


def seed_everything(seed: int) -> None:
    """Set every random state a run draws from: Python's, NumPy's, and PyTorch's on all devices."""
    check_number("seed", seed, least=0, most=LARGEST_SEED, whole=True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
