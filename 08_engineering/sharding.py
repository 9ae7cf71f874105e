"""One model in parts: of every weight, gradient and average each process keeps some rows.

PyTorch's FSDP2 brings the weights of a block together where the block needs them, and lets them
go again. Imported only where a run asks for it, since these imports take seconds.
"""

import copy
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from tiny_transformer.engineering.processes import group_on, noticing_loss
from tiny_transformer.training.reference import TrainConfig, make_optimizer


class Sharded:
    """This process's part of a model and of its optimizer, to train with.

    The first process keeps the whole ones too, off the GPU, where `gather` brings them up to date:
    to evaluate, to sample and to save. In the others the whole model itself becomes the part.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        device: torch.device,
    ):
        self.whole = (model, optimizer) if dist.get_rank() == 0 else None
        self.model = copy.deepcopy(model) if self.whole else model
        with noticing_loss():
            self.mesh = DeviceMesh.from_group(group_on(device), device.type)
            for part in (*self.model.blocks, self.model):
                fully_shard(part, mesh=self.mesh)
                # Some versions of PyTorch take gloo's sum for the average (its issue 162338).
                part.set_force_sum_reduction_for_comms(True)
        passes = count(1)
        # Gradients are averaged in the last of a step's passes, when they are whole.
        self.model.register_forward_pre_hook(
            lambda model, _: model.set_requires_gradient_sync(next(passes) % config.accumulate == 0)
        )
        self.optimizer = make_optimizer(self.model, config)
        self.optimizer.load_state_dict(with_tensors(optimizer.state_dict(), self.split))

    def gather(self) -> None:
        """Bring the whole model and its optimizer up to date; all processes take part."""
        with noticing_loss():
            weights = {name: self.join(part) for name, part in self.model.state_dict().items()}
            averages = with_tensors(self.optimizer.state_dict(), self.join)
        if self.whole:
            model, optimizer = self.whole
            model.load_state_dict(weights)
            optimizer.load_state_dict(averages)

    def split(self, value: Tensor) -> Tensor:
        """Of a weight's average the rows of this process; a count, which has none, as it is."""
        if not value.dim():
            return value
        # clone: a view of some rows would keep all of them
        return distribute_tensor(value, self.mesh, [Shard(0)], src_data_rank=None).clone()

    def join(self, part: Tensor) -> Tensor | None:
        """The whole of a part, for the first process alone."""
        value = part.full_tensor() if isinstance(part, DTensor) else part
        return value.cpu() if self.whole else None


def with_tensors(state: dict[str, Any], change: Callable[[Tensor], Any]) -> dict[str, Any]:
    """The state of an optimizer with every tensor in it changed."""
    changed = {
        number: {
            name: change(value) if isinstance(value, Tensor) else value
            for name, value in averages.items()
        }
        for number, averages in state["state"].items()
    }
    return {**state, "state": changed}
