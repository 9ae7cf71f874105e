# %% [markdown]
# # 01 · Attention: turn the knobs
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell. Two parts look
# ahead: they show a head of a model that module 09 has trained.

# %%
import math
from pathlib import Path

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
from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.setup.plots import (
    BLUE,
    BLUES,
    ORANGE,
    show,
    show_weights,
    slider,
    use_style,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
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
# A head of the trained model reads "the theory". Its scores are multiplied by a factor, as a wider
# head without the scale would do. **Predict** the map at factor 0, and at factor 10. Which
# character will most rows choose?

# %%
text = "the theory"
model, tokenizer = load_run(Path("..", "09_capstone", "pretrained"))
model.blocks[3].attention.causal = False  # every pair has a score; the mask has a part of its own
weights = attention_maps(model, torch.tensor([tokenizer.encode(text)]))[3][0, 4]
scores = weights.log()  # up to a number for each row, which its softmax does not notice


def at_factor(ax, factor):
    show_weights(ax, stable_softmax(factor * scores), text, text, f"scores × {factor}")


figure, axes = plt.subplots(1, 4, figsize=(10, 2.9))
for ax, factor in zip(axes, (0, 1, 3, 10), strict=True):
    at_factor(ax, factor)
show(figure, "Four attention maps of the characters of “the theory”, at factors 0, 1, 3 and 10")

# %% [markdown]
# Look at each row: it always sums to 1, but it goes from even, through soft, to all or nothing. At
# factor 1 you see the head as it is: most letters look at the blank between the words. Nobody told
# it to.


# %%
@interact(factor=slider(1.0, 0.0, 10.0, 0.5))
def explore(factor):
    figure, ax = plt.subplots(figsize=(3, 3))
    at_factor(ax, factor)
    show(figure, f"The attention map of “the theory” at factor {factor}")


# %% [markdown]
# ## Why the root of d_k
#
# Scores of random queries and keys at two widths, without and with the scale. **Predict** the
# spread of the orange histogram at d_k = 256.

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.4), sharey=True)
for ax, d_k in zip(axes, (4, 256), strict=True):
    q, k = torch.randn(100, d_k), torch.randn(100, d_k)
    raw, scaled = q @ k.T, attention_scores(q, k)
    for values, color, name in ((raw, ORANGE, "q · k"), (scaled, BLUE, "divided by √d_k")):
        label = f"{name}: spread {values.std():.1f}"
        ax.hist(values.flatten(), bins=70, range=(-70, 70), color=color, alpha=0.6, label=label)
    ax.set(title=f"d_k = {d_k}", xlabel="score", ylabel="pairs", yscale="log")
    ax.set(ylim=(0.8, 1e5))
    ax.legend(fontsize="small", loc="upper left")
show(figure, "Histograms of the scores at d_k = 4 and 256, without the scale and with it")

# %% [markdown]
# Look at the width of each histogram, which is the standard deviation of the scores: without the
# scale it is the root of d_k.

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

# %%
row = torch.randn(16)
factors = torch.linspace(0, 12, 60)
rows = stable_softmax(factors[:, None] * row)
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.plot(factors, rows.amax(dim=-1), label="largest weight")
ax.plot(factors, (rows * (1 - rows)).sum(dim=-1), label="sum of w (1 − w)")
ax.set(xlabel="factor on the scores", ylabel="weight, gradient")
ax.legend()
show(figure, "The largest weight and the sum of the derivatives against the factor, from 0 to 12")

# %% [markdown]
# Look at how the gradient fades exactly as the largest weight nears 1: a head that has made up its
# mind does not learn.

# %% [markdown]
# ## The mask
#
# The theory masks in three ways; here you can break them, on the scores of the same head. At the
# right of each row stands its sum. **Predict** the first row of each map.

# %%
mask = causal_mask(len(text))
maps = {
    "no mask": stable_softmax(scores),
    "masked before": stable_softmax(scores.masked_fill(~mask, -math.inf)),
    "zeroed after": stable_softmax(scores) * mask,
}
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2))
for ax, (title, weights) in zip(axes, maps.items(), strict=True):
    show_weights(ax, weights, text, text, title)
    for t, total in enumerate(weights.sum(dim=-1)):
        ax.text(len(text), t, f"{total:.2f}", va="center")
show(figure, "Three attention maps of “the theory” with the sum of each row")

# %% [markdown]
# Look at the upper triangle, and at the sums: zeros after the softmax leave less than 1 in a row.
# Then put `causal_mask(len(text)).T` in the place of `causal_mask(len(text))`: which row of "zeroed
# after" still sums to 1?

# %% [markdown]
# ## Does the future leak?
#
# Change one position at a time and see which outputs notice. **Predict** the shape of the picture.

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
ax.imshow(effect, cmap=BLUES)
ax.set(xlabel="changed position s", ylabel="output t", title="how much output t changes")
show(figure, "A map of the change of each of eight outputs, by the position that was changed")

# %% [markdown]
# Look at the triangle: a change at position s reaches only outputs t ≥ s. Set `causal` to False and
# run it again.

# %% [markdown]
# **Now you.** In a causal head with T = 8, how many of the 64 weights may be above 0?

# %%
answer = None
assert answer is None or answer == causal_mask(8).sum(), "1 + 2 + … + 8"
