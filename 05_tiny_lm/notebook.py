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
from ipywidgets import interact

from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, use_style
from tiny_transformer.tiny_lm.modern import build, count_modern_parameters
from tiny_transformer.tiny_lm.reference import (
    ModelConfig,
    TinyTransformerLM,
    count_parameters,
    next_token_distribution,
)

use_style()
_ = torch.manual_seed(0)
config = ModelConfig()

# %% [markdown]
# ## A budget of parameters
#
# How the default shape grows with its width and with its depth. **Predict** the slopes on these
# logarithmic axes.
#
# Look at the steepness: twice the width is about four times the parameters (slope 2), twice the
# depth twice (slope 1). The dotted lines have exactly these slopes; they part from ours at the left
# ends, where the tables weigh more.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7), sharey=True)
widths, depths = [32, 64, 128, 256, 512], [1, 2, 4, 8, 16]
wide = [count_parameters(replace(config, d_model=d, d_ff=4 * d)) for d in widths]
deep = [count_parameters(replace(config, n_layers=n)) for n in depths]
for ax, sizes, numbers, power, name in (
    (left, widths, wide, 2, "d_model, with d_ff = 4 d_model"),
    (right, depths, deep, 1, "n_layers"),
):
    ax.loglog(sizes, numbers, "o-")
    ax.loglog(sizes, [numbers[2] * (s / sizes[2]) ** power for s in sizes], ":", color=ORANGE)
    ax.set(xlabel=name, ylabel="parameters")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
plt.show()


# %%
def shares(vocab_size=65, d_model=128, n_layers=4, max_len=64):
    d = d_model
    shape = ModelConfig(vocab_size, max_len, d, n_layers, 1, 4 * d)
    parts = {
        "tokens": vocab_size * d,
        "positions": max_len * d,
        "attention": n_layers * 4 * (d * d + d),
        "feed-forward": n_layers * (8 * d * d + 5 * d),
    }
    _, ax = plt.subplots(figsize=(6, 1.8))
    ax.barh(list(parts), list(parts.values()))
    ax.set(xlabel="parameters", title=f"{count_parameters(shape):,} in all")
    plt.show()


shares()
_ = interact(
    shares,
    vocab_size=(65, 50257),
    d_model=(32, 768, 32),
    n_layers=(1, 24),
    max_len=(64, 1024, 64),
)

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
#
# Look at how close every dot is to the line: a model that knows nothing pays ln V. If yours does
# not, stop and look for the bug.

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
ax.set(xscale="log", xlabel="vocab_size V", ylabel="loss in nats")
ax.legend()
plt.show()

# %% [markdown]
# ## When the weights start too large
#
# The same model with all its matrices multiplied by a factor. **Predict** the loss at factor 10.
#
# Look at where the line leaves ln 65: a model whose scores are large is sure of itself and wrong.

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
ax.axhline(math.log(65), color=GRAY, linestyle=":")
ax.set(xscale="log", yscale="log", xlabel="factor on the first weights", ylabel="first loss")
plt.show()

# %% [markdown]
# ## Why two projections start smaller
#
# The size of the stream at the top of deep models, with and without the factor 1 / √(2 n_layers) on
# `out_proj` and `down`. **Predict** which line is level.
#
# Look at orange: without the factor every block adds as much as in a shallow model, and the sum
# grows with the root of the depth.


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
ax.legend()
plt.show()

# %% [markdown]
# ## What does it say?
#
# The next-token distribution of a fresh model after tokens 5, 3, 1. **Predict** whether any bar
# stands out.
#
# Look at token 1, the one it has just read: with a tied head the stream still holds its vector, and
# the head finds it. An untrained tied model stutters.

# %%
torch.manual_seed(0)
figure, ax = plt.subplots(figsize=(6.4, 2.4))
for shift, (tied, color) in enumerate(((True, BLUE), (False, ORANGE))):
    model = build(replace(config, tie_weights=tied))
    p = next_token_distribution(model, torch.tensor([[5, 3, 1]]))[0]
    ax.bar(torch.arange(65) + 0.4 * shift, p, width=0.4, color=color, label=f"tied: {tied}")
ax.axhline(1 / 65, color=GRAY, linestyle=":")
ax.set(xlabel="token", ylabel="probability")
ax.legend(loc="upper right")
plt.show()

# %% [markdown]
# **Now you.** The text so far has T = 10 tokens. How many of the (1, 10, 65) logits does
# `next_token_distribution` use?

# %%
answer = None
assert answer is None or answer == p.numel(), "one row: the last position"
