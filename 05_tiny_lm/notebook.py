# %% [markdown]
# # 05 · The tiny language model: before it has learned anything
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell.

# %%
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from ipywidgets import SelectionSlider, interact
from matplotlib.ticker import PercentFormatter

from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, show, slider, use_style
from tiny_transformer.tiny_lm.modern import build, count_modern_parameters
from tiny_transformer.tiny_lm.reference import (
    ModelConfig,
    TinyTransformerLM,
    count_parameters,
    next_token_distribution,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
_ = torch.manual_seed(0)
config = ModelConfig()

# %% [markdown]
# ## A budget of parameters
#
# How the default shape grows with its width and with its depth. **Predict** the slopes on
# logarithmic axes: what do twice the width and twice the depth cost?

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7), sharey=True)
widths, depths = [32, 64, 128, 256, 512], [1, 2, 4, 8, 16]
wide = [count_parameters(replace(config, d_model=d, d_ff=4 * d)) for d in widths]
deep = [count_parameters(replace(config, n_layers=n)) for n in depths]
for ax, sizes, numbers, power, name in (
    (left, widths, wide, 2, "d_model, with d_ff = 4 d_model"),
    (right, depths, deep, 1, "n_layers"),
):
    exact = [numbers[2] * (size / sizes[2]) ** power for size in sizes]
    ax.loglog(sizes, exact, color=ORANGE, label=f"slope {power}")
    ax.loglog(sizes, numbers, "o", color=BLUE, label="the model")
    ax.set(xlabel=name)
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
    ax.legend()
left.set(ylabel="parameters")
show(figure, "Parameters against d_model and against n_layers, on logarithmic axes.")

# %% [markdown]
# Look at the steepness: twice the width is about four times the parameters, twice the depth twice.
# The tables of tokens and positions grow otherwise, but weigh little: they lift the dot at width 32
# by 9 percent above the line, less than you can see here.

# %% [markdown]
# ## What they are spent on
#
# **Predict** which part of the default model is the largest.


# %%
def shares(vocab_size=65, d_model=128, n_layers=4, max_len=64):
    d = d_model
    parts = {
        "tokens": vocab_size * d,
        "positions": max_len * d,
        "attention": n_layers * 4 * (d * d + d),
        "feed-forward": n_layers * (8 * d * d + 5 * d),
    }
    total = count_parameters(ModelConfig(vocab_size, max_len, d, n_layers, 1, 4 * d))
    return total, {part: number / total for part, number in parts.items()}


@interact(
    vocab_size=SelectionSlider(options=[65, 1024, 8192, 50257]),
    d_model=slider(128, 32, 768, 32),
    n_layers=slider(4, 1, 24, 1),
    max_len=slider(64, 64, 1024, 64),
)
def spent(**sizes):
    total, share = shares(**sizes)
    _, default = shares()
    figure, ax = plt.subplots(figsize=(6, 2))
    ax.barh(default.keys(), default.values(), fill=False, edgecolor=GRAY, label="the default")
    ax.barh(share.keys(), share.values(), height=0.5, color=BLUE)
    ax.set(xlim=(0, 1), xlabel="share of the parameters", title=f"{total:,} in all")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="upper right")
    named = ", ".join(f"{part} {number:.0%}" for part, number in share.items())
    show(figure, f"Of {total:,} parameters: {named}.")


# %% [markdown]
# Two thirds are feed-forward, one third is attention. Give it the 50,257 tokens of GPT-2, and nine
# in ten of its parameters are vectors of tokens.

# %% [markdown]
# **Now you.** How many parameters does the default model save because its head is tied?
# (`count_modern_parameters` also counts a model whose head has weights of its own.)

# %%
answer = None
untied = count_modern_parameters(replace(config, tie_weights=False))
assert answer is None or answer == untied - count_parameters(config), "the head is V × d_model"

# %% [markdown]
# ## The first loss is ln V
#
# Fresh models with vocabularies of several sizes, on random text. **Predict** the loss for 256.

# %%
sizes = [2, 16, 65, 256, 1024, 4096]
losses = []
for vocab_size in sizes:
    torch.manual_seed(0)
    model = TinyTransformerLM(replace(config, vocab_size=vocab_size))
    tokens = torch.randint(vocab_size, (16, 65))
    with torch.no_grad():
        logits = model(tokens[:, :-1])
    losses.append(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item())
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.plot(sizes, [math.log(size) for size in sizes], color=GRAY, label="ln V")
ax.plot(sizes, losses, "o", color=BLUE, label="first loss")
ax.set(xscale="log", xlabel="vocab_size V", ylabel="loss in nats", ylim=(0, None))
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.legend()
show(figure, "The first losses of six vocabularies, beside the curve ln V.")

# %% [markdown]
# Look at how close every dot is to the line: a model that knows nothing pays ln V. If yours does
# not, stop and look for the bug.

# %% [markdown]
# ## When the weights start too large
#
# The same model with all its matrices multiplied by a factor. **Predict** the loss at factor 10.

# %%
factors = [0.1, 0.5, 1, 2, 5, 10, 20]
losses = []
tokens = torch.randint(65, (16, 65))
for factor in factors:
    torch.manual_seed(0)
    model = TinyTransformerLM(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(factor)
        logits = model(tokens[:, :-1])
    losses.append(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item())
figure, ax = plt.subplots(figsize=(5, 2.6))
ax.plot(factors, losses, "o-")
ax.axhline(math.log(65), color=GRAY, linestyle=":", label="ln 65")
ax.set(xscale="log", xlabel="factor on the first weights", ylabel="first loss", ylim=(0, None))
ax.set_xticks(factors, factors)
ax.minorticks_off()
ax.legend()
show(figure, "The first loss against the factor on the first weights, beside ln 65.")

# %% [markdown]
# Look at where the line leaves ln 65: a model whose scores are large is sure of itself and wrong.

# %% [markdown]
# ## Why two projections start smaller
#
# The size of the stream at the top of deep models, with and without the factor 1 / √(2 n_layers) on
# `out_proj` and `down`. **Predict** which line is level.


# %%
def top_of_stream(n_layers, scaled):
    torch.manual_seed(0)
    model = TinyTransformerLM(replace(config, n_layers=n_layers))
    with torch.no_grad():
        if not scaled:
            for name, p in model.named_parameters():
                if name.endswith(("out_proj.weight", "down.weight")):
                    p.mul_((2 * n_layers) ** 0.5)
        x = model.embedding(tokens[:, :64])
        for block in model.blocks:
            x = block(x)
    return x.std().item()


depths = [1, 2, 4, 8, 16, 32]
figure, ax = plt.subplots(figsize=(5, 2.6))
for scaled, color, name in ((True, BLUE, "scaled"), (False, ORANGE, "not scaled")):
    sizes = [top_of_stream(n, scaled) for n in depths]
    ax.plot(depths, sizes, "o-", color=color, label=name)
ax.set(xscale="log", xlabel="n_layers", ylabel="spread of the stream at the top", ylim=(0, None))
ax.set_xticks(depths, depths)
ax.minorticks_off()
ax.legend()
show(figure, "The spread of the stream against the depth, one line with the factor, one without.")

# %% [markdown]
# Look at orange: without the factor every block adds as much as in a shallow model, and the sum
# grows with the root of the depth.

# %% [markdown]
# ## What does it say?
#
# The next-token distribution of two fresh models after tokens 5, 3, 1, likeliest first: one has its
# head tied to the table of tokens, the other has not. **Predict** where token 1, the last that they
# read, stands in each row.

# %%
torch.manual_seed(0)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True)
for ax, tied in zip(axes, (True, False), strict=True):
    model = build(replace(config, tie_weights=tied))
    p = next_token_distribution(model, torch.tensor([[5, 3, 1]]))[0]
    order = p.argsort(descending=True).tolist()
    bars = ax.bar(range(65), p[order], color=BLUE)
    bars[order.index(1)].set(color=ORANGE, label="token 1")
    ax.axhline(1 / 65, color=GRAY, linestyle=":", label="1/65")
    ax.set(xlabel="tokens, likeliest first", title="tied head" if tied else "head of its own")
    ax.legend()
axes[0].set(ylabel="probability")
show(figure, "Two rows of 65 bars, of a tied head and of a head of its own; token 1 is orange.")

# %% [markdown]
# Look at orange: with a tied head the stream still holds the vector of the token that was read
# last, and the head finds it. An untrained tied model stutters. With a head of its own the token is
# one of many.

# %% [markdown]
# **Now you.** The text so far has T = 10 tokens. How many of the (1, 10, 65) logits does
# `next_token_distribution` use?

# %%
answer = None
assert answer is None or answer == p.numel(), "one row: the last position"
