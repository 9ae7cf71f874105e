# %% [markdown]
# # 09 · The capstone: three sessions
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tiny-transformer/tiny-transformer/blob/main/09_capstone/notebook.ipynb)
#
# Open this beside [theory.md](theory.md). It runs on Colab, on a GPU of your own, or on a CPU, and
# trains the preset that suits the machine: two minutes on two laptop cores. As it is stored here it
# was run with the preset `fast`, which takes about ten seconds.

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
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from ipywidgets import Textarea, interact

from tiny_transformer.capstone.reference import build_model, gallery, load_run, train
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.capstone.verify import verify
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.config import PRESETS
from tiny_transformer.engineering.reference import MetricsLog
from tiny_transformer.multihead.reference import attention_entropy
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.plots import (
    BLUE,
    GRAY,
    ORANGE,
    show,
    show_weights,
    slider,
    use_style,
    visible,
)
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.training.reference import cross_entropy

use_style()
preset = os.environ.get("PRESET", "gpu" if torch.cuda.is_available() else "cpu")
config = PRESETS[preset]
if "PRESET" in os.environ:  # on a busy machine, threads that wait for each other spin
    torch.set_num_threads(1)
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
# The same as `tiny-transformer train`, into a new folder under `runs/`, with three evaluations at
# least. Stop it with the square button: it saves, and `train(config, out, resume=True)` goes on.
#
# **Predict** what the samples look like after each evaluation.

# %%
out = Path("..", "runs", time.strftime(f"notebook-{preset}-%Y%m%d-%H%M%S"))
config = replace(config, eval_every=min(config.eval_every, math.ceil(config.train.max_steps / 3)))
best = train(config, out)
print(f"best validation loss {best:.2f}")

# %% [markdown]
# ## The curve
#
# This run beside that of the pretrained model. Two landmarks are what counting alone can reach: the
# entropy of characters, and that of a character given the one before; [theory.md](theory.md)
# computes both.


# %%
landmarks = {"ln 65": math.log(65), "entropy of characters": 3.31, "entropy given one before": 2.45}


def curve(ax, run, title):
    records = MetricsLog(run / "metrics.jsonl").read()
    evaluated = [record for record in records if "val_loss" in record]
    steps, last = [record["step"] for record in records], records[-1]["step"]
    for name, landmark in landmarks.items():
        ax.axhline(landmark, color=GRAY, linestyle=":")
        ax.text(last, landmark + 0.04, f"{name} {landmark:.2f}", ha="right", va="bottom")
    ax.plot(steps, [record["train_loss"] for record in records], label="training")
    ax.plot(
        [record["step"] for record in evaluated],
        [record["val_loss"] for record in evaluated],
        "o-",
        label="validation",
    )
    ax.set(xlabel="step", title=title)


pretrained = Path("pretrained")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), sharey=True)
curve(left, out, f"this run, preset {preset}")
curve(right, pretrained, "the pretrained model")
left.set(ylabel="loss in nats a character", ylim=(1, 4.5))
right.legend(loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "Training and validation loss of this run and of the pretrained model's, by step.")

# %% [markdown]
# Look for three things: the start at ln 65, how soon each landmark is passed, and the gap between
# training and validation. The pretrained model's run ends while validation still falls.

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
page = gallery(model, tokenizer, ["ROMEO:"], max_new_tokens=120)
Markdown(page.replace("# ", "### "))  # its headings stand below those of this notebook

# %% [markdown]
# ## Which characters surprise it?
#
# A line of Shakespeare, each character with the loss the model paid for it. **Predict** where the
# bars are high: inside words, or at their beginnings?

# %%
line = "But, soft! what light through yonder window breaks?"
tokens = torch.tensor([tokenizer.encode("\n" + line)])
with torch.no_grad():
    scores = model(tokens[:, :-1])[0]
losses = [cross_entropy(z, target).item() for z, target in zip(scores, tokens[0, 1:], strict=True)]
colors = [ORANGE if before == " " else BLUE for before in " " + line[:-1]]
figure, ax = plt.subplots(figsize=(10, 2.4))
ax.bar(range(len(line)), losses, color=colors)
ax.axhline(sum(losses) / len(losses), color=GRAY, linestyle=":", label="mean")
ax.set_xticks(range(len(line)), map(visible, line), family="DejaVu Sans Mono")
ax.set(ylabel="loss in nats")
ax.legend()
show(figure, "The loss of each character of a line; first letters of words are orange.")

# %% [markdown]
# Look at first letters, in orange: all of them cost more than the mean, and once a word has begun,
# its rest is often cheap. Where it is not, the model had another word in mind: after `yo` it gives
# 99% to `u`, after `th` 39% to `e`.

# %% [markdown]
# ## Where does it look?
#
# Attention of every head of the first layer, on four words of the same line. **Predict** whether a
# head looks at the character just before. (The number of keys is e to the mean entropy of the last
# ten queries: module 02.)


# %%
@interact(layer=slider(0, 0, model.config.n_layers - 1, continuous_update=False))
def show_layer(layer):
    phrase = "what light through yonder"
    tokens = torch.tensor([tokenizer.encode(phrase)])
    maps = attention_maps(model, tokens)[layer][0]
    figure, axes = plt.subplots(2, math.ceil(len(maps) / 2), figsize=(10, 7))
    for ax in axes.flat[len(maps) :]:
        ax.axis("off")
    for head, (ax, weights) in enumerate(zip(axes.flat, maps, strict=False)):
        keys = attention_entropy(weights)[-10:].mean().exp()
        show_weights(ax, weights, phrase, phrase, f"layer {layer}, head {head}: {keys:.1f} keys")
        ax.tick_params(labelsize=8)
    show(figure, f"Attention maps of the {len(maps)} heads of layer {layer} on {phrase!r}.")


# %% [markdown]
# Look for the main diagonal (head 4: the character itself) and for a diagonal one step below it
# (head 1: the character before). Head 0 follows words: for most letters it looks most at the first
# one of the word. With the slider you see the other layers, where head 4 of layer 3 looks at the
# blank in front of the word. Many others spread over ten keys and more.

# %% [markdown]
# ## Your model from inside
#
# One HTML file that holds the weights of this run and computes with them in the browser: type a
# line, and see every head read it, what each layer would say, and what the loss becomes without a
# head. Open the file that is named here, guess which head of the first layer is missed most, and
# press "try each in turn".

# %%
command = [sys.executable, "-m", "tiny_transformer.capstone", "explore", "--run", out, "--no-open"]
_ = subprocess.run(command, check=True)

# %% [markdown]
# ## Play


# %%
@interact(
    prompt=Textarea("JULIET:\n", rows=2, continuous_update=False),
    temperature=slider(0.8, 0.0, 1.5, 0.1, continuous_update=False),
    seed=slider(1, 1, 50, continuous_update=False),
)
def write(prompt, temperature, seed):
    tokens = torch.tensor([tokenizer.encode(prompt)])
    generator = torch.Generator().manual_seed(seed)
    print(tokenizer.decode(generate(model, tokens, 150, temperature, generator=generator)[0]))


# %% [markdown]
# **Now you.** The loss of this model is about 1.41 nats a character. Among how many equally likely
# characters does it seem to choose? To one digit after the point.

# %%
answer = None
assert answer is None or abs(answer - math.exp(1.41)) < 0.06, "e to the power of the loss"
