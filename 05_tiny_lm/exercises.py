"""Your turn: the model. Replace each `raise NotImplementedError`, then run `pytest 05_tiny_lm`.

The order is the order of `theory.md`. Each exercise may use the ones above it. ModelConfig, the
shape of a model, is given: read it in `reference.py`. Here all models are classic ones.
"""

import torch
from torch import Tensor, nn

from tiny_transformer.embeddings.reference import (
    TransformerEmbedding,
    rotate,
)
from tiny_transformer.tiny_lm.reference import Cache, ModelConfig
from tiny_transformer.transformer_block.reference import LayerNorm, TransformerBlock


def count_parameters(config: ModelConfig) -> int:
    """★★ How many numbers a model of this shape learns, without building it.

    The head reuses the token table, which counts once. Sinusoidal and rotary positions learn
    nothing.

    >>> config = ModelConfig(vocab_size=2, max_len=3, d_model=1, n_layers=1, n_heads=1, d_ff=1)
    >>> count_parameters(config)  # 2 + 3 + (4 + 8 + 4) + 2
    23
    """
    raise NotImplementedError


def init_weights(model: nn.Module) -> None:
    """★★ Start as GPT-2 does: weights from N(0, 0.02), biases 0, norms the identity.

    The two projections of each block that add to the residual stream, out_proj and down, start
    smaller by the square root of their number, 2 n_layers (Radford et al. 2019, section 2.3).
    The numbers are written into the model's own parameters, whose dtype and device stay; the seed
    is the caller's to set.
    """
    raise NotImplementedError


class TinyTransformerLM(nn.Module):
    """★★★ A decoder-only transformer: tokens (B, T) -> logits (B, T, vocab_size).

    Name the parts `config`, `embedding`, `blocks` (an nn.ModuleList), `ln_f` and `head`, a linear
    layer without bias whose weight is the token table itself. With `config.positions` "rope", hand
    each block a `rotate` that turns queries and keys by their positions. At the end of __init__,
    initialize the weights.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        raise NotImplementedError

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """tokens (B, T) -> logits (B, T, vocab_size); T above `config.max_len` is a ValueError.

        You may leave `cache` alone at first: it is for module 07. The cache has read the first
        `cache.length` tokens, so only the others go from the embedding (by its `start`) through
        the blocks: logits (B, T - cache.length, vocab_size). Hand block i a `remember` that calls
        `cache.append(i, k, v)`, and when all blocks are through, set `cache.length` to T.

        >>> model = TinyTransformerLM(ModelConfig(vocab_size=11))
        >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 11])
        """
        raise NotImplementedError


def next_token_distribution(model: nn.Module, tokens: Tensor) -> Tensor:
    """★ tokens (B, T) -> (B, vocab_size): the probability of every token to come next.

    Meanwhile dropout rests and no graph is built; the model is left in the mode it was in.
    """
    raise NotImplementedError
