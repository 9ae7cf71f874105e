# %% [markdown]
# # 04 · Embeddings: names, places and turns
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell. Two cells look
# ahead: they read the vectors of a model that module 09 has trained.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact
from matplotlib.colors import CenteredNorm

from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import (
    CharTokenizer,
    rotary_table,
    rotate,
    sinusoidal_positions,
)
from tiny_transformer.engineering.reference import load_checkpoint
from tiny_transformer.setup.plots import (
    BLUE,
    GRAY,
    ORANGE,
    ORANGE_TO_BLUE,
    show,
    slider,
    use_style,
    visible,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
_ = torch.manual_seed(0)

# %% [markdown]
# ## The alphabet of Shakespeare
#
# How often each of the 65 characters stands in the text. **Predict** the three most frequent.

# %%
text = load_text(None)
tokenizer = CharTokenizer(text)
tokens = torch.tensor(tokenizer.encode(text))
counts = tokens.bincount(minlength=tokenizer.vocab_size)
order = counts.argsort(descending=True)
figure, ax = plt.subplots(figsize=(10, 2.6))
ax.bar(range(len(order)), counts[order])
labels = [visible(tokenizer.characters[i]) for i in order]
ax.set_xticks(range(len(order)), labels, fontsize=9, family="DejaVu Sans Mono")
ax.margins(x=0.01)
ax.set(yscale="log", ylabel="times in the text", xlabel="character")
show(figure, "A bar for each of the 65 characters, from frequent to rare, on a logarithmic axis")

# %% [markdown]
# Look at the range: the most frequent character stands there more than 100,000 times, the rarest
# once, so some vectors will be trained far better than others.

# %% [markdown]
# **Now you.** What is the id of "A"? Ids start at 0. Sorted order puts the line end and the space
# first, then ten marks and one digit (`!$&',-.3:;?`, in this order), then the capitals.

# %%
answer = None
assert answer is None or [answer] == tokenizer.encode("A"), f"print {tokenizer.characters[:16]}"

# %% [markdown]
# ## Waves
#
# The sinusoidal positions, and four of their features as curves. **Predict** the wavelength of
# feature 0, in positions.

# %%
p = sinusoidal_positions(64, 32)
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.8))
left.imshow(p.T, cmap=ORANGE_TO_BLUE, aspect="auto")
left.set(xlabel="position", ylabel="feature", title="sinusoidal_positions(64, 32)")
for feature in (0, 1, 8, 16):
    right.plot(p[:, feature], label=f"feature {feature}")
right.set(xlabel="position", ylabel="value")
right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "A map of 32 features at 64 positions, and curves of features 0, 1, 8 and 16")

# %% [markdown]
# Look at the left picture from top to bottom: two rows at a time are a sine and a cosine of one
# speed, and the speed falls. The curves are four of its rows.

# %% [markdown]
# ## Distance from inner products
#
# The inner product of position 32 with every other. **Predict**: is it symmetric? What is its
# largest value, with 16 pairs of features?

# %%
figure, ax = plt.subplots(figsize=(5, 2.4))
ax.plot(torch.arange(64) - 32, p @ p[32])
ax.set(xlabel="distance", ylabel="inner product")
show(figure, "The inner product with position 32, by distance from −32 to 31")

# %% [markdown]
# Look at the peak: on the whole alikeness falls with the distance, with ripples from the fast
# features, the same on both sides.

# %% [markdown]
# ## Turning a query
#
# One pair of features, turned by its position. **Predict** the score (here the cosine of the
# angle) of positions 3 and 5, and that of 10 and 12.


# %%
def turned(ax, first, distance):
    x = torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    pair = rotate(x, torch.tensor([first, first + distance]))
    for (a, b), color, position in zip(
        pair.tolist(), (BLUE, ORANGE), (first, first + distance), strict=True
    ):
        ax.annotate("", (a, b), (0, 0), arrowprops={"arrowstyle": "->", "color": color})
        ax.text(1.15 * a, 1.15 * b, position, ha="center", va="center")
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])
    ax.set(title=f"score {(pair[0] @ pair[1]).item():.3f}", xlabel="a", ylabel="b")


figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
for ax, first in zip(axes, (0, 3, 10), strict=True):
    turned(ax, first, 2)
show(figure, "Two arrows each: positions 0 and 2, 3 and 5, 10 and 12, with their scores")

# %% [markdown]
# Look at the arrows: all have the same length, and the angle between two depends on their distance.


# %%
@interact(first=slider(3, 0, 20), distance=slider(2, 0, 10))
def explore(first, distance):
    figure, ax = plt.subplots(figsize=(3, 3))
    turned(ax, first, distance)
    show(figure, f"Two arrows: positions {first} and {first + distance}, with their score")


# %% [markdown]
# ## The score depends on the distance
#
# A random query and key of width 32 at all pairs of positions. **Predict** the pattern.

# %%
q, k = torch.randn(1, 32).repeat(48, 1), torch.randn(1, 32).repeat(48, 1)
positions = torch.arange(48)
scores = rotate(q, positions) @ rotate(k, positions).T
figure, ax = plt.subplots(figsize=(3.8, 3))
image = ax.imshow(scores, cmap=ORANGE_TO_BLUE, norm=CenteredNorm())
figure.colorbar(image, ax=ax, label="score")
ax.set(xlabel="position of the key", ylabel="position of the query")
show(figure, "A map of the score of each query with each key, by their positions from 0 to 47")

# %% [markdown]
# Look at the stripes along the diagonals: equal distance, equal score.

# %% [markdown]
# **Now you.** With d_head = 2 the only pair turns by 1 radian a step. Query and key are equal, of
# length 1. What is their score at a distance of 3? (`math.cos` may help.)

# %%
answer = None
cos, _ = rotary_table(torch.tensor([3]), 2)
assert answer is None or abs(answer - cos.item()) < 1e-3, "the cosine of the angle between them"

# %% [markdown]
# ## What the vectors come to mean
#
# The token table of the trained model, squeezed from 160 dimensions to the two in which it varies
# most. Nobody told the model which characters are vowels or capitals. Orange are small vowels, blue
# other small letters, gray capitals and marks. **Predict** which groups it has made.

# %%
state = load_checkpoint(Path("..", "09_capstone", "pretrained", "best"))
table = state["model"]["embedding.token.weight"].float()
frequent = [i for i in range(65) if counts[i] > 500]
centered = table[frequent] - table[frequent].mean(dim=0)
_, _, directions = torch.pca_lowrank(centered, q=2)
flat = centered @ directions
figure, ax = plt.subplots(figsize=(7, 5))
for i, (x, y) in zip(frequent, flat.tolist(), strict=True):
    c = state["characters"][i]
    color = ORANGE if c in "aeiou" else BLUE if c.islower() else GRAY
    ax.text(x, y, visible(c), color=color, ha="center", va="center", family="DejaVu Sans Mono")
ax.set(xlim=(flat[:, 0].min() * 1.1, flat[:, 0].max() * 1.1), xlabel="first direction")
ax.set(ylim=(flat[:, 1].min() * 1.1, flat[:, 1].max() * 1.1), ylabel="second direction")
show(figure, "The characters at their places in the plane of the two directions, in three colors")

# %% [markdown]
# Look for vowels together, capitals together, and marks apart from letters.

# %% [markdown]
# Cosines tell the same without squeezing. **Predict** the nearest neighbors of "a", "t" and "K".

# %%
unit = torch.nn.functional.normalize(table, dim=-1)
for c in "atK":
    i = tokenizer.encode(c)[0]
    near = (unit @ unit[i]).index_fill(0, torch.tensor([i]), -1).topk(4).indices.tolist()
    print(f"{c!r}: {[state['characters'][j] for j in near]}")
