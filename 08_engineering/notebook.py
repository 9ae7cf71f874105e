# %% [markdown]
# # 08 · Engineering: break a run, and bring it back
#
# Open this beside [theory.md](theory.md). Say what you expect, then run the cell. Everything here
# happens in a temporary folder.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from ipywidgets import interact

from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.engineering.reference import (
    MetricsLog,
    keep_best,
    load_checkpoint,
    override,
    random_states,
    restore_random_states,
    save_checkpoint,
    seed_everything,
)
from tiny_transformer.setup.plots import BLUE, GRAY, GREEN, ORANGE, show, slider, use_style
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import (
    TrainConfig,
    cross_entropy,
    get_batch,
    make_optimizer,
    training_steps,
)

use_style()
torch.set_num_threads(1)  # threads that wait for each other spin
temporary = TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## Settings that answer back
#
# Four changes to the smallest preset. **Predict** which of them is accepted.

# %%
for change in (
    {"train.max_lr": 0.01},
    {"train.max_lrr": 0.01},
    {"model.n_heads": 5},
    {"seed": "7"},
):
    try:
        override(PRESETS["smoke"], change)
        print(change, "is accepted")
    except ValueError as error:
        print(change, "->", error)

# %% [markdown]
# ## One flipped bit
#
# A weight of 0.01, with each of its 32 bits flipped in turn. **Predict** how large it can become.

# %%
bits = torch.tensor(0.01).view(torch.int32).item()
masks = torch.tensor([1 << bit if bit < 31 else -(1 << 31) for bit in range(32)], dtype=torch.int32)
flipped = (bits ^ masks).view(torch.float32).abs().flip(0)
figure, ax = plt.subplots(figsize=(7, 2.6))
ax.axhline(0.01, color=GRAY, linestyle=":", label="0.01")
for part, first, last, color in (
    ("sign", 0, 1, GREEN),
    ("exponent", 1, 9, ORANGE),
    ("fraction", 9, 32, BLUE),
):
    ax.semilogy(range(first, last), flipped[first:last], "o", color=color, label=part)
ax.set(xlabel="which of the 32 bits is flipped", ylabel="size of the weight")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "The size of a weight of 0.01 after each of its 32 bits was flipped.")

# %% [markdown]
# Look at the exponent: one of its bits makes a number of 37 digits, and the model would load
# without a word if nobody compared sums.

# %% [markdown]
# The sums catch every one of them:

# %%
last = folder / "last"
save_checkpoint(last, {"model": {"w": torch.full((4,), 0.01)}, "step": 1})
weights = last / "model.safetensors"
data = weights.read_bytes()
caught = 0
for bit in range(8 * 16):  # the last 16 bytes are the four numbers
    changed = bytearray(data)
    changed[-1 - bit // 8] ^= 1 << bit % 8
    weights.write_bytes(changed)
    try:
        load_checkpoint(last)
    except ValueError:
        caught += 1
weights.write_bytes(data)
print(
    f"{caught} of {8 * 16} flipped bits were noticed; step {load_checkpoint(last)['step']} is back"
)

# %% [markdown]
# ## A kill in mid-write
#
# A line of the log is cut in half. **Predict** what is read before, and after the next append.

# %%
log = MetricsLog(folder / "metrics.jsonl")
log.append({"step": 1, "train_loss": 4.2})
with log.path.open("a", encoding="utf-8") as file:
    file.write('{"step": 2, "tra')
print(log.read())
log.append({"step": 2, "train_loss": 3.9})
print(log.read())

# %% [markdown]
# ## Exact resume, and how it fails
#
# A run of 40 steps with dropout, straight through; then the same with a stop at 20, resumed with
# everything, and with one part forgotten each time. **Predict** which of the forgotten parts shows
# most.

# %%
text = load_text(None)
tokens = torch.tensor(CharTokenizer(text).encode(text))
shape = ModelConfig(max_len=16, d_model=32, n_layers=2, n_heads=4, d_ff=64, dropout=0.1)
settings = TrainConfig(max_steps=40, warmup_steps=5, max_lr=1e-2)


def begin():
    seed_everything(1)
    model = TinyTransformerLM(shape)
    return model, make_optimizer(model, settings), torch.Generator().manual_seed(1)


def train(model, optimizer, batches, start=0, stop=40):
    losses = []
    for step, loss in training_steps(model, optimizer, tokens, settings, batches, start=start):
        losses.append(loss.item())
        if step == stop:
            break
    return losses


def resumed(forgotten):
    model, optimizer, batches = begin()
    restore = {
        "weights": lambda: model.load_state_dict(state["model"]),
        "optimizer": lambda: optimizer.load_state_dict(state["optimizer"]),
        "batches": lambda: batches.set_state(state["batches"]),
        "random states": lambda: restore_random_states(state["random"]),
    }
    for part, call in restore.items():
        if part != forgotten:
            call()
    return train(model, optimizer, batches, start=0 if forgotten == "step" else 20)[:20]


straight = train(*begin())
model, optimizer, batches = begin()
train(model, optimizer, batches, stop=20)
save_checkpoint(
    last,
    {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "batches": batches.get_state(),
        "random": random_states(),
    },
)
state = load_checkpoint(last)

figure, ax = plt.subplots(figsize=(8, 3))
for forgotten in (None, "weights", "optimizer", "batches", "random states", "step"):
    apart = [abs(a - b) for a, b in zip(resumed(forgotten), straight[20:], strict=True)]
    label = f"without the {forgotten}" if forgotten else "with everything"
    style = ".--" if forgotten == "step" else ".-"
    ax.plot(range(21, 41), apart, style, label=f"{label}: {max(apart):.2g}", clip_on=False)
ax.set(xlabel="step", ylabel="difference of the loss", xticks=range(21, 41, 3))
ax.set_yscale("symlog", linthresh=1e-3)
ax.set_ylim(0, 1)
ax.legend(title="largest difference", loc="upper left", bbox_to_anchor=(1, 1))
show(
    figure, "How far the loss of six resumed runs is from that of the straight one, over 20 steps."
)

# %% [markdown]
# Look at the distance from the straight run: with everything restored it is exactly 0, and the line
# lies on the bottom.

# %% [markdown]
# **Now you.** Two forgotten parts left the first loss after the resume (step 21) exactly as it
# should be, and changed those after it. One is the step. Which is the other? Write "weights",
# "optimizer", "batches" or "random states".

# %%
answer = None
assert answer is None or resumed(answer)[0] == straight[20] != resumed("weights")[0], (
    "what is used after the loss of a step has been measured?"
)

# %% [markdown]
# ## The best, not the newest
#
# Six checkpoints of a run that overfits after the third. **Predict** the two that stay.

# %%
for step, loss in enumerate((2.1, 1.9, 1.7, 1.8, 2.0, 2.3), 1):
    save_checkpoint(folder / "kept" / f"{step:06}", {"model": {}, "val_loss": loss})
print([path.name for path in keep_best(folder / "kept", 2)])

# %% [markdown]
# **Now you.** A checkpoint has weights, and AdamW's two averages of the same size. The weights are
# 3.2 MB. How large is the checkpoint, in MB, to within a tenth?

# %%
answer = None
sizes = {file.name: file.stat().st_size for file in last.glob("*.safetensors")}
total = 3.2 * (1 + sizes["state.safetensors"] / sizes["model.safetensors"])
assert answer is None or abs(answer / total - 1) < 0.1, "weights, mean and square"

# %% [markdown]
# ## Two processes, one step
#
# The gradient of a batch of 8, and the mean of the gradients of its two parts. **Predict** where
# this mean lies if the parts are 4 and 4, and where if they are 6 and 2.


# %%
def gradient(inputs, targets):
    model.zero_grad()
    cross_entropy(model.eval()(inputs), targets).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


inputs, targets = get_batch(tokens, 8, 16, torch.Generator().manual_seed(3))
whole = gradient(inputs, targets)
along = whole / whole.norm()


def draw(ax, first):
    parts = zip(inputs.split([first, 8 - first]), targets.split([first, 8 - first]), strict=True)
    a, b = (gradient(*part) for part in parts)
    mean = (a + b) / 2
    across = (a - b) - (a - b) @ along * along  # with `along` it spans the plane of a and b
    plane = torch.stack([across / across.norm(), along])
    for vector, color, style, label in (
        (a, GRAY, "-", "a part"),
        (b, GRAY, "-", None),
        (whole, BLUE, "-", "the batch"),
        (mean, ORANGE, "--", "mean of the parts"),
    ):
        x, y = (plane @ vector).tolist()
        ax.plot([0, x], [0, y], style, color=color, marker="o", markevery=[1], label=label)
    ax.plot(*(plane @ torch.stack([a, b], dim=1)), ":", color=GRAY)
    for vector, size in ((a, first), (b, 8 - first)):
        ax.annotate(size, (plane @ vector).tolist(), (0, 6), textcoords="offset points")
    apart = (mean - whole).norm() / whole.norm()
    ax.set(title=f"{first} and {8 - first}: {apart:.0%} away", xlim=(-1.8, 1.4), ylim=(-0.1, 1))
    ax.set_aspect("equal")
    ax.axis("off")


figure, axes = plt.subplots(1, 2, figsize=(9, 1.8))
for ax, first in zip(axes, (4, 6), strict=True):
    draw(ax, first)
axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "Gradients as lines from one point: of two parts, their mean, and the whole batch.")

# %% [markdown]
# Look at the dotted line between the parts: the gradient of the batch divides it as 2 to 6, nearer
# to the part that has more sequences. A mean of means is in the middle, which is right only if the
# parts are equal.


# %%
@interact(first=slider(4, 1, 7, continuous_update=False))
def split(first):
    figure, ax = plt.subplots(figsize=(5, 2))
    draw(ax, first)
    show(figure, f"Gradients of parts of {first} and {8 - first}, their mean, and the batch.")
