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
from tiny_transformer.setup.plots import BLUE, ORANGE, use_style
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import (
    TrainConfig,
    cross_entropy,
    get_batch,
    make_optimizer,
    training_steps,
)

use_style()
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
#
# Look at the bits on the left, the exponent: one of them makes a number of 37 digits, and the model
# would load without a word if nobody compared sums.

# %%
bits = torch.tensor(0.01).view(torch.int32).item()
masks = torch.tensor([1 << bit if bit < 31 else -(1 << 31) for bit in range(32)], dtype=torch.int32)
flipped = (bits ^ masks).view(torch.float32).abs().flip(0)
figure, ax = plt.subplots(figsize=(6, 2.4))
ax.semilogy(range(32), flipped, "o", color=BLUE)
ax.axhline(0.01, color=ORANGE, linestyle=":")
ax.set(
    xlabel="flipped bit: sign, 8 of the exponent, 23 of the fraction", ylabel="size of the weight"
)
plt.show()

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
#
# Look at the distance from the straight run: with everything restored it is exactly 0, and the line
# lies on the bottom.

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

figure, ax = plt.subplots(figsize=(6.4, 3))
for forgotten in (None, "weights", "optimizer", "batches", "random states", "step"):
    apart = [abs(a - b) for a, b in zip(resumed(forgotten), straight[20:], strict=True)]
    label = f"without the {forgotten}" if forgotten else "with everything"
    style = "k.-" if forgotten is None else ".-"
    ax.plot(range(21, 41), apart, style, label=f"{label}: {max(apart):.2g}")
ax.set(xlabel="step", ylabel="difference of the loss")
ax.set_yscale("symlog", linthresh=1e-3)
ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.35))
plt.show()

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
# The gradient of a batch of 8, and the average of the gradients of its halves. **Predict** the
# difference. And then with parts of 6 and 2.
#
# Look at the second bar: a mean of means is the mean only if the parts are equal.


# %%
def gradient(inputs, targets):
    model.zero_grad()
    cross_entropy(model.eval()(inputs), targets).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


inputs, targets = get_batch(tokens, 8, 16, torch.Generator().manual_seed(3))
whole = gradient(inputs, targets)


def apart(first):
    parts = zip(inputs.split([first, 8 - first]), targets.split([first, 8 - first]), strict=True)
    mean = sum(gradient(*part) for part in parts) / 2
    return ((mean - whole).norm() / whole.norm()).item()


figure, ax = plt.subplots(figsize=(4, 2.2))
ax.bar(["4 and 4", "6 and 2"], [apart(4), apart(6)], color=[BLUE, ORANGE])
ax.set(ylabel="relative difference", xlabel="sequences in each part")
plt.show()
print(f"4 and 4: below 1e-5: {apart(4) < 1e-5}; 6 and 2: {apart(6):.2f}")

# %%
_ = interact(lambda first: print(f"{first} and {8 - first}: {apart(first):.3f}"), first=(1, 7))
