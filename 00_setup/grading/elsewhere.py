"""Whether all that meets in a run lies on one device, told without a second device.

PyTorch's device `meta` tells that exactly, but imports PyTorch's compiler when it is first used: a
second of every pytest. Most code makes nothing on another device, and that is seen here.
"""

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# No code has a case for this device, and none that keeps a tensor for each device takes it for one
# that is really used.
ELSEWHERE, HERE = torch.device("fpga"), torch.device("cpu")
DEVICES = "cpu", "cuda", "meta", "mps"
OUT = Tensor.cpu, Tensor.numpy, Tensor.__array__


class Elsewhere(TorchFunctionMode):
    """Plays that `tensors` lie elsewhere, with all that is made of them or where they lie.

    `doubtful` says that something else met them, or that their numbers went to the CPU. That may be
    right: a single number from the CPU may meet any tensor.
    """

    def __init__(self, tensors: list[Tensor]):
        super().__init__()
        self.there = {id(tensor): tensor for tensor in tensors}
        self.doubtful = False

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.device:
            return function(*args, **kwargs)
        met = [self.holds(tensor) for tensor in found(Tensor, (args, kwargs))]
        if function == Tensor.device.__get__:
            return ELSEWHERE if all(met) else function(*args)
        asked = set(found(torch.device, (args, kwargs)))
        named = {text.partition(":")[0] for text in found(str, (args, kwargs))}
        leaves = asked - {ELSEWHERE} or named.intersection(DEVICES) or function in OUT
        self.doubtful |= any(met) and bool(leaves or not all(met))
        result = function(*moved(args), **moved(kwargs))
        if asked and function == Tensor.to:
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
    return certainly_there([*tensors, *found(Tensor, inputs)], function, *inputs)


def certainly_there(tensors: list[Tensor], function: Callable, *inputs: Any) -> bool:
    """The same for `tensors` that lie elsewhere, whatever else `function` is given."""
    device = Elsewhere(tensors)
    try:
        with device, redirect_stdout(io.StringIO()):
            results = run(function, *inputs)
    except Exception:
        return False
    there = all(isinstance(each, Tensor) and device.holds(each) for each in results)
    return there and not device.doubtful


def run(function: Callable, *inputs: Any) -> list[Tensor]:
    outputs = function(*inputs)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


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
