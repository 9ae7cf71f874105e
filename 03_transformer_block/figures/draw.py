"""Draws the figures of module 03: python 03_transformer_block/figures/draw.py"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from tiny_transformer.setup.plots import BLUE, GREEN, ORANGE, RED, save, use_style
from tiny_transformer.transformer_block.reference import TransformerBlock, gelu

use_style()
torch.manual_seed(0)

x = torch.linspace(-4, 4, 400, requires_grad=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(5.8, 2.3))
for name, function, color in (("ReLU", torch.relu, ORANGE), ("GELU", gelu, BLUE)):
    y = function(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    left.plot(x.detach(), y.detach(), color=color, label=name)
    right.plot(x.detach(), slope, color=color)
left.set(xlabel="x", ylabel="value")
right.set(xlabel="x", ylabel="slope")
left.legend()
save(figure, __file__, "gelu.svg")


def pre_ln(block: TransformerBlock, x: Tensor) -> Tensor:
    return block(x)


def post_ln(block: TransformerBlock, x: Tensor) -> Tensor:
    x = block.ln_1(x + block.attention(x))
    return block.ln_2(x + block.feed_forward(x))


def no_residuals(block: TransformerBlock, x: Tensor) -> Tensor:
    return block.feed_forward(block.ln_2(block.attention(block.ln_1(x))))


def neither(block: TransformerBlock, x: Tensor) -> Tensor:
    return block.feed_forward(block.attention(x))


def gradient_norms(run: Callable[[TransformerBlock, Tensor], Tensor], depth: int) -> list[float]:
    """Of each block's down.weight, for a loss on the normalized top of the stack."""
    torch.manual_seed(0)
    blocks = [TransformerBlock(64, 4, 256) for _ in range(depth)]
    for p in (p for block in blocks for p in block.parameters()):
        torch.nn.init.xavier_uniform_(p) if p.dim() == 2 else None
    x = torch.randn(8, 32, 64)
    for block in blocks:
        x = run(block, x)
    top = torch.nn.functional.layer_norm(x, (64,))
    (top * torch.randn_like(top)).mean().backward()
    return [block.feed_forward.down.weight.grad.norm().item() for block in blocks]


figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3))
for name, run, color in (
    ("Pre-LN", pre_ln, BLUE),
    ("Post-LN", post_ln, ORANGE),
    ("no residuals", no_residuals, GREEN),
    ("neither norm nor residual", neither, RED),
):
    left.plot(range(1, 25), gradient_norms(run, 24), ".-", color=color, label=name)
left.set(yscale="log", xlabel="block of 24, from the bottom", ylabel="gradient norm")
figure.legend(loc="outside upper center", ncols=4)
depths = [1, 2, 4, 8, 16, 32, 48]
for run, color in ((pre_ln, BLUE), (post_ln, ORANGE)):
    last = [gradient_norms(run, depth)[-1] for depth in depths]
    right.plot(depths, last, "o-", color=color)
right.set(xscale="log", yscale="log", xlabel="number of blocks", ylabel="gradient norm of the last")
right.set_xticks(depths, depths)
right.set_yticks([0.01, 0.02, 0.04], ["0.01", "0.02", "0.04"])
right.minorticks_off()
save(figure, __file__, "gradients.svg")
