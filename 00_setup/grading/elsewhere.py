"""Whether all that meets in a run lies on one device, told without a second device.

PyTorch's device `meta` tells that exactly, but imports PyTorch's compiler when it is first used: a
second of every pytest. Most code makes nothing on another device, and that is seen here.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ELSEWHERE, HERE = torch.device("meta"), torch.device("cpu")
DEVICES = "cpu", "cuda", "meta", "mps"


class Elsewhere(TorchFunctionMode):
    """Plays that `tensors` lie elsewhere, with all that is made of them or where they lie.

    `doubtful` says that something else met them. It may be right, as a single number from the CPU.
    """

    def __init__(self, tensors: list[Tensor]):
        super().__init__()
        self.there = {id(tensor): tensor for tensor in tensors}
        self.doubtful = False

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        met = [self.holds(tensor) for tensor in found(Tensor, (args, kwargs))]
        if function == Tensor.device.__get__:
            return ELSEWHERE if all(met) else function(*args)
        asked = list(found(torch.device, (args, kwargs)))
        leaves = HERE in asked or any(text in DEVICES for text in found(str, (args, kwargs)))
        self.doubtful |= any(met) and (not all(met) or leaves or function == Tensor.cpu)
        result = function(*moved(args), **moved(kwargs or {}))
        if ELSEWHERE in asked and function == Tensor.to:
            result = result.view_as(result)  # what lies here stays, and this is another tensor
        if ELSEWHERE in asked or any(met):
            self.there |= {id(tensor): tensor for tensor in found(Tensor, result)}
        return result

    def holds(self, tensor: Tensor) -> bool:
        return id(tensor) in self.there


def never_leaves(function: Callable, *inputs: Any) -> bool:
    """Whether `function` certainly meets and gives back nothing but what lies where `inputs` do."""
    function, *inputs = copy.deepcopy((function, *inputs))
    modules = list(found(nn.Module, (function, inputs)))
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    device = Elsewhere([*tensors, *found(Tensor, inputs)])
    try:
        with device:
            result = function(*inputs)
    except Exception:
        return False
    return not device.doubtful and all(map(device.holds, found(Tensor, result)))


def found(kind: Any, value: Any) -> Iterator[Any]:
    """All of a kind in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from found(kind, each)


def moved(value: Any) -> Any:
    """`value` with the device that there is in the place of the one that is played."""
    if isinstance(value, torch.device):
        return HERE if value == ELSEWHERE else value
    if type(value) in (tuple, list):
        return type(value)(map(moved, value))
    return {key: moved(each) for key, each in value.items()} if type(value) is dict else value
