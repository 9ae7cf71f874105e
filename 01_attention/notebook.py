# %% [markdown]
# # 01 · Attention: turn the knobs
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell.

# %%
import math

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.attention.reference import (
    SelfAttention,
    attention_scores,
    causal_mask,
    scaled_dot_product_attention,
    stable_softmax,
)
from tiny_transformer.setup.plots import BLUE, ORANGE, show_weights, use_style

use_style()
_ = torch.manual_seed(0)

# %% [markdown]
# ## One query, three keys
#
# The worked example of the theory: scores 0, 1, 2 and values 10, 20, 30. **Predict** the result if
# all three keys were the same.

# %%
q = torch.ones(1, 4)
k = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
v = torch.tensor([[10.0], [20.0], [30.0]])
out, weights = scaled_dot_product_attention(q, k, v)
same, even = scaled_dot_product_attention(q, torch.ones(3, 4), v)
print("weights", [round(w, 3) for w in weights[0].tolist()])
print(f"result {out.item():.2f}; with equal keys {same.item():.2f}")

# %% [markdown]
# ## How sharp is a softmax?
#
# The same scores, multiplied by a factor, as a wider head without the scale would do. **Predict**
# the map at factor 0, and at factor 10.
#
# Look at each row: it always sums to 1, but it goes from even, through soft, to all or nothing.

# %%
word = list("attend")
scores = torch.randn(6, 6)


def at_factor(ax, factor):
    show_weights(ax, stable_softmax(factor * scores), word, word, f"scores × {factor}")


figure, axes = plt.subplots(1, 4, figsize=(10, 2.7))
for ax, factor in zip(axes, (0, 1, 3, 10), strict=True):
    at_factor(ax, factor)


# %%
@interact(factor=(0.0, 10.0, 0.5))
def explore(factor=1.0):
    _, ax = plt.subplots(figsize=(3, 3))
    at_factor(ax, factor)
    plt.show()


# %% [markdown]
# ## Why the root of d_k
#
# Scores of random queries and keys at two widths, without and with the scale. **Predict** the
# spread of the orange histogram at d_k = 256.
#
# Look at the width of each histogram, which is the standard deviation of the scores: without the
# scale it is the root of d_k.

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.4), sharey=True)
for ax, d_k in zip(axes, (4, 256), strict=True):
    q, k = torch.randn(100, d_k), torch.randn(100, d_k)
    raw, scaled = q @ k.T, attention_scores(q, k)
    for values, color, name in ((raw, ORANGE, "q · k"), (scaled, BLUE, "divided by √d_k")):
        label = f"{name}: spread {values.std():.1f}"
        ax.hist(values.flatten(), bins=60, range=(-40, 40), color=color, alpha=0.6, label=label)
    ax.set(title=f"d_k = {d_k}", xlabel="score", ylabel="pairs", yscale="log")
    ax.set(ylim=(0.8, 1e5))
    ax.legend(fontsize="small", loc="upper left")
plt.show()

# %% [markdown]
# **Now you.** At which d_k would unscaled scores have a spread of 12?

# %%
answer = None
assert answer is None or math.isclose(answer**0.5, 12), "the spread is the root of d_k"

# %% [markdown]
# ## The gradient that comes through
#
# The derivative of each weight with respect to its own score is w (1 − w). Here it is for a row of
# 16 scores, made sharper step by step. **Predict** where it ends.
#
# Look at how the gradient fades exactly as the largest weight nears 1: a head that has made up its
# mind does not learn.

# %%
row = torch.randn(16)
factors = torch.linspace(0, 12, 60)
rows = stable_softmax(factors[:, None] * row)
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.plot(factors, rows.amax(dim=-1), label="largest weight")
ax.plot(factors, (rows * (1 - rows)).sum(dim=-1), label="sum of w (1 − w)")
ax.set(xlabel="factor on the scores", ylabel="weight, gradient")
ax.legend()
plt.show()

# %% [markdown]
# ## The mask
#
# You know these three maps from the theory; here you can break them. **Predict** the first row of
# each. Then put `causal_mask(6).T` in the place of `causal_mask(6)`: which row of "zeroed after"
# still sums to 1?
#
# Look at the upper triangle, and at the sums: zeros after the softmax leave less than 1 in a row.

# %%
mask = causal_mask(6)
maps = {
    "no mask": stable_softmax(scores),
    "masked before": stable_softmax(scores.masked_fill(~mask, -math.inf)),
    "zeroed after": stable_softmax(scores) * mask,
}
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9))
for ax, (title, weights) in zip(axes, maps.items(), strict=True):
    show_weights(ax, weights, word, word, title)
print({title: [round(x, 2) for x in w.sum(dim=-1).tolist()] for title, w in maps.items()})

# %% [markdown]
# ## Does the future leak?
#
# Change one position at a time and see which outputs notice. **Predict** the shape of the picture.
#
# Look at the triangle: a change at position s reaches only outputs t ≥ s. Set `causal` to False and
# run it again.

# %%
causal = True
head = SelfAttention(d_model=16, d_k=8)


def run(x):
    mask = causal_mask(x.size(1)) if causal else None
    return scaled_dot_product_attention(head.q_proj(x), head.k_proj(x), head.v_proj(x), mask)[0]


x = torch.randn(1, 8, 16)
effect = torch.zeros(8, 8)
for s in range(8):
    changed = x.clone()
    changed[0, s] = torch.randn(16)
    effect[:, s] = (run(changed) - run(x)).detach()[0].norm(dim=-1)
figure, ax = plt.subplots(figsize=(3.4, 3))
ax.imshow(effect, cmap="Blues")
ax.set(xlabel="changed position s", ylabel="output t", title="how much output t changes")
plt.show()

# %% [markdown]
# **Now you.** In a causal head with T = 8, how many of the 64 weights may be above 0?

# %%
answer = None
assert answer is None or answer == causal_mask(8).sum(), "1 + 2 + … + 8"
