# %% [markdown]
# # 02 · Multi-head attention: several pictures of one text
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell. The heads that
# you will see are those of a model that module 09 has trained.

# %%
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.attention.reference import causal_mask
from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.multihead.reference import (
    MultiHeadAttention,
    attention_entropy,
    merge_heads,
    split_heads,
)
from tiny_transformer.setup.plots import (
    BLUE,
    GRAY,
    show,
    show_weights,
    slider,
    use_style,
    visible,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
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
# Four of the 30 heads of the trained model read "the theory". **Predict**: will the four maps be
# alike? Where would you look, as the o, to guess the r?

# %%
text = "the theory"
model, tokenizer = load_run(Path("..", "09_capstone", "pretrained"))
maps = attention_maps(model, torch.tensor([tokenizer.encode(text)]))
heads = ((0, 4), (0, 1), (0, 0), (3, 4))
names = [f"layer {layer}, head {head}" for layer, head in heads]
weights = torch.stack([maps[layer][0, head] for layer, head in heads])  # (4, T, T)
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9))
for ax, name, head in zip(axes, names, weights, strict=True):
    show_weights(ax, head, text, text, name)
show(figure, "Attention maps of four heads, a row and a column for each character of “the theory”")

# %% [markdown]
# Look at one row across the four maps: the same query asks four different questions. The o looks
# most at itself, at the e just before it, at the t that begins its word, and at the blank in front
# of the word. Not every row is so plain: the y of the third map spreads over all it sees.

# %% [markdown]
# ## Entropy: how many keys does a head look at?
#
# e to the entropy reads as a number of keys. The gray line is the most that row t can have, t + 1.
# **Predict** the first point of every line.

# %%
keys = attention_entropy(weights).exp()
figure, ax = plt.subplots(figsize=(5.8, 3))
ax.plot(range(1, len(text) + 1), color=GRAY, linestyle=":", label="all it may see")
for name, head in zip(names, keys, strict=True):
    ax.plot(head, "o-", label=name)
ax.set_xticks(range(len(text)), map(visible, text))
ax.set(xlabel="query", ylabel="keys looked at, e^entropy")
ax.legend(fontsize="small")
show(figure, "Keys looked at by each of the four heads, query by query, and all that each may see")

# %% [markdown]
# Look at the distance to the gray line: near it a head averages, far below it a head has chosen.

# %% [markdown]
# ## Sharper and sharper
#
# Multiply the queries by a factor, and with them all the scores. **Predict** the mean entropy of
# the four heads at factor 0, and at factor 50.

# %%
scores = weights.log()  # up to a number for each row, which its softmax does not notice
hidden = ~causal_mask(len(text))


def sharper(factor):
    return (factor * scores).masked_fill(hidden, -math.inf).softmax(dim=-1)


def draw(ax, color):
    entropies = [attention_entropy(sharper(factor)).mean() for factor in factors]
    ax.plot(factors, entropies, "o-", color=color)
    ax.set(xscale="symlog", xlabel="factor on the queries", ylabel="mean entropy in nats")
    ax.set_xticks(factors, ["0", "½", *factors[2:]])
    ax.minorticks_off()


factors = [0, 0.5, 1, 2, 4, 8, 16, 50]
figure, ax = plt.subplots(figsize=(5, 2.6))
draw(ax, BLUE)
show(figure, "The mean entropy of the four heads against the factor, from 0 to 50")

# %% [markdown]
# Look at both ends: at 0 every head averages all it sees, at 50 each row has one key.


# %%
@interact(factor=slider(1.0, 0.0, 20.0, 0.5))
def explore(factor):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(5, 3))
    draw(left, GRAY)
    entropy = attention_entropy(sharper(factor)).mean().item()
    left.plot(factor, entropy, "o", color=BLUE, markersize=9)
    left.set(title=f"factor {factor}: {entropy:.2f} nats")
    show_weights(right, sharper(factor)[3], text, text, names[3])
    show(figure, f"The entropy at factor {factor}, and the map of one head")


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
ax.set_xticks(lengths, lengths)
ax.set_yticks([0.25, 1, 4, 16, 64, 256], ["¼", 1, 4, 16, 64, 256])
ax.minorticks_off()
ax.grid(color=GRAY, alpha=0.2)
ax.legend()
show(figure, "Milliseconds against T, which doubles from tick to tick, a line for each way")

# %% [markdown]
# Look at the right end: there each doubling of T costs the explicit way a factor of about four,
# which is a line of the grid, or more, and the fused one is far below. Times vary from run to run;
# the order does not.

# %% [markdown]
# They agree, whatever they cost:

# %%
x = torch.randn(2, 100, 64)
difference = (layer(x) - layer(x, return_weights=True)[0]).abs().max().item()
print(f"largest difference below 1e-5: {difference < 1e-5}")
