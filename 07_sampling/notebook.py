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
from tiny_transformer.setup.plots import BLUE, GRAY, use_style
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM

use_style()
model, tokenizer = load_run(Path("..", "09_capstone", "pretrained"))
names = {" ": "␣", "\n": "⏎"}


def logits_after(text):
    with torch.no_grad():
        return model(torch.tensor([tokenizer.encode(text)]))[0, -1]


# %% [markdown]
# ## What comes next?
#
# The model's own probabilities for the next character after three beginnings. **Predict** the
# likeliest of each, and which of the three is the widest distribution.
#
# Look at the width: after "q" there is hardly a choice, after a blank there are many.


# %%
def bars(ax, logits, kept=None, count=20):
    p = logits.softmax(dim=-1)
    order = p.argsort(descending=True)[:count]
    colors = [BLUE if kept is None or kept[i] else GRAY for i in order]
    ax.bar(range(count), p[order], color=colors)
    labels = [names.get(c, c) for c in (tokenizer.characters[i] for i in order)]
    ax.set_xticks(range(count), labels, family="DejaVu Sans Mono")
    ax.set(xlabel="next character", ylabel="probability")


figure, axes = plt.subplots(1, 3, figsize=(10, 2.6))
for ax, beginning in zip(axes, ("the q", "ROMEO:\nWhat ", "O Rome"), strict=True):
    bars(ax, logits_after(beginning))
    ax.set_title(f"after {beginning!r}")
plt.show()

# %% [markdown]
# **Now you.** Which character does `greedy` choose after "O Rome"? Write it as a string.

# %%
answer = None
best = logits_after("O Rome").argmax()
assert answer is None or answer == tokenizer.characters[best], "the highest bar"

# %% [markdown]
# ## Temperature
#
# The distribution after "ROMEO:\nWhat " at three temperatures. **Predict** which of the pictures
# keeps the order of the bars.
#
# Look at the order, which never changes, and at the heights, which do: low temperatures feed the
# first bar, high ones the tail.

# %%
logits = logits_after("ROMEO:\nWhat ")
figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True)
for ax, temperature in zip(axes, (0.5, 1.0, 2.0), strict=True):
    bars(ax, apply_temperature(logits, temperature))
    ax.set_title(f"temperature {temperature}")
plt.show()

# %% [markdown]
# ## Top-k and top-p on a wide and on a narrow distribution
#
# **Predict** how many bars top-p 0.9 keeps in each.
#
# Look at blue, which is kept: top-k keeps five everywhere, top-p as many as it needs.

# %%
figure, axes = plt.subplots(2, 2, figsize=(9, 4.6))
for row, beginning in zip(axes, ("the q", "ROMEO:\nWhat "), strict=True):
    logits = logits_after(beginning)
    for ax, (name, kept) in zip(
        row,
        {"top-k 5": top_k_filter(logits, 5), "top-p 0.9": top_p_filter(logits, 0.9)}.items(),
        strict=True,
    ):
        bars(ax, logits, kept.isfinite())
        ax.set_title(f"{name} after {beginning!r}: {int(kept.isfinite().sum())} kept")
plt.show()


# %%
@interact(temperature=(0.2, 3.0, 0.1), k=(1, 65), p=(0.05, 1.0, 0.05))
def explore(temperature=1.0, k=65, p=1.0):
    logits = apply_temperature(logits_after("ROMEO:\nWhat "), temperature)
    kept = top_p_filter(top_k_filter(logits, k), p).isfinite()
    _, ax = plt.subplots(figsize=(5, 2.6))
    bars(ax, logits, kept)
    ax.set_title(f"{int(kept.sum())} kept")
    plt.show()


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
# ## What the cache saves
#
# The time for n new characters, with and without the cache, by an untrained model with a context
# of 256. **Predict** which curve bends.
#
# Look at the shapes: without the cache each character reads the whole text again, so the curve
# bends upwards; with it each costs about the same. Seconds vary from machine to machine.
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

# %%
wide = TinyTransformerLM(ModelConfig(max_len=256, d_model=128)).eval()
lengths, figure = [16, 64, 128, 192, 255], plt.figure(figsize=(5, 2.8))
for cached in (True, False):
    seconds = []
    for n in lengths:
        begin = time.perf_counter()
        generate(wide, torch.zeros(1, 1, dtype=torch.long), n, 0, use_cache=cached)
        seconds.append(time.perf_counter() - begin)
    plt.plot(lengths, seconds, "o-", label="with the cache" if cached else "without")
plt.xlabel("new characters")
plt.ylabel("seconds")
plt.legend()
plt.show()

# %% [markdown]
# Faster, and not one token different, also beyond the context of 256:

# %%
texts = [
    generate(model, prompt, 300, generator=torch.Generator().manual_seed(2), use_cache=cached)
    for cached in (True, False)
]
print("the same 300 characters:", torch.equal(*texts))

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
