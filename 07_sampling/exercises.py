"""Your turn: sampling. Replace each `raise NotImplementedError`, then run `pytest 07_sampling`.

The order is the order of `theory.md`. Each exercise may use the ones above it.
Shapes: B batch, T positions, S positions read so far, vocab_size characters.
"""

import torch
from torch import Tensor, nn

from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM


def greedy(logits: Tensor) -> Tensor:
    """★ The likeliest token of each row: (..., vocab_size) -> (...) of token ids.

    >>> greedy(torch.tensor([[0.1, 2.0, -1.0], [5.0, 4.0, 3.0]]))
    tensor([1, 0])
    """
    raise NotImplementedError


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """★ Logits of a sharper (temperature below 1) or flatter (above 1) distribution.

    Each probability becomes proportional to its power of 1 / temperature. A temperature that is
    not above 0, nan too, is a ValueError.

    >>> apply_temperature(torch.tensor([2.0, 1.0, 0.0]), 0.5).softmax(dim=-1)
    tensor([0.8668, 0.1173, 0.0159])
    """
    raise NotImplementedError


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """★★ Keep the k highest scores of each row and set the others to -inf, in a new tensor.

    (..., vocab_size) -> (..., vocab_size). Scores that tie with the k-th stay too, and a k above
    vocab_size keeps everything. A k below 1 is a ValueError.

    >>> top_k_filter(torch.tensor([1.0, 3.0, 2.0, 0.0]), 2)
    tensor([-inf, 3., 2., -inf])
    """
    raise NotImplementedError


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """★★★ Keep the fewest likeliest tokens of each row that together have probability p or more.

    logits (..., vocab_size) -> (..., vocab_size), a new tensor: kept scores as they are, the
    others -inf. A p of 1 keeps everything. A p that is not in (0, 1] is a ValueError.

    >>> top_p_filter(torch.tensor([0.15, 0.5, 0.1, 0.25]).log(), 0.7).softmax(dim=-1)
    tensor([0.0000, 0.6667, 0.0000, 0.3333])
    """
    raise NotImplementedError


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """★★ Draw a token for each row: logits (B, vocab_size) -> (B,). Temperature 0 is `greedy`.

    The temperature comes first, then top_k, then top_p of what is left. None leaves a filter
    out (0 does not, it is a ValueError, as is a temperature below 0), and `generator` alone decides
    what is drawn: PyTorch's own, where none is given.

    >>> sample(torch.tensor([[1.0, 3.0, 2.0], [9.0, 8.0, 7.0]]), temperature=2.0, top_k=1)
    tensor([1, 0])
    """
    raise NotImplementedError


def generate(
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    lengths: Tensor | None = None,
) -> Tensor:
    """★★ Continue a batch of prompts: tokens (B, T) -> (B, T + max_new_tokens), all of the text.

    Each new token is a `sample` of the scores that `model(...)` gives at the last position.
    Dropout rests, no graph is built, and the model is left in the mode it was in.

    Once the text outgrows the context, `model.config.max_len`, the model reads only the end of
    it: no more than the context, and no less than half.

    With `use_cache` the same tokens come faster: hand the model a `KVCache` beside the tokens, and
    it computes those alone that the cache has not read. A window that moves on needs a new cache.
    Write this part last; it needs the exercise below.

    You may leave `lengths` (B,) alone at first: prompts of several lengths are padded on the right
    with any ids, row b is a prompt of `lengths[b]` tokens, and its text, prompt and continuation,
    are the first `lengths[b] + max_new_tokens` tokens of row b of the result.

    >>> model, prompt = TinyTransformerLM(ModelConfig(max_len=4)), torch.tensor([[7, 8, 9]])
    >>> text = generate(model, prompt, max_new_tokens=10)
    >>> text.shape, text[:, :3]
    (torch.Size([1, 13]), tensor([[7, 8, 9]]))
    """
    raise NotImplementedError


class KVCache:
    """★★★ The keys and values of every token read so far, so that each is computed once.

    It serves `config.n_layers` layers and up to `config.max_len` tokens. `length`, 0 at first,
    is how many tokens have been read; the model moves it on once all layers have appended. Keys
    and values lie on `device`.

    >>> cache = KVCache(ModelConfig(n_layers=1, n_heads=1, d_model=1), batch_size=1)
    >>> k = torch.tensor([[[[1.0], [2.0]]]])  # two tokens
    >>> keys, values = cache.append(0, k, 10 * k)
    >>> cache.length = 2  # as the model does
    >>> keys, values = cache.append(0, k[:, :, :1], -k[:, :, :1])  # one more
    >>> keys.flatten().tolist(), values.flatten().tolist()
    ([1.0, 2.0, 1.0], [10.0, 20.0, -1.0])
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        device: torch.device | str | None = None,
    ):
        raise NotImplementedError

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """New k, v (B, n_heads, T, d_head) of `layer` -> all of them, (B, n_heads, S, d_head).

        The new ones stand behind the first `length`, in the place of what may have been there: who
        sets `length` back makes the cache forget. Here it stays as it is.
        """
        raise NotImplementedError
