"""One learner's answers to the exercises of module 05, which its tests must accept."""

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings.reference import TransformerEmbedding, rotate
from tiny_transformer.tiny_lm.reference import Cache, ModelConfig
from tiny_transformer.transformer_block.reference import LayerNorm, TransformerBlock


def count_parameters(config: ModelConfig) -> int:
    d = config.d_model
    total = config.vocab_size * d
    if config.positions == "learned":
        total += config.max_len * d
    for _ in range(config.n_layers):
        total += 2 * d + 4 * (d * d + d)
        total += 2 * d + 2 * d * config.d_ff + config.d_ff + d
    return total + 2 * d


def init_weights(model: nn.Module) -> None:
    smaller = 0.02 * (2 * len(model.blocks)) ** -0.5
    for name, p in model.named_parameters():
        if p.ndim == 2:
            std = smaller if "out_proj" in name or "down" in name else 0.02
            torch.nn.init.normal_(p, mean=0.0, std=std)
        elif "bias" in name:
            torch.nn.init.zeros_(p)
        else:
            torch.nn.init.ones_(p)


class TinyTransformerLM(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = TransformerEmbedding(
            config.vocab_size,
            config.d_model,
            config.max_len,
            dropout=config.dropout,
            positions=config.positions,
        )
        blocks = []
        for _ in range(config.n_layers):
            block = TransformerBlock(
                config.d_model, config.n_heads, config.d_ff, dropout=config.dropout
            )
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.ln_f = LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight = self.embedding.token.weight
        init_weights(self)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        T = tokens.shape[1]
        if T > self.config.max_len:
            raise ValueError(f"tokens has {T} positions, max_len is {self.config.max_len}")
        read = 0
        if cache is not None:
            read = cache.length
        turn = None
        if self.config.positions == "rope":
            positions = torch.arange(read, T, device=tokens.device)

            def turn(x: Tensor) -> Tensor:
                return rotate(x, positions)

        x = self.embedding(tokens, start=read)
        for i, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, rotate=turn)
            else:
                x = block(x, rotate=turn, remember=lambda k, v, i=i: cache.append(i, k, v))
        if cache is not None:
            cache.length = T
        return self.head(self.ln_f(x))


def next_token_distribution(model: nn.Module, tokens: Tensor) -> Tensor:
    mode = model.training
    model.eval()
    with torch.no_grad():
        probabilities = torch.softmax(model(tokens)[:, -1, :], dim=-1)
    model.train(mode)
    return probabilities
