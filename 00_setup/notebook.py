# %% [markdown]
# # 00 · Setup: see the shapes
#
# Open this beside [theory.md](theory.md). Each part asks you to predict first: say the answer,
# then run the cell. Change a number and run it again. JupyterLab keeps the answers covered until
# you run their cells.

# %%
import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.setup.plots import (
    BLUE,
    GRAY,
    ORANGE,
    ORANGE_TO_BLUE,
    show,
    slider,
    use_style,
)
from tiny_transformer.setup.reference import (
    Linear,
    fold_batch_time,
    pairwise_dots,
    pick_scores,
    sgd_step,
    shift_targets,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
_ = torch.manual_seed(0)

# %% [markdown]
# ## Broadcasting
#
# **Predict** the four shapes. Two axes fit if they are equal, or if one is 1 or missing. One of the
# four is an error.

# %%
x = torch.zeros(8, 64, 128)  # (B, T, d_model)
for shape in ((128,), (64, 128), (8, 1, 128), (8, 64)):
    try:
        print(f"{str(shape):12} -> {tuple((x + torch.zeros(shape)).shape)}")
    except RuntimeError:
        print(f"{str(shape):12} -> error: from the right, {shape[-1]} meets {x.size(-1)}")

# %% [markdown]
# ## Reshape is not transpose
#
# The same twelve numbers, reshaped and transposed to (4, 3). **Predict** where 1 will be.

# %%
numbers = torch.arange(12).view(3, 4)
views = {"(3, 4)": numbers, "reshape(4, 3)": numbers.reshape(4, 3), "transpose": numbers.T}
figure, axes = plt.subplots(1, 3, figsize=(7, 2.6))
for ax, (title, view) in zip(axes, views.items(), strict=True):
    ax.imshow(view, cmap="Blues", vmin=-2, vmax=24)
    for (row, column), number in zip(
        torch.cartesian_prod(*map(torch.arange, view.shape)).tolist(),
        view.flatten().tolist(),
        strict=True,
    ):
        ax.text(column, row, number, color="black", ha="center", va="center")
    ax.set(title=title, xlabel="axis 1", ylabel="axis 0", xticks=[], yticks=[])
show(figure, "Three tables of the numbers 0 to 11, with three, four and four rows")

# %% [markdown]
# Look at the direction in which the color grows: reshape keeps the reading order, transpose turns
# it.

# %% [markdown]
# **Now you.** Folding (2, 3, 5) to rows puts one sequence after the other. Which row of the result
# is position 1 of sequence 1? Put your number in place of None; the assert checks it.

# %%
answer = None
rows = fold_batch_time(torch.arange(30).view(2, 3, 5))
assert answer is None or rows[answer].tolist() == [20, 21, 22, 23, 24], (
    "count whole sequences first"
)

# %% [markdown]
# ## Every query meets every key
#
# Six random vectors in the plane, and their dot products: blue above 0, orange below. **Predict**
# the color of the diagonal (each vector with itself).

# %%
points = torch.randn(6, 2)
dots = pairwise_dots(points, points)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
for i, (a, b) in enumerate(points.tolist()):
    left.annotate("", (a, b), (0, 0), arrowprops={"arrowstyle": "->", "color": BLUE})
    left.text(1.2 * a, 1.2 * b, i, ha="center", va="center")
left.set(xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), xlabel="feature 0", ylabel="feature 1")
left.set(title="six vectors", aspect="equal")
image = right.imshow(dots, cmap=ORANGE_TO_BLUE, vmin=-5, vmax=5)
figure.colorbar(image, ax=right)
right.set(xlabel="key", ylabel="query", title="their dot products")
show(figure, "Six numbered arrows from the origin, and a table of the product of each pair")

# %% [markdown]
# Look at pairs of arrows that point the same way (blue), apart (orange) and at right angles (no
# color). Then cover the right picture, and find the most orange pair on the left.

# %% [markdown]
# ## Next token: a shift and a choice
#
# **Predict** the four targets of "to be". Training tries to raise every score that is printed here.

# %%
characters = sorted(set("to be"))
tokens = torch.tensor([[characters.index(c) for c in "to be"]])
inputs, targets = shift_targets(tokens)
logits = torch.randn(1, 4, len(characters))
for i, o, s in zip(inputs[0], targets[0], pick_scores(logits, targets)[0], strict=True):
    print(f"after {characters[i]!r} comes {characters[o]!r}; its score is {s:.2f}")

# %% [markdown]
# ## How wide a layer starts
#
# Outputs of linear layers whose inputs have variance 1. **Predict**: does the spread grow with the
# width of the input? For which of the two rules?

# %%
widths = [2**n for n in range(2, 11)]
ours = [Linear(d, 400)(torch.randn(400, d)).std().item() for d in widths]
unit = [(torch.randn(400, d) @ torch.randn(d, 400)).std().item() for d in widths]
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.loglog(widths, unit, "o-", color=ORANGE, label="weights of variance 1")
ax.loglog(widths, ours, "o-", color=BLUE, label="uniform in ±1 / √d_in")
ax.set_xticks(widths, widths)
ax.set_yticks([0.5, 1, 2, 4, 8, 16, 32], ["½", 1, 2, 4, 8, 16, 32])
ax.minorticks_off()
ax.set(xlabel="d_in", ylabel="standard deviation of the output")
ax.legend()
show(figure, "Spread of the outputs against the width, from 4 to 1024, a line for each rule")

# %% [markdown]
# Look at the orange line: with weights of variance 1 the outputs grow like the root of the width.

# %% [markdown]
# ## Gradient descent on a valley
#
# The loss is (wx − 10)² with x = 2, so the best weight is 5. Each step goes against the gradient.
# **Predict** what happens at learning rate 0.05, at 0.24, and at 0.26.


# %%
def descend(lr=0.1, steps=8):
    w = torch.tensor(3.0, requires_grad=True)
    path = [w.item()]
    for _ in range(steps):
        w.grad = None
        ((w * 2 - 10) ** 2).backward()
        sgd_step([w], lr)
        path.append(w.item())
    return path


def draw(ax, lr, color=BLUE):
    path = torch.tensor(descend(lr))
    ax.plot(path, (path * 2 - 10) ** 2, "o-", color=color)
    ax.set(title=f"learning rate {lr:.2f}", xlabel="w", ylabel="loss", xlim=(1, 9), ylim=(-2, 66))


def valley(ax):
    grid = torch.linspace(1, 9, 100)
    ax.plot(grid, (grid * 2 - 10) ** 2, color=GRAY)


figure, axes = plt.subplots(1, 3, figsize=(8, 2.6), sharey=True)
for ax, lr in zip(axes, (0.05, 0.24, 0.26), strict=True):
    valley(ax)
    draw(ax, lr)
show(figure, "Nine dots joined by lines on a valley, once for each of three learning rates")

# %% [markdown]
# Look at the dots: each is one step, from w = 3. Beyond a certain rate every step overshoots by
# more than it corrects.
#
# With the slider (in a running notebook) you can find the border. Gray dots are the steps at 0.1.


# %%
@interact(lr=slider(0.1, 0.01, 0.3, 0.01))
def explore(lr):
    figure, ax = plt.subplots(figsize=(4, 2.6))
    valley(ax)
    draw(ax, 0.1, GRAY)
    draw(ax, lr)
    show(figure, f"Eight steps down the valley at learning rate {lr:.2f}")


# %% [markdown]
# **Now you.** A step multiplies the distance to 5 by 1 − 8·lr (differentiate the loss twice). At
# which learning rate does one step land exactly on 5?

# %%
answer = None
assert answer is None or abs(descend(answer, 1)[-1] - 5) < 1e-5, "set 1 - 8 lr to 0"
