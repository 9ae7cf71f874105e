"""What a training step of preset `gpu` takes of a graphics card's memory, estimated without one.

`python 09_capstone/benchmarks/gpu_memory.py`. PyTorch counts the tensors of an eager step whose
numbers it does not compute; the driver's own share, some hundred MiB, comes on top.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from table import print_table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.tiny_lm.modern import build, put_before
from tiny_transformer.training.reference import make_optimizer, train_step

MODEL, TRAIN = PRESETS["gpu"].model, PRESETS["gpu"].train


def main() -> None:
    rows = []
    for accumulate in (1, 2, 4):
        sizes = [peak_mib(accumulate, bf16) for bf16 in (True, False)]
        rows.append([str(accumulate), *(f"{size:,.0f}" for size in sizes)])
    print_table(["train.accumulate", "MiB in 16 bits", "MiB in float32"], rows)


def peak_mib(accumulate: int, bf16: bool) -> float:
    tracker = MemTracker()

    class PassOfMany(nn.Module):
        def __call__(self, tokens: Tensor) -> Tensor:
            tracker.reset_mod_stats()  # it expects one pass a step
            return super().__call__(tokens)

    with FakeTensorMode(allow_non_fake_inputs=True), fused_attention():
        model = build(MODEL)
        put_before(PassOfMany, model)
        optimizer = make_optimizer(model, TRAIN)
        batch = torch.zeros(2, TRAIN.batch_size, MODEL.max_len, dtype=torch.long)
        tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(2):  # the first makes the optimizer's averages
                train_step(model, optimizer, *batch, TRAIN.max_norm, accumulate, bf16)
        return tracker.get_tracker_snapshot("peak")[batch.device]["Total"] / 2**20


@contextmanager
def fused_attention() -> Iterator[None]:
    """A CPU's has no dropout, and would fall back to the plain one; a card's keeps no mask."""
    original = F.scaled_dot_product_attention

    def without_dropout(*args: Tensor, dropout_p: float, **options: bool) -> Tensor:
        return original(*args, **options)

    with patch.object(F, "scaled_dot_product_attention", without_dropout):
        yield


if __name__ == "__main__":
    main()
