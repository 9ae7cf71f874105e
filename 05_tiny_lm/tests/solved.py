"""One learner's answers to the exercises of module 05, which its tests must accept."""

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings.reference import TransformerEmbedding, rotate
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.transformer_block.reference import LayerNorm, RMSNorm, TransformerBlock


def count_parameters(config: ModelConfig) -> int:
    d = config.d_model
    norm = d + d * (config.norm == "layer")
    total = config.vocab_size * d
    if config.positions == "learned":
        total += config.max_len * d
    for _ in range(config.n_layers):
        total += norm + 4 * d * d
        total += norm + 2 * d * config.d_ff
        if config.bias:
            total += 4 * d + config.d_ff + d
    total += norm
    if not config.tie_weights:
        total += d * config.vocab_size
    return total


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
        Norm = {"layer": LayerNorm, "rms": RMSNorm}[config.norm]
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
                config.d_model,
                config.n_heads,
                config.d_ff,
                dropout=config.dropout,
                norm=Norm,
                bias=config.bias,
            )
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.ln_f = Norm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_weights:
            self.head.weight = self.embedding.token.weight
        init_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        T = tokens.shape[1]
        if T > self.config.max_len:
            raise ValueError(f"tokens has {T} positions, max_len is {self.config.max_len}")
        turn = None
        if self.config.positions == "rope":
            positions = torch.arange(T, device=tokens.device)

            def turn(x: Tensor) -> Tensor:
                return rotate(x, positions)

        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, rotate=turn)
        return self.head(self.ln_f(x))


def next_token_distribution(model: nn.Module, tokens: Tensor) -> Tensor:
    mode = model.training
    model.eval()
    with torch.no_grad():
        probabilities = torch.softmax(model(tokens)[:, -1, :], dim=-1)
    model.train(mode)
    return probabilities
