# %% [markdown]
# # 03 · The transformer block: what norms and residuals are for
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell.

# %%
import math
from functools import cache

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from ipywidgets import interact

from tiny_transformer.setup.plots import BLUE, GRAY, GREEN, ORANGE, RED, show, slider, use_style
from tiny_transformer.transformer_block.reference import (
    LayerNorm,
    RMSNorm,
    TransformerBlock,
    gelu,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
_ = torch.manual_seed(0)

# %% [markdown]
# ## GELU
#
# **Predict** where GELU is lowest, and how low.

# %%
x = torch.linspace(-4, 4, 400)
figure, ax = plt.subplots(figsize=(4.6, 2.6))
ax.plot(x, x.relu(), color=ORANGE, label="ReLU")
ax.plot(x, gelu(x), color=BLUE, label="GELU, tanh form")
ax.set(xlabel="x", ylabel="value")
ax.legend()
show(figure, "ReLU and GELU from −4 to 4")
print(f"lowest: {gelu(x).min():.3f} at {x[gelu(x).argmin()]:.2f}")
print(f"tanh form against erf: at most {(gelu(x) - F.gelu(x)).abs().max():.4f} apart")

# %% [markdown]
# Look left of zero, where ReLU is flat and GELU is not.

# %% [markdown]
# ## Two norms, one vector
#
# (1, 2, 3, 6), then the same plus 10, then times 10. **Predict** which of the two norms notices the
# plus 10.

# %%
x = torch.tensor([1.0, 2.0, 3.0, 6.0])
for name, norm in (("LayerNorm", LayerNorm(4)), ("RMSNorm", RMSNorm(4))):
    for words, vector in (("x", x), ("x + 10", x + 10), ("10 x", 10 * x)):
        print(f"{name:10}{words:7}", [round(v, 2) for v in norm(vector).tolist()])

# %% [markdown]
# **Now you.** What is the root mean square of (3, 4)? Give it to two digits after the point.

# %%
answer = None
assert answer is None or abs(answer - torch.tensor([3.0, 4.0]).square().mean().sqrt()) < 0.01, (
    "the mean of 9 and 16, then the root"
)

# %% [markdown]
# ## The stream grows
#
# The size of the residual stream before each of 24 blocks, and of what attention reads of it.
# **Predict** the shape of both lines.

# %%
depth = 24
blocks = [TransformerBlock(64, 4, 256) for _ in range(depth)]
x = torch.randn(8, 32, 64)
sizes, read = [], []
for block in blocks:
    sizes.append(x.std().item())
    read.append(block.ln_1(x).std().item())
    x = block(x)
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.plot(sizes, label="stream")
ax.plot(read, label="what attention reads")
ax.set(xlabel="block", ylabel="standard deviation", ylim=(0, None))
ax.legend()
show(figure, "Standard deviation of the stream, and of what attention reads, by block")

# %% [markdown]
# Look at blue: every half adds something, so the stream grows. Orange is what a half reads: the
# norm keeps it at 1 whatever the stream does.

# %% [markdown]
# ## The gradient by depth
#
# The same stack wired in four ways. **Predict** which lines are level and which falls.


# %%
def pre_ln(block, x):
    return block(x)


def post_ln(block, x):
    x = block.ln_1(x + block.attention(x))
    return block.ln_2(x + block.feed_forward(x))


def no_residuals(block, x):
    return block.feed_forward(block.ln_2(block.attention(block.ln_1(x))))


def neither(block, x):
    return block.feed_forward(block.attention(x))


WIRINGS = {
    "Pre-LN": (pre_ln, BLUE),
    "Post-LN": (post_ln, ORANGE),
    "no residuals": (no_residuals, GREEN),
    "neither norm nor residual": (neither, RED),
}


@cache
def gradients(wire, depth):
    torch.manual_seed(0)
    blocks = [TransformerBlock(64, 4, 256) for _ in range(depth)]
    x = torch.randn(4, 16, 64)
    for block in blocks:
        for p in (p for p in block.parameters() if p.dim() == 2):
            torch.nn.init.xavier_uniform_(p)
        x = wire(block, x)
    top = F.layer_norm(x, (64,))
    (top * torch.randn_like(top)).mean().backward()
    return [block.feed_forward.down.weight.grad.norm().item() for block in blocks]


def draw(depth):
    figure, ax = plt.subplots(figsize=(6, 3))
    for name, (wire, color) in WIRINGS.items():
        ax.plot(range(1, 25), gradients(wire, 24), color=GRAY, linewidth=1)
        ax.plot(range(1, depth + 1), gradients(wire, depth), ".-", color=color, label=name)
    ax.set(yscale="log", xlabel="block, from the bottom", ylabel="gradient norm")
    ax.set(xlim=(0, 33), ylim=(1e-14, 10))
    ax.legend(fontsize="small", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    show(figure, f"Gradient norm by block in stacks of {depth}, a line for each of four wirings")


_ = interact(draw, depth=slider(24, 2, 32, 2, continuous_update=False))

# %% [markdown]
# Look at red: with neither norm nor residual the gradient is gone after some blocks. The three
# stacks with norms keep it alive; Pre-LN, the blue one, is what the course uses.
#
# With the slider you can build lower and higher. Gray is the stack of 24.

# %% [markdown]
# ## What is left of a position?
#
# The mean cosine of two positions on their way up: 0 means unrelated, 1 the same. **Predict** what
# averaging again and again does to the positions.


# %%
def likeness(x):
    x = F.normalize(x - x.mean(dim=-1, keepdim=True), dim=-1)
    return (x @ x.mT).mean().item()


figure, ax = plt.subplots(figsize=(5, 2.6))
with torch.no_grad():
    for name in ("Pre-LN", "no residuals"):
        wire, color = WIRINGS[name]
        x, alike = torch.randn(8, 32, 64), []
        for block in blocks:
            alike.append(likeness(x))
            x = wire(block, x)
        ax.plot(alike, ".-", color=color, label=name)
ax.set(xlabel="block", ylabel="cosine of two positions", ylim=(0, 1.05))
ax.legend()
show(figure, "Cosine of two positions by block, with residuals and without")

# %% [markdown]
# Look at how soon green reaches 1: without the plus signs every position becomes the same vector.

# %% [markdown]
# ## Does it learn?
#
# A small task: 8 blocks of width 32 must say which token stood 3 places back. Same seeds, same
# steps, two wirings. **Predict** which of them gets below ln 8 = 2.08, the loss of a guess.


# %%
def learn(wire, steps=80):
    torch.manual_seed(0)
    table = torch.nn.Embedding(8 + 16, 32)
    head = torch.nn.Linear(32, 8)
    stack = torch.nn.ModuleList(TransformerBlock(32, 4, 64) for _ in range(8))
    parameters = [*table.parameters(), *head.parameters(), *stack.parameters()]
    optimizer, losses = torch.optim.AdamW(parameters, lr=3e-3), []
    for _ in range(steps):
        tokens = torch.randint(8, (32, 16))
        x = table(tokens) + table(8 + torch.arange(16))
        for block in stack:
            x = wire(block, x)
        logits = head(F.layer_norm(x, (32,)))[:, 3:]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, :-3].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


figure, ax = plt.subplots(figsize=(5, 2.6))
for name in ("Pre-LN", "no residuals"):
    wire, color = WIRINGS[name]
    ax.plot(learn(wire), color=color, label=name)
ax.axhline(math.log(8), color=GRAY, linestyle=":", label="a guess")
ax.set(xlabel="step", ylabel="loss in nats", ylim=(0, 3))
ax.legend()
show(figure, "Loss of both wirings in 80 steps, and the loss of a guess")

# %% [markdown]
# Look at green: a stack that forgets its positions has nothing to learn from.

# %% [markdown]
# **Now you.** How many parameters has a block with d_model 64 and d_ff 256, biases and norms
# included? Count by hand, as in the theory.

# %%
answer = None
assert answer is None or answer == sum(p.numel() for p in blocks[0].parameters()), (
    "4 (d² + d) for attention, 2 d d_ff + d_ff + d for the network, 4 d for two norms"
)
