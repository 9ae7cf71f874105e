# %% [markdown]
# # 07 · Sampling: one model, many voices
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell. The model here is
# the one that comes trained with module 09; nothing in this notebook changes a weight of it.

# %%
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.sampling import reference
from tiny_transformer.sampling.reference import (
    KVCache,
    apply_temperature,
    generate,
    top_k_filter,
    top_p_filter,
)
from tiny_transformer.setup.grading.diagnosis import diagnose
from tiny_transformer.setup.plots import BLUE, GRAY, show, slider, use_style, visible
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
model, tokenizer = load_run(Path("..", "09_capstone", "pretrained"))


def logits_after(text):
    with torch.no_grad():
        return model(torch.tensor([tokenizer.encode(text)]))[0, -1]


# %% [markdown]
# ## What comes next?
#
# The model's own probabilities for the next character after three beginnings. **Predict** the
# likeliest of each, and which of the three is the widest distribution.


# %%
def bars(ax, logits, kept=None, count=20):
    p = logits.softmax(dim=-1)
    order = p.argsort(descending=True)[:count]
    colors = [BLUE if kept is None or kept[i] else GRAY for i in order]
    ax.bar(range(count), p[order], color=colors)
    labels = [visible(tokenizer.characters[i]) for i in order]
    ax.set_xticks(range(count), labels, family="DejaVu Sans Mono")
    ax.set(xlabel=f"the {count} likeliest of {len(p)}")


figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True)
for ax, beginning in zip(axes, ("the q", "ROMEO:\nWhat ", "O Rome"), strict=True):
    bars(ax, logits_after(beginning))
    ax.set_title(f"after {beginning!r}")
axes[0].set(ylabel="probability")
show(figure, "The 20 likeliest next characters after each of three beginnings.")

# %% [markdown]
# Look at the width: after "q" there is hardly a choice, after a blank there are many.

# %% [markdown]
# **Now you.** Which character does `greedy` choose after "O Rome"? Write it as a string.

# %%
answer = None
best = logits_after("O Rome").argmax()
assert answer is None or answer == tokenizer.characters[best], "the highest bar"

# %% [markdown]
# ## Temperature
#
# The distribution after `"ROMEO:\nWhat "` at three temperatures. **Predict** which of the pictures
# keeps the order of the bars.

# %%
logits = logits_after("ROMEO:\nWhat ")
figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True)
for ax, temperature in zip(axes, (0.5, 1.0, 2.0), strict=True):
    bars(ax, apply_temperature(logits, temperature))
    ax.set_title(f"temperature {temperature}")
axes[0].set(ylabel="probability")
show(figure, "The 20 likeliest next characters at three temperatures.")

# %% [markdown]
# Look at the order, which never changes, and at the heights, which do: low temperatures feed the
# first bar, high ones the tail.

# %% [markdown]
# ## Top-k and top-p on a narrow and on a wide distribution
#
# **Predict** how many bars top-p 0.9 keeps after `"KING "`, and how many after `"What "`.

# %%
figure, axes = plt.subplots(2, 2, figsize=(9, 4.6), sharey="row")
for row, beginning in zip(axes, ("KING ", "ROMEO:\nWhat "), strict=True):
    logits = logits_after(beginning)
    row[0].set(ylabel=f"after {beginning!r}")
    for ax, (name, kept) in zip(
        row,
        {"top-k 5": top_k_filter(logits, 5), "top-p 0.9": top_p_filter(logits, 0.9)}.items(),
        strict=True,
    ):
        kept = kept.isfinite()
        bars(ax, logits, kept)
        ax.set_title(f"{name} keeps {kept.sum()}, {logits.softmax(dim=-1)[kept].sum():.0%}")
show(figure, "What top-k 5 and top-p 0.9 keep of two distributions is blue, the rest gray.")

# %% [markdown]
# Look at blue, which is kept. Top-k keeps five everywhere: after `"KING "` the fifth is U, with
# which no king of this text begins; after `"What "` five are too few, for four times in ten the
# model has something else to say. Top-p keeps as many as it needs: Edward, Richard and Henry above,
# a dozen below.

# %% [markdown]
# Gray are the model's own chances, blue those that are drawn from.


# %%
@interact(
    temperature=slider(1.0, 0.2, 3.0, 0.1), k=slider(65, 1, 65), p=slider(1.0, 0.05, 1.0, 0.05)
)
def explore(temperature, k, p):
    own = logits_after("ROMEO:\nWhat ")
    drawn = top_p_filter(top_k_filter(apply_temperature(own, temperature), k), p)
    count = int(drawn.isfinite().sum())
    figure, ax = plt.subplots(figsize=(5, 2.6))
    bars(ax, own, torch.zeros(65))
    ax.bar(range(20), drawn.softmax(dim=-1)[own.argsort(descending=True)[:20]], 0.5, color=BLUE)
    ax.set(ylabel="probability", ylim=(0, 1), title=f"{count} of 65 can be drawn")
    show(
        figure,
        f"Chances at temperature {temperature:.1f}, top-k {k}, top-p {p:.2f}: {count} of 65.",
    )


# %% [markdown]
# **Now you.** Two characters have odds of 9 : 1. What are their odds at temperature 2?

# %%
answer = None
odds = apply_temperature(torch.tensor([9.0, 1.0]).log(), 2.0).softmax(dim=-1)
assert answer is None or math.isclose(answer, odds[0] / odds[1], rel_tol=1e-3), "9 to the power ½"

# %% [markdown]
# ## How it sounds
#
# The same prompt and seed, five ways to choose. **Predict** which one repeats itself, and which one
# breaks its words.

# %%
prompt = torch.tensor([tokenizer.encode("ROMEO:\n")])
for name, how in {
    "greedy": {"temperature": 0},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 0.8": {"temperature": 0.8},
    "temperature 1.5": {"temperature": 1.5},
    "temperature 1.5, top-p 0.8": {"temperature": 1.5, "top_p": 0.8},
}.items():
    tokens = generate(model, prompt, 160, generator=torch.Generator().manual_seed(1), **how)
    print(f"--- {name}\n{tokenizer.decode(tokens[0])}\n")

# %% [markdown]
# Look for the circle: greedy comes back to the senators of the state. At 1.5 the words break, and
# top-p mends most of them.

# %% [markdown]
# ## What the cache saves
#
# The cache is your own `KVCache` as soon as it is right.

# %%
try:
    from tiny_transformer.sampling import exercises

    problem = diagnose("sampling", "KVCache", exercises.KVCache)
except NotImplementedError:
    problem = "yours is not written yet"
except Exception as error:
    problem = f"yours raises {type(error).__name__}: {error}"
if problem is None:
    reference.KVCache = exercises.KVCache  # where `generate` looks for it
print(f"the reference's cache: {problem}" if problem else "your cache")

# %% [markdown]
# The time for n new characters, with and without the cache, by an untrained model with a context
# of 256. **Predict** which curve bends.

# %%
wide = TinyTransformerLM(ModelConfig(max_len=256, d_model=128)).eval()
lengths = [16, 64, 128, 255]
figure, ax = plt.subplots(figsize=(5, 2.8))
for cached in (True, False):
    seconds = []
    for n in lengths:
        begin = time.perf_counter()
        generate(wide, torch.zeros(1, 1, dtype=torch.long), n, 0, use_cache=cached)
        seconds.append(time.perf_counter() - begin)
    ax.plot(lengths, seconds, "o-", label="with the cache" if cached else "without")
ax.set(xlabel="new characters", ylabel="seconds", xticks=lengths, ylim=(0, None))
ax.legend()
show(figure, "Seconds against new characters, a line with the cache and one without.")

# %% [markdown]
# Look at the shapes: without the cache each character reads the whole text again, so the curve
# bends upwards; with it each costs about the same. Seconds vary from machine to machine.

# %% [markdown]
# Faster, and not one token different, also beyond the context of 256: the last text above goes on.

# %%
texts = [
    generate(model, tokens, 100, generator=torch.Generator().manual_seed(2), use_cache=cached)
    for cached in (True, False)
]
print("the same 100 characters:", torch.equal(*texts))

# %% [markdown]
# ## What the cache costs
#
# **Predict** the number of megabytes for this small model, one text of 256 characters, in float32.

# %%
cache = KVCache(model.config, batch_size=1)
print(
    f"{(cache.keys.nbytes + cache.values.nbytes) / 1e6:.2f} MB: 2 × layers × positions × width × 4"
)

# %% [markdown]
# **Now you.** A model of 32 layers, width 4096 and a context of 8192 keeps keys and values in two
# bytes each. How many gigabytes (1e9 bytes) does one text need?

# %%
answer = None
assert answer is None or abs(answer - 2 * 32 * 8192 * 4096 * 2 / 1e9) < 0.1, (
    "2 × layers × positions × width × bytes"
)
