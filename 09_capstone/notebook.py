# %% [markdown]
# # 09 · The capstone: three sessions
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tiny-transformer/tiny-transformer/blob/main/09_capstone/notebook.ipynb)
#
# Open this beside [theory.md](theory.md). It runs on Colab, on a GPU of your own, or on a CPU, and
# trains the preset that suits the machine: two minutes on two laptop cores. As it is stored here it
# was run with the preset `smoke`, which takes seconds and learns next to nothing.

# %%
import importlib
import os
import subprocess
import sys

COURSE = "https://github.com/tiny-transformer/tiny-transformer"
if importlib.util.find_spec("tiny_transformer") is None:  # on Colab, say
    subprocess.run(["git", "clone", "--depth", "1", COURSE, "course"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "./course"], check=True)
    importlib.invalidate_caches()
    os.chdir("course/09_capstone")

# %%
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from ipywidgets import interact

from tiny_transformer.capstone.reference import build_model, gallery, load_run, train
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.capstone.verify import verify
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.engineering.reference import MetricsLog
from tiny_transformer.multihead.reference import attention_entropy
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.plots import GRAY, show_weights, use_style
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.training.reference import cross_entropy

use_style()
preset = os.environ.get("PRESET", "gpu" if torch.cuda.is_available() else "cpu")
config = PRESETS[preset]
print(f"preset {preset}")

# %% [markdown]
# ## Session 1: build
#
# **Predict** the number of parameters, and the loss of the fresh model.

# %%
text = load_text(config.corpus)
model, tokenizer = build_model(config.model, text)
tokens = torch.tensor([tokenizer.encode(text[: config.model.max_len + 1])])
with torch.no_grad():
    first = cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
print(f"{len(text):,} characters, {tokenizer.vocab_size} different ones")
parameters = count_modern_parameters(model.config)
print(f"{parameters:,} parameters")
print(f"first loss {first:.2f}, ln {tokenizer.vocab_size} = {math.log(tokenizer.vocab_size):.2f}")

# %% [markdown]
# **Now you.** About how many operations is one training step? 6 for each parameter and token; a
# step reads batch_size × max_len tokens. Answer in millions, to within a tenth.

# %%
answer = None
work = 6 * parameters * config.train.batch_size * config.model.max_len / 1e6
assert answer is None or math.isclose(answer, work, rel_tol=0.1), "6 × parameters × tokens / 1e6"

# %% [markdown]
# ## Session 2: train
#
# The same as `tiny-transformer train`, into a new folder under `runs/`. Stop it with the square
# button: it saves, and `train(config, out, resume=True)` goes on.
#
# **Predict** what the samples look like after each evaluation.

# %%
out = Path("..", "runs", time.strftime(f"notebook-{preset}-%Y%m%d-%H%M%S"))
best = train(config, out)
print(f"best validation loss {best:.2f}")

# %% [markdown]
# ## The curve
#
# Look for three things: the start at ln 65, the two landmarks that counting alone can reach, and
# the gap between training and validation. The pretrained model's run ends while validation still
# falls. The landmarks are the entropy of characters and that of a character given the one before;
# [theory.md](theory.md) computes both.


# %%
def curve(ax, run, title):
    records = MetricsLog(run / "metrics.jsonl").read()
    evaluated = [record for record in records if "val_loss" in record]
    ax.plot([r["step"] for r in records], [r["train_loss"] for r in records], label="training")
    ax.plot(
        [r["step"] for r in evaluated], [r["val_loss"] for r in evaluated], "o-", label="validation"
    )
    for landmark in (math.log(65), 3.31, 2.45):
        ax.axhline(landmark, color=GRAY, linestyle=":")
    ax.set(xlabel="step", ylabel="loss in nats a character", title=title)
    ax.legend()


pretrained = Path("pretrained")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
curve(left, out, f"this run, preset {preset}")
curve(right, pretrained, "the pretrained model")
plt.show()

# %% [markdown]
# ## Is it what it says it is?
#
# `verify` distrusts the folder: it checks the sums, counts the parameters, looks for a leak of the
# future, compares cached with uncached text, and measures the loss again. **Predict** which of
# these would notice a single changed bit in the weights.

# %%
print("all checks hold:", verify(out))

# %% [markdown]
# The sums notice it, whichever bit it is. The loss may move in a digit that nobody looks at.

# %% [markdown]
# ## Session 3: sample and show
#
# The rest of this notebook shows the pretrained model (`pretrained/`), so that there is something
# to see whatever you have trained. Put `load_run(out)` in its place for your own.

# %%
model, tokenizer = load_run(pretrained)
Markdown(gallery(model, tokenizer, ["ROMEO:"], max_new_tokens=120))

# %% [markdown]
# ## Which characters surprise it?
#
# A line of Shakespeare, each character with the loss the model paid for it. **Predict** where the
# bars are high: inside words, or at their beginnings?
#
# Look at first letters: all of them cost more than the mean (dotted), and once a word has begun,
# its rest is often cheap. Where it is not, the model had another word in mind: after `yo` it gives
# 99% to `u`, after `th` 39% to `e`.

# %%
line = "But, soft! what light through yonder window breaks?"
tokens = torch.tensor([tokenizer.encode("\n" + line)])
with torch.no_grad():
    scores = model(tokens[:, :-1])[0]
losses = [cross_entropy(z, target).item() for z, target in zip(scores, tokens[0, 1:], strict=True)]
figure, ax = plt.subplots(figsize=(10, 2.4))
ax.bar(range(len(line)), losses)
ax.axhline(sum(losses) / len(losses), color=GRAY, linestyle=":")
ax.set_xticks(range(len(line)), list(line), family="DejaVu Sans Mono")
ax.set(ylabel="loss in nats", xlabel="character")
plt.show()

# %% [markdown]
# ## Where does it look?
#
# Attention of every head of the first layer, on four words of the same line. **Predict** whether a
# head looks at the character just before. (The number of keys is e to the mean entropy of the last
# ten queries: module 02.)
#
# Look for the main diagonal (head 4: the character itself) and for a diagonal one step below it
# (head 1: the character before). Head 0 follows words: for most letters it looks most at the first
# one of the word. With the slider you see the other layers, where head 4 of layer 3 looks at the
# blank in front of the word. Many others spread over ten keys and more.


# %%
def show_layer(layer):
    phrase = "what light through yonder"
    tokens = torch.tensor([tokenizer.encode(phrase)])
    maps = attention_maps(model, tokens)[layer][0]
    figure, axes = plt.subplots(1, len(maps), figsize=(3.2 * len(maps), 3.4))
    for head, (ax, weights) in enumerate(zip(axes, maps, strict=True)):
        entropy = attention_entropy(weights)[-10:].mean()
        show_weights(ax, weights, phrase, phrase, f"head {head}: {entropy.exp():.1f} keys")
        ax.tick_params(labelsize=6)
    figure.suptitle(f"layer {layer}")
    plt.show()


show_layer(0)

# %%
_ = interact(show_layer, layer=(0, model.config.n_layers - 1))

# %% [markdown]
# ## Your model from inside
#
# One HTML file that holds the weights of this run and computes with them in the browser: type a
# line, and see every head read it, what each layer would say, and what the loss becomes without a
# head. **Predict** which head of the first layer is missed most, then press "try each in turn".

# %%
subprocess.run(
    [sys.executable, "-m", "tiny_transformer.capstone", "explore", "--run", out, "--no-open"],
    check=True,
)
Markdown(f"[open the page]({out}/explore.html)")

# %% [markdown]
# ## Play


# %%
def write(prompt="JULIET:\n", temperature=0.8, seed=1):
    tokens = torch.tensor([tokenizer.encode(prompt)])
    generator = torch.Generator().manual_seed(seed)
    print(tokenizer.decode(generate(model, tokens, 300, temperature, generator=generator)[0]))


write()

# %%
_ = interact(write, prompt="JULIET:\n", temperature=(0.0, 1.5, 0.1), seed=(1, 50))

# %% [markdown]
# **Now you.** The loss of this model is about 1.41 nats a character. Among how many equally likely
# characters does it seem to choose? To one digit after the point.

# %%
answer = None
assert answer is None or abs(answer - math.exp(1.41)) < 0.06, "e to the power of the loss"
