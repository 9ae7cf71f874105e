"""Habits that bite later: what code does to its input, its dtype, its gradient and its device.

A habit is a check that takes a function (or an nn.Module) and inputs for it, and fails with one
sentence. Module tests run all of them: `@pytest.mark.parametrize("habit", HABITS)`. `refuses` is
for the inputs that a docstring calls a ValueError.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_transformer.setup.grading.elsewhere import never_leaves, run

# What PyTorch says on its `meta` device to code that looks at numbers, or for those that are not 0.
NEED_NUMBERS = "Tensor.item() cannot be called on meta", "no data!", "torch.nonzero()"

STEP = 1e-3  # by which a gradient is checked: above the rounding of float32


def leaves_its_inputs_alone(function: Callable, *inputs: Any) -> None:
    before = copy.deepcopy(inputs)
    function(*inputs)
    for name, now, then in zip(names_of(function, inputs), inputs, before, strict=True):
        if isinstance(now, Tensor):
            assert torch.equal(now, then), (
                f"{name} was changed in place: its owner will meet other numbers than it "
                "left there. Make a new tensor instead of writing into the one you were given."
            )


def names_of(function: Callable, inputs: tuple) -> list[str]:
    """How the function calls what it is given: its parameters, where they can be told."""
    try:
        known = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):  # some of PyTorch's own do not say
        known = []
    names = [each.name for each in known if each.kind is each.POSITIONAL_OR_KEYWORD]
    return [*names, *(f"argument {i}" for i in range(len(names), len(inputs)))][: len(inputs)]


def keeps_the_dtype(function: Callable, *inputs: Any) -> None:
    if not (isinstance(function, nn.Module) or any(map(floating, inputs))):
        return
    outputs = run(function, *inputs)
    source = "the input"
    if isinstance(function, nn.Module):
        source += " or a parameter; what is neither should be a buffer, which its module converts"
    for dtype in (torch.float64, torch.bfloat16):  # which hides a fixed float32, and which shows it
        again = run(*(converted(value, dtype) for value in (function, *inputs)))
        for output, other in zip(outputs, again, strict=True):
            expected = dtype if output.is_floating_point() else output.dtype
            assert other.dtype == expected, (
                f"{dtype} went in and {other.dtype} came out: a dtype is fixed somewhere. Models "
                f"are trained in several; take the dtype from {source}."
            )
            if dtype == torch.float64:
                torch.testing.assert_close(other.to(output.dtype), output, rtol=1e-4, atol=1e-5)


def takes_any_memory_layout(function: Callable, *inputs: Any) -> None:
    outputs = run(function, *inputs)
    for output, again in zip(outputs, run(function, *inputs), strict=True):
        assert torch.allclose(output.double(), again.double(), atol=1e-5, equal_nan=True), (
            "two calls with the same input give different results: something is drawn by chance, "
            "or kept from one call to the next."
        )
    for output, again in zip(outputs, run(function, *map(scattered, inputs)), strict=True):
        torch.testing.assert_close(again, output)


def keeps_the_graph(function: Callable, *inputs: Any) -> None:
    leaves = [value.detach().requires_grad_() if floating(value) else value for value in inputs]
    outputs = [output for output in run(function, *leaves) if output.is_floating_point()]
    names = names_of(function, inputs)
    wanted = {name: leaf for name, leaf in zip(names, leaves, strict=True) if floating(leaf)}
    if isinstance(function, nn.Module):
        wanted |= dict(function.named_parameters())
    cut = (
        "no gradient reaches {}: the result does not depend on it, or the graph is cut (detach, "
        ".item(), .data, numpy, no_grad do that)."
    )
    assert any(output.requires_grad for output in outputs), cut.format(", ".join(wanted))
    for i, output in enumerate(outputs):
        assert output.requires_grad, (
            f"no gradient comes through result {i + 1} of {len(outputs)}: the graph is cut "
            "(detach, .item(), .data, numpy, no_grad do that)."
        )
    shares = [torch.randn_like(output) for output in outputs]
    total = sum((output * share).sum() for output, share in zip(outputs, shares, strict=True))
    gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    for name, gradient in zip(wanted, gradients, strict=True):
        assert gradient is not None, cut.format(name)
    for (name, leaf), gradient in zip(wanted.items(), gradients, strict=True):
        step = leaf.detach() * torch.randn_like(leaf)  # no number changes its sign, and 0 stays
        try:
            slope, rounding = slope_along(step, leaf, lambda: run(function, *leaves), shares)
        except Exception:  # these numbers are none that it takes
            continue
        off = (slope - (gradient * step).sum()).abs()
        assert not off > 0.05 * ((gradient * leaf).norm() + slope.abs()) + rounding, (
            f"the gradient of {name} is not the slope of the result: on one of the ways that lead "
            "from it nothing comes back. Rounding, comparing, detach, .item(), .data, numpy and "
            "no_grad make constants."
        )


@torch.no_grad()
def slope_along(
    step: Tensor, leaf: Tensor, outputs: Callable[[], list[Tensor]], shares: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """How fast the sum of shares x outputs rises as `leaf` moves by `step`, and how exact that is.

    Where chance has a hand in the outputs it is not exact at all.
    """

    def parts() -> Tensor:
        floats = [output for output in outputs() if output.is_floating_point()]
        return torch.cat([(a * b).flatten() for a, b in zip(shares, floats, strict=True)])

    before, now = leaf.clone(), parts()
    try:
        leaf += STEP * step
        up = parts()
        leaf.copy_(before - STEP * step)
        down = parts()
    finally:
        leaf.copy_(before)
    chance = (parts() - now).abs().sum()
    return (up - down).sum() / (2 * STEP), (1e-6 * now.abs().sum() + chance) / STEP


def stays_on_the_device(function: Callable, *inputs: Any) -> None:
    """In doubt `meta` tells, PyTorch's device of shapes without numbers, which any machine has."""
    if never_leaves(function, *inputs):
        return
    try:
        outputs = run(*(converted(value, "meta") for value in (function, *inputs)))
    except RuntimeError as error:
        if any(words in str(error) for words in NEED_NUMBERS):
            return  # the code looks at its numbers: nothing to see without any
        assert "device" not in str(error), (
            "a tensor is made on the CPU wherever the input lies: give torch.arange, zeros, ones "
            f"and the like device=x.device, or a GPU will refuse. PyTorch says: {error}"
        )
        raise
    for output in outputs:
        assert output.device.type == "meta", (
            f"the input lies on one device and the result on {output.device}: make new tensors "
            "on x.device."
        )


def refuses(function: Callable, *inputs: Any, **options: Any) -> None:
    """Fail with what came in the place of the ValueError that was promised."""
    try:
        result = function(*inputs, **options)
    except ValueError:
        return
    except NotImplementedError:
        raise
    except Exception as error:
        pytest.fail(
            f"A ValueError is promised here, and {type(error).__name__} was raised"
            f"{f': {error}' if str(error) else ', without a message.'}",
            pytrace=False,
        )
    pytest.fail(
        f"A ValueError is promised here, and none was raised: {described(result)} came back.",
        pytrace=False,
    )


def described(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"a tensor {tuple(result.shape)}"
    return f"a {type(result).__name__}" if result is not None else "None"


def has_parameters(module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    """That what a module learns has these names and shapes, by which saved weights are loaded."""
    found = {name: tuple(p.shape) for name, p in module.named_parameters()}
    for name in shapes.keys() - found.keys():
        there = getattr(module, name, None)
        assert not isinstance(there, Tensor), (
            f"its `{name}` is a tensor and no nn.Parameter: no optimizer would be given it."
        )
        assert not isinstance(there, nn.Module), (
            f"its `{name}` is a whole {type(there).__name__}, with a parameter of its own inside; "
            f"`{name}` should be that nn.Parameter itself, {shapes[name]}."
        )
    told = f"its parameters are {listed(found)}; they should be {listed(shapes)}"
    assert found.keys() == shapes.keys(), f"{told}: saved weights go by these names."
    assert found == shapes, f"{told}: saved weights have these shapes."
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert not frozen, f"its {listed(frozen)} cannot learn: requires_grad is False."


def is_dropped_out(out: Tensor, whole: Tensor, p: float, told: str = "the output") -> None:
    """That `out` is `whole` after dropout: each number 0 by chance p, or else over 1 - p."""
    broken = (~out.isfinite()).sum().item()
    assert not broken or not whole.isfinite().all(), (
        f"with dropout={p} in training, {broken} numbers of {told} are nan or inf, which are "
        "finite without it. Dropout makes zeros: is anything divided by one of them, or by their "
        "sum? What is left after dropout is not normalized again."
    )
    zeros = (out == 0).float().mean().item()
    assert abs(zeros - p) < 5 * (p * (1 - p) / out.numel()) ** 0.5, (
        f"with dropout={p} in training, {zeros:.0%} of the numbers of {told} are 0; it should be "
        f"{p:.0%}: dropout acts on {told}, after all else and one time."
    )
    kept = out != 0
    assert torch.allclose(out[kept] * (1 - p), whole[kept], rtol=1e-4, atol=1e-5), (
        f"what dropout={p} leaves of {told} should be the numbers that come without dropout, "
        f"each over 1 - {p}; they are others. Dropout acts on {told}, after all else."
    )


def listed(names: Any) -> str:
    shapes = [f"{name} {names[name]}" for name in names] if isinstance(names, dict) else names
    return ", ".join(shapes) or "none"


HABITS = [
    leaves_its_inputs_alone,
    keeps_the_dtype,
    takes_any_memory_layout,
    keeps_the_graph,
    stays_on_the_device,
]


def floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def converted(value: Any, to: torch.dtype | str) -> Any:
    """`value` in another dtype (where it is floating) or on another device."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(to)
    if floating(value) or (isinstance(value, Tensor) and to == "meta"):
        return value.to(to)
    return value


def scattered(value: Any) -> Any:
    """The same tensor, its numbers in another order in memory, as after a transpose."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if value.dim() == 1:
        return torch.stack((value, value), dim=-1)[:, 0]
    return value.transpose(0, -1).contiguous().transpose(0, -1)
