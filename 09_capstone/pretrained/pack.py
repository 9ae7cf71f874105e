"""Packs the best weights of a run, in bfloat16, with its card.

`python 09_capstone/pretrained/pack.py RUN "tiny-transformer train ..."`, with the command that
trained it.
"""

import shutil
import sys
from pathlib import Path

import torch

from tiny_transformer.capstone.reference import gallery, load_run
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.config import read_run_config
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint, save_checkpoint
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.training.reference import evaluate, perplexity, split_corpus

CARD = """\
# Model card

A character language model of {parameters:,} parameters that continues text in the manner of tiny
Shakespeare. It comes with the course, so that there is something to sample and to draw before you
have trained your own.

| what | value |
| --- | --- |
| data | tiny Shakespeare, 1,115,394 characters of public-domain plays; the first 90% train |
| license | that of the course, MIT |
| recipe | `{command}`; every setting is in [`config.toml`](config.toml) |
| time | {minutes:.1f} minutes with start-up; step by step in [`metrics.jsonl`](metrics.jsonl) |
| weights | `best/model.safetensors`, bfloat16, {megabytes:.1f} MB |
| validation loss | {loss:.4f} nats a character on the whole last 10%, from this file |
| perplexity | {perplexity:.1f} |

**Limits.** It has read one million characters of one kind of text and looks back {max_len} of them.
It spells most words, keeps the form of a play, invents words and names, and means nothing by any of
it. It knows the {vocab_size} characters of its text and refuses others.

`python 09_capstone/pretrained/pack.py RUN COMMAND` writes this folder from a run.

## Samples

{samples}"""

run, command, box = Path(sys.argv[1]), sys.argv[2], Path(__file__).parent
for name in ("config.toml", "metrics.jsonl"):
    shutil.copy(run / name, box / name)
shutil.rmtree(box / "snapshots", ignore_errors=True)
*before, _ = sorted((run / "snapshots").glob("step-*"))  # the last is the end
for snapshot in before:
    shutil.copytree(snapshot, box / "snapshots" / snapshot.name)
state = load_checkpoint(run / "best")
weights = {name: weight.bfloat16() for name, weight in state["model"].items()}
kept = {name: state[name] for name in ("step", "characters", "corpus", "settings") if name in state}
save_checkpoint(box / "best", {"model": weights, **kept})

config = read_run_config(box)
model, tokenizer = load_run(box)  # as they come out of the file
_, val_tokens = split_corpus(torch.tensor(tokenizer.encode(load_text(None))))
val_loss = evaluate(model, val_tokens[: config.eval_tokens])
save_checkpoint(box / "best", {"model": weights, "val_loss": val_loss, **kept})
print(f"validation loss {state['val_loss']:.4f}, as packed {val_loss:.4f}")

_, _, samples = gallery(model, tokenizer, ["ROMEO:", "To be, or not to be"]).split("\n\n", 2)
card = CARD.format(
    parameters=count_modern_parameters(config.model),
    command=command,
    minutes=MetricsLog(box / "metrics.jsonl").read()[-1]["seconds"] / 60,
    megabytes=(box / "best" / "model.safetensors").stat().st_size / 1e6,
    loss=val_loss,
    perplexity=perplexity(val_loss),
    max_len=config.model.max_len,
    vocab_size=config.model.vocab_size,
    samples="200 characters each, seed 1, unedited.\n\n" + samples.replace("## ", "### "),
)
(box / "README.md").write_text(card, encoding="utf-8")
