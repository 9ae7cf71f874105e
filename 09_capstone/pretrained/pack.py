"""Packs the best weights of a run, in bfloat16: python 09_capstone/pretrained/pack.py RUN"""

import shutil
import sys
from pathlib import Path

import torch

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.reference import load_checkpoint, save_checkpoint
from tiny_transformer.training.reference import evaluate, split_corpus

run, box = Path(sys.argv[1]), Path(__file__).parent
for name in ("config.toml", "metrics.jsonl"):
    shutil.copy(run / name, box / name)
state = load_checkpoint(run / "best")
weights = {name: weight.bfloat16() for name, weight in state["model"].items()}
kept = {name: state[name] for name in ("step", "characters", "corpus")}
save_checkpoint(box / "best", {"model": weights, **kept})

model, tokenizer = load_run(box)  # as they come out of the file
_, val_tokens = split_corpus(torch.tensor(tokenizer.encode(load_text(None))))
val_loss = evaluate(model, val_tokens)
save_checkpoint(box / "best", {"model": weights, "val_loss": val_loss, **kept})
print(f"validation loss {state['val_loss']:.4f}, as packed {val_loss:.4f}")
