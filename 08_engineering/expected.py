"""A state that passes its checksums is still a stranger's: it is compared before it is used.

Whoever can write a checkpoint can write its sums. So whatever is loaded is held against what the
run itself would have saved, and the first entry that could not stand in its place is named.
"""

import copy
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def check_like(found: Any, expected: Any, name: str) -> None:
    """See that `found` could stand where `expected` stands.

    The same keys, lengths and types; tensors of the same shape and dtype; all numbers finite.

    Raises:
        ValueError: "state.json: optimizer/state/0 has no 'mean'"; `name` is where they stand.
    """
    if isinstance(expected, Tensor):
        like = isinstance(found, Tensor) and (found.shape, found.dtype) == (
            expected.shape,
            expected.dtype,
        )
    elif isinstance(expected, Mapping):
        like = isinstance(found, Mapping)
    elif isinstance(expected, list | tuple):
        like = isinstance(found, list) and len(found) == len(expected)
    elif isinstance(expected, bool | str | None):
        like = type(found) is type(expected) and found == expected
    else:
        like = type(found) is type(expected) or type(found) is int
        like = like and (type(found) is not int or abs(found) < 2**63)
    if not like:
        raise ValueError(
            f"{place(found, name)} is {described(found)}; this run expects {wanted(expected)}"
        )
    if isinstance(expected, Mapping):
        for key in (*expected, *found):
            if key not in found:
                raise ValueError(f"{place(found, name)} has no {key!r}")
            if key not in expected:
                raise ValueError(f"{place(found, name)} has {key!r}, which this run does not know")
            check_like(found[key], expected[key], f"{name}/{key}")
    elif isinstance(expected, list | tuple):
        for i, (part, of) in enumerate(zip(found, expected, strict=True)):
            check_like(part, of, f"{name}/{i}")
    elif not is_finite(found):
        raise ValueError(f"{place(found, name)} is not finite")


def place(found: Any, name: str) -> str:
    """The file of a checkpoint and the entry in it: "model.safetensors: head.weight"."""
    if name.partition("/")[0] == "model":
        return f"model.safetensors: {name.partition('/')[2] or 'it'}"
    return f"{'state.safetensors' if isinstance(found, Tensor) else 'state.json'}: {name}"


def described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "a table"
    text = " ".join(reprlib.repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def wanted(expected: Any) -> str:
    if type(expected) in (int, float):  # any will do
        return "a whole number" if type(expected) is int else "a number"
    return described(expected)


def is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        # A finite sum proves it in a twentieth of the time; one that overflows says nothing.
        return bool(value.sum().isfinite() or value.isfinite().all())
    return not isinstance(value, float) or math.isfinite(value)


def first_not_finite(state: Any, name: str) -> str | None:
    """Where in nested tables of tensors and numbers the first nan or infinity stands, if any."""
    if isinstance(state, Mapping):
        parts = (first_not_finite(part, f"{name}/{key}") for key, part in state.items())
        return next(filter(None, parts), None)
    return None if is_finite(state) else name


def check_weights(found: Mapping[str, Any], model: nn.Module) -> None:
    """See that a state dict is one of this model, whatever kind of floats it was stored as."""
    found = {name: as_float(tensor) for name, tensor in found.items()}
    check_like(found, model.state_dict(), "model")
    check_tied(found, model)


def check_tied(found: Mapping[str, Tensor], model: nn.Module) -> None:
    """See that weights which share memory in this model are the same in a state dict like its."""
    owners: dict[int, str] = {}
    for name, weight in model.state_dict().items():
        owner = owners.setdefault(weight.data_ptr(), name)
        if weight.numel() and not torch.equal(found[name], found[owner]):
            raise ValueError(f"model.safetensors: {name} is not {owner}, to which it is tied")


def as_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def check_optimizer(
    found: Any, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int
) -> None:
    """See that the optimizer's state is what it can be after so many steps on this model.

    A step is taken by a copy, so the check knows every optimizer, one of your own too. What a step
    leaves as it was, but for the learning rate, comes from the settings and must be the same.
    """
    fresh = optimizer.state_dict()
    stepped = after_a_step(model, optimizer).state_dict() if steps else fresh
    check_like(found, stepped, "optimizer")
    for i, state in found["state"].items():
        ahead = stepped["state"][i].get("step", 1) - 1  # one of your own may count from 2
        if not 0 <= state.get("step", 0) <= steps + ahead:
            raise ValueError(f"optimizer/state/{i}/step is {state['step']}, after {steps} steps")
    for i, group in enumerate(found["param_groups"]):
        for key, value in fresh["param_groups"][i].items():
            constant = value == stepped["param_groups"][i][key] and key != "lr"
            as_json = list(value) if isinstance(value, tuple) else value
            if constant and group[key] != as_json:
                raise ValueError(
                    f"state.json: optimizer/param_groups/{i}/{key} is {described(group[key])}; "
                    f"by its settings this run has {described(value)}"
                )


def after_a_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy of the optimizer, once it has moved a copy of the model. No random state changes."""
    twin, copied = copy.deepcopy((model, optimizer))
    for name, value in vars(optimizer).items():  # copying one keeps what PyTorch's have, no more
        vars(copied).setdefault(name, value)
    token = torch.zeros(1, 1, dtype=torch.long, device=next(twin.parameters()).device)
    with torch.enable_grad():
        twin.eval()(token).sum().backward()
    copied.step()
    return copied
