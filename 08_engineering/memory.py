"""What a model takes of the memory, reckoned before anything is built.

Everything here is a lower bound: what is refused cannot fit, and what passes may still not. The
vocabulary, which comes from the text, counts as one token.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import psutil
import torch

from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.reference import override
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.tiny_lm.reference import ModelConfig

CPU = torch.device("cpu")
BLOCK = 30_000  # bytes of Python's objects around the numbers of one block, measured,
TRAINED_BLOCK = 100_000  # and with those of its gradients, its optimizer and the graph
LEAST = {  # what makes a model large, and the least that could stand there instead
    "model.d_model": {"model.d_model": 2, "model.n_heads": 1},
    "model.n_layers": {"model.n_layers": 1},
    "model.d_ff": {"model.d_ff": 1},
    "model.max_len": {"model.max_len": 1},
    "train.batch_size": {"train.batch_size": 1, "train.accumulate": 1},
}


def check_model_fits(config: RunConfig) -> None:
    """See that the model of these settings can be built here.

    Raises:
        ValueError: names the setting that asks for most, what it takes and what there is.
    """
    check_greatest(config, built, "the model", CPU)


def check_training_fits(config: RunConfig, device: torch.device, processes: int = 1) -> None:
    """See that one of so many processes can train with these settings on its device.

    Raises:
        ValueError: as `check_model_fits`.
    """
    check_model_fits(config)
    check_greatest(config, partial(trained, processes=processes), "a training step", device)


def check_greatest(
    config: RunConfig, reckon: Callable[[RunConfig], int], what: str, device: torch.device
) -> None:
    greatest = min(LEAST, key=lambda name: reckon(override(config, LEAST[name])))
    table, name = greatest.split(".")
    check_fits(greatest, getattr(getattr(config, table), name), what, reckon(config), device)


def check_fits(name: str, value: int, what: str, takes: int, device: torch.device = CPU) -> None:
    """See that this many bytes are no more than the device has, or this machine, swap included.

    Raises:
        ValueError: "tokens is 10000000000; the text takes at least 160.0 GB of memory, ...".
    """
    has, where = psutil.virtual_memory().total + psutil.swap_memory().total, "this machine"
    if device.type == "cuda":
        has, where = torch.cuda.get_device_properties(device).total_memory, "the GPU"
    if takes > has:
        raise ValueError(
            f"{name} is {value}; {what} takes at least {takes / 1e9:,.1f} GB of memory, "
            f"and {where} has {has / 1e9:,.1f} GB"
        )


def built(config: RunConfig) -> int:
    numbers = learned(config.model) + tabled(config.model)
    return 4 * numbers + BLOCK * config.model.n_layers


def trained(config: RunConfig, processes: int) -> int:
    """The weights, their gradients and averages, and what each block keeps for the way back."""
    model, train = config.model, config.train
    batch = train.batch_size // processes
    copies = 3 if train.optimizer == "muon" else 4  # Muon keeps one average, AdamW two
    parts = processes if config.shard else 1
    numbers = copies * learned(model) // parts + tabled(model)
    windows = batch * (model.max_len + 1)
    width = model.n_layers * (4 * model.d_model + model.d_ff)
    kept = batch // train.accumulate * model.max_len * width
    # int64 places and tokens of the windows; what is kept may be bfloat16.
    return 4 * numbers + 16 * windows + 2 * kept + TRAINED_BLOCK * model.n_layers


def learned(model: ModelConfig) -> int:
    return count_modern_parameters(replace(model, vocab_size=1))


def tabled(model: ModelConfig) -> int:
    """How many numbers the sines and cosines of the positions are."""
    widths = {"learned": 0, "sinusoidal": model.d_model, "rope": model.d_head}
    return model.max_len * widths[model.positions]
