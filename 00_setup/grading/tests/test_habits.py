"""The habit checks themselves: each must let good code pass and stop the code it is there for."""

import pytest
import torch
from torch import nn

from tiny_transformer.setup.grading.habits import (
    HABITS,
    keeps_the_dtype,
    keeps_the_graph,
    leaves_its_inputs_alone,
    refuses,
    stays_on_the_device,
    takes_any_memory_layout,
)


@pytest.mark.parametrize("habit", HABITS)
def test_good_code_passes(habit):
    habit(lambda x, mask: x.masked_fill(~mask, 0.0).cumsum(-1), torch.randn(3, 3), torch.eye(3) > 0)
    habit(nn.Linear(3, 4), torch.randn(2, 3))
    habit(lambda x: (x / torch.tensor(4.0).sqrt(), x.size(0) * x), torch.randn(3))
    habit(lambda x: x.index_put((x > 0,), x[x > 0] * 2), torch.randn(3))


@pytest.mark.parametrize(
    "habit, wrong, told",
    [
        (leaves_its_inputs_alone, lambda x: x.mul_(2), "x was changed in place"),
        (keeps_the_dtype, lambda x: x.float() * 2, "float64 went in and torch.float32 came out"),
        (keeps_the_dtype, lambda x: x * torch.ones(3), "bfloat16 went in and torch.float32 came"),
        (takes_any_memory_layout, lambda x: x.view(-1), "view size is not compatible"),
        (keeps_the_graph, lambda x: x.detach() * 2, "no gradient reaches x"),
        (keeps_the_graph, lambda x: (x * 2, x.detach()), "comes through result 2 of 2"),
        (keeps_the_graph, lambda x: x / x.square().sum().detach(), "is not the slope of the"),
        (takes_any_memory_layout, lambda x: x + torch.rand(3), "is drawn by chance"),
        (stays_on_the_device, lambda x: x + torch.arange(3), "on the CPU wherever the input lies"),
        (stays_on_the_device, lambda x: torch.zeros(3), "the result on cpu"),
    ],
)
def test_a_bad_habit_is_stopped(habit, wrong, told):
    with pytest.raises((AssertionError, RuntimeError), match=told):
        habit(wrong, torch.randn(2, 3))


def fail(error):
    raise error


def test_a_value_error_is_a_refusal():
    refuses(fail, ValueError("k is 0"))


def test_another_error_is_no_refusal_and_is_told():
    with pytest.raises(pytest.fail.Exception, match="and KeyError was raised: 'k'"):
        refuses(fail, KeyError("k"))


def test_an_answer_is_no_refusal_and_is_told():
    with pytest.raises(pytest.fail.Exception, match=r"a tensor \(2, 3\) came back"):
        refuses(torch.zeros, 2, 3)


def test_what_is_not_started_is_no_answer():
    with pytest.raises(NotImplementedError):
        refuses(fail, NotImplementedError())


def test_a_parameter_that_no_gradient_reaches_is_named():
    class Cut(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.detach().mT + self.bias

    with pytest.raises(AssertionError, match="no gradient reaches weight"):
        keeps_the_graph(Cut(3, 4), torch.randn(2, 3))
