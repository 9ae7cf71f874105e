# %% [markdown]
# # 06 · Training: make it learn, and make it fail
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell. The models here
# are tiny, so that each run takes seconds.

# %%
import math
from textwrap import fill

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.setup.plots import BLUE, GRAY, ORANGE, RED, show, slider, use_style
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.curves import explain_curve
from tiny_transformer.training.reference import (
    AdamW,
    TrainConfig,
    clip_gradients,
    cross_entropy,
    evaluate,
    make_optimizer,
    perplexity,
    split_corpus,
    training_steps,
    warmup_cosine,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
text = load_text(None)
tokenizer = CharTokenizer(text)
train_tokens, val_tokens = split_corpus(torch.tensor(tokenizer.encode(text)))
val_tokens = val_tokens[:6401]  # enough for a picture
shape = ModelConfig(max_len=32, d_model=48, n_layers=2, n_heads=4, d_ff=192)


def run(steps=100, max_lr=1e-2, tokens=train_tokens, seed=0, warmup_steps=10, max_norm=1.0):
    torch.manual_seed(seed)
    model = TinyTransformerLM(shape)
    settings = TrainConfig(
        batch_size=16,
        max_steps=steps,
        warmup_steps=warmup_steps,
        max_lr=max_lr,
        min_lr=max_lr / 10,
        max_norm=max_norm,
    )
    batches = torch.Generator().manual_seed(seed)
    optimizer, losses, validation = make_optimizer(model, settings), [], {}
    for step, loss in training_steps(model, optimizer, tokens, settings, batches):
        losses.append(loss.item())
        if step % 25 == 0:
            validation[step] = evaluate(model, val_tokens)
    return losses, validation


# %% [markdown]
# ## The loss of a guess, and what a trained model pays
#
# **Predict** the perplexity of a model with a loss of 2.08 nats.

# %%
for loss in (math.log(65), 2.08, 1.70):  # the last is what the capstone reaches
    print(
        f"{loss:.2f} nats = {loss / math.log(2):.2f} bits = a choice among {perplexity(loss):.1f}"
    )

# %% [markdown]
# ## Four learning rates
#
# The same model, seed and batches. **Predict** which rates end lowest, and what the
# highest does.

# %%
figure, ax = plt.subplots(figsize=(6.4, 3))
ax.axhline(math.log(65), color=GRAY, linestyle=":", label="ln 65")
for max_lr in (1e-4, 1e-3, 1e-2, 1e-1):
    losses, _ = run(max_lr=max_lr)
    ax.plot(losses, label=f"max_lr {max_lr:g}")
ax.set(xlabel="step", ylabel="training loss in nats")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "The training loss over 100 steps at four learning rates.")

# %% [markdown]
# Look at both ends: 1e-4 creeps, 0.1 falls fast and then stays high. The two between them end
# together.

# %% [markdown]
# ## The schedule
#
# **Predict** the rate at step 0, at the end of the warm-up, and after the last step.


# %%
def schedule(ax, warmup_steps=20, max_steps=200, **look):
    rates = [warmup_cosine(step, warmup_steps, max_steps, 1.0, 0.1) for step in range(240)]
    ax.plot(rates, **look)
    ax.set(xlabel="step", ylabel="share of max_lr", xlim=(0, 240), ylim=(0, 1.05))


figure, ax = plt.subplots(figsize=(5, 2.4))
for warmup_steps in (0, 20, 100):
    schedule(ax, warmup_steps, label=f"warm-up {warmup_steps}")
ax.legend()
show(figure, "The learning rate over 240 steps, for three lengths of the warm-up.")

# %% [markdown]
# Look at the corner at the top: the line and the cosine meet there.


# %%
@interact(warmup_steps=slider(20, 0, 150, 10), max_steps=slider(200, 150, 240, 10))
def explore(warmup_steps, max_steps):
    figure, ax = plt.subplots(figsize=(5, 2.4))
    schedule(ax, color=GRAY, linewidth=1)
    schedule(ax, warmup_steps, max_steps, color=BLUE)
    show(figure, f"The rate with {warmup_steps} steps of warm-up and {max_steps} in all.")


# %% [markdown]
# ## Adam against plain descent, in a narrow valley
#
# The loss is x² + 50 y², steep one way and flat the other, from (−4, 1). **Predict** which of the
# two is near the middle after 30 steps.


# %%
def descend(optimizer_of, steps=30):
    point = torch.nn.Parameter(torch.tensor([-4.0, 1.0]))
    optimizer, path = optimizer_of([point]), [point.tolist()]
    for _ in range(steps):
        optimizer.zero_grad()
        (point * point * torch.tensor([1.0, 50.0])).sum().backward()
        optimizer.step()
        path.append(point.tolist())
    return torch.tensor(path).T


x, y = torch.meshgrid(torch.linspace(-5, 2, 80), torch.linspace(-1.5, 1.5, 80), indexing="xy")
figure, ax = plt.subplots(figsize=(6, 2.8))
ax.contour(x, y, x**2 + 50 * y**2, levels=12, colors=GRAY, linewidths=0.5)
ax.plot(*descend(lambda p: torch.optim.SGD(p, lr=0.018)), ".-", color=ORANGE, label="descent")
ax.plot(*descend(lambda p: AdamW(p, lr=0.2, weight_decay=0)), ".-", color=BLUE, label="AdamW")
ax.plot(0, 0, "+", color=RED, markersize=10, label="the lowest point")
ax.set(xlabel="x", ylabel="y")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "The paths of plain descent and of AdamW on a map of the valley.")

# %% [markdown]
# Look at orange: one rate must be small enough for the steep direction, and is then too small for
# the flat one. Adam gives each number its own scale.

# %% [markdown]
# **Now you.** Gradients of two tensors have lengths 6 and 8, and max_norm is 5. How long is the
# first one after clipping?

# %%
answer = None
parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
for p, gradient in zip(parameters, ([6.0, 0.0], [0.0, 8.0]), strict=True):
    p.grad = torch.tensor(gradient)
clip_gradients(parameters, 5.0)
assert answer is None or abs(answer - parameters[0].grad.norm()) < 1e-3, "one factor, 5 / 10"

# %% [markdown]
# ## Learning by heart
#
# One model trains on the whole corpus, the other on its first 600 characters only. **Predict** both
# losses on validation text.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
for ax, (name, tokens) in zip(
    axes,
    {"the whole corpus": train_tokens, "600 characters": train_tokens[:600]}.items(),
    strict=True,
):
    losses, validation = run(steps=200, tokens=tokens)
    ax.plot(losses, label="training")
    ax.plot(validation.keys(), validation.values(), "o-", label="validation")
    ax.set(xlabel="step", title=f"{name}: {losses[-1]:.2f} and {validation[200]:.2f} at the end")
axes[0].set(ylabel="loss in nats", ylim=(0, None))
axes[0].legend(loc="lower left")
show(
    figure,
    "Training and validation loss over 200 steps, on the whole corpus and on 600 characters.",
)

# %% [markdown]
# Look at the gap of the second: its training loss is the better one, and it has learned 600
# characters and not English.

# %% [markdown]
# ## What the curve says
#
# One good run, two that went wrong on purpose, and one whose start is made up: as if the first
# weights had been far too large. **Predict** what is said of each.

# %%
curves = {
    "good": run(30)[0],
    "a rate of 0": run(30, max_lr=1e-9)[0],
    "a rate of 9": run(30, max_lr=9.0, warmup_steps=0, max_norm=1e9)[0],
    "too large a start": [12.5, *run(30)[0][1:]],
}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.4), sharex=True, sharey=True)
for ax, (name, losses) in zip(axes, curves.items(), strict=True):
    ax.axhline(math.log(65), color=GRAY, linestyle=":")
    ax.plot(range(1, 31), losses, color=BLUE)
    ax.set(xlabel="step", title=name)
axes[0].set(ylabel="training loss in nats", ylim=(0, 14))
highest = max(filter(math.isfinite, curves["a rate of 9"]))
axes[2].text(17, 9, f"up to {highest:,.0f}", ha="center")
show(figure, "Four training losses over 30 steps, each beside ln 65.")
for name, losses in curves.items():
    records = [{"step": i + 1, "train_loss": loss} for i, loss in enumerate(losses)]
    told = "; ".join(explain_curve(records, 65).values()) or "nothing strange"
    print(fill(f"{name}: {told}.", 90, subsequent_indent="    "))

# %% [markdown]
# **Now you.** A model gives the right token probability 0.2 at one position and 0.8 at the next.
# What is the mean loss, to two digits?

# %%
answer = None
p = torch.tensor([[0.2, 0.8], [0.2, 0.8]])
loss = cross_entropy(p.log(), torch.tensor([0, 1]))
assert answer is None or abs(answer - loss) < 0.01, "the mean of -ln 0.2 and -ln 0.8"
