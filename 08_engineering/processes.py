"""Many processes that train one model: started by torchrun, each on its share of every batch.

All of them draw the same batches from the same generator, and so a run can be resumed with another
number of processes. PyTorch's DistributedDataParallel averages their gradients; whatever else they
must agree on goes through gloo, which notices at once when a process is gone.
"""

import gc
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tiny_transformer.engineering.reference import random_states, restore_random_states
from tiny_transformer.setup.device import choose_device


class ProcessLost(RuntimeError):
    """What had to be done together failed, most likely since another process is gone."""


@dataclass(frozen=True)
class Processes:
    """All processes as one of them sees them. With a count of 1 nothing here does anything."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def one_machine(self) -> bool:
        return self.count == 1 or self.count == int(os.environ["LOCAL_WORLD_SIZE"])

    @property
    def share(self) -> slice:
        """Which sequences of a batch are this process's own; of equal size for all."""
        return slice(self.rank, None, self.count)

    def check(self, batch_size: int, accumulate: int) -> None:
        if batch_size % (self.count * accumulate):
            times = f" times train.accumulate {accumulate}" if accumulate > 1 else ""
            raise ValueError(
                f"train.batch_size is {batch_size}; {self.count} processes{times} must divide it"
            )

    def device(self, chosen: torch.device) -> torch.device:
        """Where this process computes: on the CPU with all the others, or on a GPU of its own."""
        if self.count == 1 or chosen.type == "cpu":
            return chosen
        if chosen.type != "cuda":
            raise ValueError(f"device is {chosen.type!r}; several processes need cpu or cuda")
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise ValueError(f"{here} processes need a GPU each; this machine has {gpus}")
        return choose_device(f"cuda:{os.environ['LOCAL_RANK']}")

    def tell(self, value: Any) -> None:
        """From the first to all the others, which wait in `told`: one reads, and all have it."""
        if self.count > 1:
            with noticing_loss():
                dist.broadcast_object_list([value])

    def told(self) -> Any:
        """What the first process tells; if it ends before, so does this one, without a word.

        What several processes have to say would come twice, or not at all: torchrun ends the
        others as soon as one has failed. None says that the first was interrupted.
        """
        values = [None]
        try:
            dist.broadcast_object_list(values)
        except RuntimeError:  # the first has ended, and said why; its exit status counts
            sys.exit()
        if values[0] is None:
            raise KeyboardInterrupt
        return values[0]

    def parallel(self, model: nn.Module, accumulate: int) -> nn.Module:
        """The model as the training loop needs it, its gradients averaged over the processes."""
        if self.count == 1:
            return model
        with noticing_loss():
            return Parallel(model, accumulate, group_on(next(model.parameters()).device))

    def steps(
        self, steps: Iterator[Any], batches: torch.Generator, seed: int, done: int
    ) -> Iterator[Any]:
        """The steps of the loop. One that fails leaves no trace, in the random states either.

        The first process draws its dropout as a lone one would, and its state is what a checkpoint
        holds. The others begin each step anew, from what a resumed run knows too.
        """
        if self.count == 1:
            yield from steps
            return
        while True:
            before = batches.get_state(), random_states()
            if not self.first:
                torch.manual_seed(own_seed(seed, self.rank, done))
            try:
                with noticing_loss():
                    step = next(steps, None)
            except ProcessLost:
                batches.set_state(before[0])
                restore_random_states(before[1])
                raise
            if step is None:
                return
            done += 1
            yield step

    def mean(self, loss: Tensor) -> Tensor:
        """The loss of the whole batch, from those of the equal shares."""
        return self.sum(loss) / self.count if self.count > 1 else loss

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process; those that come early wait here for the others."""
        return self.sum(torch.tensor(float(flag))).item() > 0 if self.count > 1 else flag

    def sum(self, number: Tensor) -> Tensor:
        total = number.detach().cpu().clone()
        with noticing_loss():
            dist.all_reduce(total)
        return total


ALONE = Processes()


class Parallel(DistributedDataParallel):
    """Averages the gradients in the last of a step's `accumulate` passes, when they are whole."""

    def __init__(self, model: nn.Module, accumulate: int, group: dist.ProcessGroup | None):
        super().__init__(model, process_group=group)
        self.config, self.accumulate, self.passes = model.config, accumulate, 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.passes += 1
        self.require_backward_grad_sync = self.passes % self.accumulate == 0
        return super().forward(tokens)


def group_on(device: torch.device) -> dist.ProcessGroup:
    """All processes, as those that exchange what lies on such a device."""
    if device.type != "cuda":
        return dist.group.WORLD
    # NCCL does not notice that a process is gone: it waits. So wait in the backward pass, where
    # nothing has changed yet, and less than the 30 s after which torchrun kills.
    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"
    torch.cuda.set_device(device)
    return dist.new_group(backend="nccl", timeout=timedelta(seconds=20))


def own_seed(*numbers: int) -> int:
    """Of different numbers a different seed, and none that looks like another's."""
    return int.from_bytes(hashlib.sha256(str(numbers).encode()).digest()[:8], "big") >> 1


@contextmanager
def joined() -> Iterator[Processes]:
    """Meanwhile this process is one of those that torchrun started, or alone without it.

    Raises:
        ValueError: if torchrun left word of itself, and not of how many there are.
    """
    count = 1
    if dist.is_torchelastic_launched():
        told = os.environ.get("WORLD_SIZE", "")
        if not told.isdecimal():
            raise ValueError(
                "TORCHELASTIC_RUN_ID is set, as torchrun does, "
                f"and WORLD_SIZE is {told!r}, no number of processes: unset both"
            )
        count = int(told)
    if count == 1:
        yield ALONE
        return
    # A day: the others wait while the first evaluates and saves.
    dist.init_process_group("gloo", timeout=timedelta(days=1))
    yield Processes(dist.get_rank(), count)
    gc.collect()  # a model in a cycle of references would outlive the group whose threads it uses
    dist.destroy_process_group()


@contextmanager
def noticing_loss() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost("another process has ended, or does not answer") from error
