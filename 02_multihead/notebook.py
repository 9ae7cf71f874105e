# %% [markdown]
# # 02 · Multi-head attention: several pictures of one text
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell.

# %%
import math
import time

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.multihead.reference import (
    MultiHeadAttention,
    attention_entropy,
    merge_heads,
    split_heads,
)
from tiny_transformer.setup.plots import GRAY, show_weights, use_style

use_style()
_ = torch.manual_seed(0)

# %% [markdown]
# ## Which numbers belong to head 0?
#
# Four positions with eight features, numbered in memory order. **Predict** which
# numbers each line prints.

# %%
x = torch.arange(32).view(1, 4, 8)
print("split_heads:", split_heads(x, 2)[0, 0].tolist())
print("reshape:    ", x.reshape(1, 2, 4, 4)[0, 0].tolist())
print("merge undoes split:", torch.equal(merge_heads(split_heads(x, 2)), x))

# %% [markdown]
# **Now you.** With d_model = 8 and 4 heads, in which head is feature 5?

# %%
answer = None
owner = split_heads(torch.arange(8.0).view(1, 1, 8), 4)[0, :, 0]
assert answer is None or 5.0 in owner[answer], "each head owns a slice of two features"

# %% [markdown]
# ## Four heads, four maps
#
# A layer with random weights, made a bit sharper so that there is something to see. **Predict**:
# will the four maps be alike?
#
# Look at one row across the four maps: the same query asks four different questions.

# %%
text = list("the theory")
attention = MultiHeadAttention(d_model=32, n_heads=4)
with torch.no_grad():
    attention.q_proj.weight.mul_(6)
x = torch.randn(1, len(text), 32)
_, weights = attention(x, return_weights=True)
figure, axes = plt.subplots(1, 4, figsize=(11, 3.1))
for head, ax in enumerate(axes):
    show_weights(ax, weights[0, head], text, text, f"head {head}")
plt.show()

# %% [markdown]
# ## Entropy: how many keys does a head look at?
#
# e to the entropy reads as a number of keys. The gray line is the most that row t can have, t + 1.
# **Predict** the first point of every line.
#
# Look at the distance to the gray line: near it a head averages, far below it a head has chosen.

# %%
keys = attention_entropy(weights)[0].exp().detach()
figure, ax = plt.subplots(figsize=(5.4, 2.8))
ax.plot(range(1, len(text) + 1), color=GRAY, linestyle=":", label="all it may see")
for head in range(4):
    ax.plot(keys[head], "o-", label=f"head {head}")
ax.set(xlabel="query position", ylabel="keys looked at, e^entropy")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Sharper and sharper
#
# Multiply the queries by a factor. **Predict** the mean entropy at factor 0, and at factor 50.
#
# Look at both ends: at 0 every head averages all it sees, at 50 each row has one key.

# %%
q, k = torch.randn(4, 64, 16), torch.randn(4, 64, 16)
hidden = torch.ones(64, 64, dtype=torch.bool).triu(1)


def mean_entropy(factor):
    scores = (factor * q @ k.mT / 4).masked_fill(hidden, -math.inf)
    return attention_entropy(scores.softmax(dim=-1)).mean().item()


factors = [0, 0.5, 1, 2, 4, 8, 16, 50]
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.plot(factors, [mean_entropy(factor) for factor in factors], "o-")
ax.set(xscale="symlog", xlabel="factor on the queries", ylabel="mean entropy in nats")
plt.show()


# %%
@interact(factor=(0.0, 20.0, 0.5))
def explore(factor=1.0):
    _, ax = plt.subplots(figsize=(3, 3))
    scores = (factor * q[0, :10] @ k[0, :10].T / 4).masked_fill(hidden[:10, :10], -math.inf)
    show_weights(ax, scores.softmax(dim=-1), text, text, f"entropy {mean_entropy(factor):.2f}")
    plt.show()


# %% [markdown]
# **Now you.** A row puts the same weight on 8 keys and nothing on the others. What is its entropy
# in nats? (`math.log` may help.)

# %%
answer = None
row = torch.tensor([1 / 8] * 8 + [0.0] * 4)
assert answer is None or math.isclose(answer, attention_entropy(row), rel_tol=1e-3), "ln of keys"

# %% [markdown]
# ## What the weights cost
#
# Both ways compute T² scores; only the explicit one stores them, (B, n_heads, T, T).
# **Predict** how its time grows when T doubles.
#
# Look at the right end: there each doubling of T costs the explicit way a factor of four or more,
# and the distance to the fused one grows. Times vary from run to run; the order does not.


# %%
def seconds(T, explicit):
    x, times = torch.randn(1, T, 64), []
    for _ in range(4):
        begin = time.perf_counter()
        layer(x, return_weights=explicit)
        times.append(time.perf_counter() - begin)
    return min(times)


layer = MultiHeadAttention(64, 4).eval()
lengths = [64, 128, 256, 512, 1024, 2048]
figure, ax = plt.subplots(figsize=(5, 2.8))
with torch.no_grad():
    for explicit, name in ((True, "explicit, with weights"), (False, "fused")):
        ax.plot(lengths, [1000 * seconds(T, explicit) for T in lengths], "o-", label=name)
ax.set(xscale="log", yscale="log", xlabel="T", ylabel="milliseconds")
ax.legend()
plt.show()

# %% [markdown]
# They agree, whatever they cost:

# %%
x = torch.randn(2, 100, 64)
difference = (layer(x) - layer(x, return_weights=True)[0]).abs().max().item()
print(f"largest difference below 1e-5: {difference < 1e-5}")
