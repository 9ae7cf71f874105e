"""What is seen without a second device is what PyTorch's device `meta` says, or nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.setup.grading.elsewhere import ELSEWHERE, certainly_there, never_leaves
from tiny_transformer.setup.grading.habits import stays_on_the_device


def goes_unused(x):
    mask = torch.ones(3, 3)
    mask.to(x.device)
    return x.masked_fill(mask == 0, 1.0)


class Keeps(nn.Module):
    """Its `kept` moves with it as a buffer, and does not as an attribute."""

    def __init__(self, buffer):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        if buffer:
            self.register_buffer("kept", torch.ones(3))
        else:
            self.kept = torch.ones(3)

    def forward(self, x):
        return self.linear(x) + self.kept


@pytest.mark.parametrize(
    "stays",
    [
        lambda x: x @ x.T / 3 - x.amax(-1, keepdim=True),
        lambda x: x + torch.arange(3, device=x.device),
        lambda x: x + torch.ones(3).to(x.device),
        lambda x: x.masked_fill(torch.ones(3, 3, device=x.device).tril() == 0, 1.0),
        lambda x: torch.cat([x.new_zeros(3, 3), torch.zeros_like(x), *x.chunk(3)]),
        lambda x: (x.max(-1).values, x.topk(2).indices),
        lambda x: torch.einsum("ij,kj->ik", x.double().to(torch.float32), x),
        lambda x: F.softmax(x[:, None], dim=-1)[0, 0],
        Keeps(buffer=True),
    ],
)
def test_code_that_makes_nothing_here_stays(stays):
    x = torch.randn(3, 3)
    assert never_leaves(stays, x)
    results = (stays.to("meta") if isinstance(stays, nn.Module) else stays)(x.to("meta"))
    for result in results if isinstance(results, tuple) else (results,):
        assert result.is_meta


CONSTANT = torch.ones(3)


@pytest.mark.parametrize(
    "leaves",
    [
        lambda x: x + torch.arange(3),
        lambda x: x + torch.arange(3, device="cpu"),
        lambda x: x + CONSTANT,
        lambda x: CONSTANT,
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.to(CONSTANT.device),
        lambda x: x + torch.zeros_like(x, device="cpu:0"),
        lambda x: x + x.new_zeros(3, device=torch.device("cpu", 0)),
        lambda x: torch.from_numpy(x.numpy()) + x,
        lambda x: x.new_tensor(x.numpy()),
        lambda x: x * float(np.max(x.detach())),
        lambda x: torch.tensor(x.tolist()),
        lambda x: None,
        lambda x: [x],
        lambda x: (x, (x,)),
        lambda x: (row for row in x),
        lambda x: x / torch.tensor(2.0),
        lambda x: x + nn.Linear(3, 3)(x),
        lambda x: F.embedding(torch.arange(3), x),
        goes_unused,
        Keeps(buffer=False),
    ],
)
def test_what_is_made_here_is_not_vouched_for(leaves):
    assert not never_leaves(leaves, torch.randn(3, 3))


def test_what_is_kept_for_each_device_is_not_taken_for_that_of_another():
    kept = {}

    def by_type(x):
        mask = kept.setdefault(x.device.type, torch.ones(3, device=x.device))
        return x + mask

    for _ in range(3):
        stays_on_the_device(by_type, torch.randn(3, 3))


@pytest.mark.parametrize(
    "right, made",
    [
        (True, lambda T, device: torch.ones(T, T, device=device).tril()),
        (True, lambda T, device: torch.ones(T, T, device=torch.device(device or "cpu"))),
        (False, lambda T, device: torch.ones(T, T, device=device) + torch.ones(T)),
        (False, lambda T, device: torch.ones(T, T, device=device).cpu()),
        (False, lambda T, device: torch.ones(T, T)),
    ],
)
def test_whether_what_is_made_lies_where_it_was_asked_for(right, made):
    assert certainly_there([], made, 3, ELSEWHERE) == right


def test_what_is_printed_meanwhile_is_not_seen(capsys):
    assert never_leaves(lambda x: print(x.device) or x, torch.randn(3))
    assert not capsys.readouterr().out


def test_what_it_runs_is_a_copy():
    x, linear = torch.zeros(3, 3), nn.Linear(3, 3)
    assert never_leaves(lambda module, x: module(x.add_(1)) + module.weight.data.mul_(9), linear, x)
    assert x.eq(0).all() and linear.weight.abs().max() < 1
