"""The peer of every benchmark here: Hugging Face's GPT-2 in the shape of nanoGPT's CPU recipe.

`python 09_capstone/benchmarks/peer.py OUT` trains it by that recipe, in our loop and with our fused
optimizer, so that only the models differ, and writes metrics like ours.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.reference import MetricsLog, seed_everything
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import (
    TrainConfig,
    evaluate,
    make_optimizer,
    split_corpus,
    training_steps,
)

NANOGPT_CPU = ModelConfig()  # 4 layers, 4 heads, 128 wide, context 64
NANOGPT_GPU = ModelConfig(max_len=256, d_model=384, n_layers=6, n_heads=6, d_ff=1536)


class Peer(nn.Module):
    """Hugging Face's GPT-2 with our front: tokens (B, T) -> logits (B, T, vocab_size)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = SimpleNamespace(max_len=config.max_len)
        self.gpt2 = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=config.vocab_size,
                n_positions=config.max_len,
                n_embd=config.d_model,
                n_layer=config.n_layers,
                n_head=config.n_heads,
                n_inner=config.d_ff,
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                bos_token_id=None,
                eos_token_id=None,
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.gpt2(tokens, use_cache=False).logits


def main(out: Path, seed: int = 1) -> None:
    seed_everything(seed)
    text = load_text()
    tokens = torch.tensor(CharTokenizer(text).encode(text))
    train_tokens, val_tokens = split_corpus(tokens)
    recipe = TrainConfig()  # nanoGPT's
    model = Peer(NANOGPT_CPU)
    optimizer = make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(seed)
    out.mkdir(parents=True)
    log = MetricsLog(out / "metrics.jsonl")
    for step, loss in training_steps(model, optimizer, train_tokens, recipe, generator):
        if step % RunConfig().eval_every == 0:
            record = {
                "step": step,
                "tokens": step * recipe.batch_size * model.config.max_len,
                "train_loss": loss.item(),
                "val_loss": evaluate(model, val_tokens),
                "seconds": time.time() - psutil.Process().create_time(),
            }
            log.append(record)
            print(record, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
