"""The peer of every benchmark here: Hugging Face's GPT-2 in the shapes of nanoGPT's recipes.

`python 09_capstone/benchmarks/peer.py --out OUT` trains it by the CPU recipe, in our loop and with
our fused optimizer, so that only the models differ, and writes metrics like ours. With
`--recipe gpu` it is nanoGPT's GPU recipe: on a graphics card, and as ours compiled where that
is possible, in the precision that the card is best at.
"""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import psutil
import torch
import tyro
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.reference import MetricsLog, seed_everything
from tiny_transformer.engineering.speed import choose_arithmetic
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
RECIPES = {
    "cpu": (NANOGPT_CPU, TrainConfig()),
    "gpu": (replace(NANOGPT_GPU, dropout=0.2), TrainConfig(batch_size=64, max_steps=5000)),
}


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


def main(out: Path, seed: int = 1, recipe: Literal["cpu", "gpu"] = "cpu") -> None:
    on_gpu = recipe == "gpu"
    config, training = RECIPES[recipe]
    seed_everything(seed)
    text = load_text()
    tokens = torch.tensor(CharTokenizer(text).encode(text), device="cuda" if on_gpu else "cpu")
    train_tokens, val_tokens = split_corpus(tokens)
    model = Peer(config).to(tokens.device)
    optimizer = make_optimizer(model, training)
    generator = torch.Generator().manual_seed(seed)
    out.mkdir(parents=True)
    log = MetricsLog(out / "metrics.jsonl")
    use = choose_arithmetic(RunConfig(), tokens.device)
    steps = training_steps(
        torch.compile(model) if use.compile else model,
        optimizer,
        train_tokens,
        training,
        generator,
        bf16=use.bf16,
        scaler=torch.amp.GradScaler(tokens.device.type) if use.fp16 else None,
    )
    for step, loss in steps:
        if step % RunConfig().eval_every == 0:
            record = {
                "step": step,
                "tokens": step * training.batch_size * config.max_len,
                "train_loss": loss.item(),
                "val_loss": evaluate(model, val_tokens, use.bf16),
                "seconds": time.time() - psutil.Process().create_time(),
            }
            log.append(record)
            print(record, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
