"""Wrong turns that learners take in module 07, and what to say to each."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.sampling import reference
from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.setup.grading.doors import heeds
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM

SMALL = ModelConfig(
    vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=2, d_ff=32, dropout=0.5
)
CHANCES = torch.tensor([[0.15, 0.5, 0.1, 0.25], [0.05, 0.15, 0.2, 0.6]])


@probe("greedy", B=2, vocab_size=4)
def two_rows(greedy: Callable) -> list[Tensor]:
    return [greedy(CHANCES.log())]


@probe("apply_temperature", B=2, vocab_size=4)
def half_the_temperature(apply_temperature: Callable) -> list[Tensor]:
    return [apply_temperature(CHANCES.log(), 0.5).softmax(dim=-1)]


@probe("top_k_filter", B=2, vocab_size=4)
def the_two_best_and_what_was_given(top_k_filter: Callable) -> list[Tensor]:
    logits = CHANCES.log()
    return [top_k_filter(logits, 2), logits]


@probe("top_p_filter", B=2, vocab_size=4)
def nuclei_of_one_token_and_of_two(top_p_filter: Callable) -> list[Tensor]:
    return [top_p_filter(CHANCES.log(), p).softmax(dim=-1) for p in (0.3, 0.7)]


@probe("sample", B=1000, vocab_size=4)
def which_tokens_come_up_and_whether_they_repeat(sample: Callable) -> Any:
    logits = CHANCES[:1].log().expand(1000, 4)
    drawn, again = (
        sample(logits, 2.0, None, 0.7, torch.Generator().manual_seed(0)) for _ in range(2)
    )
    return {
        "the shape of the tokens drawn for 1000 rows": list(drawn.shape),
        "a generator of the same seed draws the same tokens": drawn.equal(again),
        "which tokens come up": drawn.unique().tolist(),
        "which come up of the best 3": sample(logits, 2.0, 3, 0.7).unique().tolist(),
    }


@probe("generate", B=2, T=8)
def within_the_context_while_training_and_past_the_context(generate: Callable) -> Any:
    generator = torch.Generator().manual_seed(0)
    model = TinyTransformerLM(SMALL).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    short, long = torch.arange(3).repeat(2, 1), torch.arange(12).remainder(11).repeat(11, 1)
    long[:, -1] = torch.arange(11)  # the rows differ in their last token alone

    quiet = generate(model, short, 5, temperature=0, use_cache=False)
    noisy = generate(model.train(), short, 5, temperature=0, use_cache=False)
    still_training = all(module.training for module in model.modules())
    text = generate(model.eval(), long, 2, temperature=0, use_cache=False)
    facts = {
        "dropout rests while the model writes": noisy.equal(quiet),
        "a model that was training is training afterwards": still_training,
        "a text longer than the context comes back whole": text.size(1) == 14,
        "past the context the last tokens are read": len(text[:, -2].unique()) > 1,
        "a prompt among shorter ones keeps its tokens": keeps_long_prompts(generate, model),
    }
    return [quiet, facts]


def keeps_long_prompts(generate: Callable, model: nn.Module) -> bool:
    """With prompts of two lengths; also where `lengths` is left alone."""
    padded, lengths = torch.tensor([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]]), torch.tensor([2, 5])
    write = partial(generate, model, padded, 3, temperature=0, use_cache=False)
    return not heeds(write, "lengths", lengths) or write(lengths=lengths)[1, :5].equal(padded[1])


@probe("KVCache", B=1, n_heads=2, T=3, d_head=8)
def two_layers_and_a_third_token(KVCache: Callable) -> Any:
    cache = KVCache(SMALL, 1)
    k = torch.randn(2, 1, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    cache.append(0, k[0, :, :, :2], -k[0, :, :, :2])
    keys, _ = cache.append(1, k[1, :, :, :2], -k[1, :, :, :2])
    cache.length = 2
    shape = {"the shape of the second layer's keys after two tokens": list(keys.shape)}
    third = tuple(kept.clone() for kept in cache.append(0, k[0, :, :, 2:], -k[0, :, :, 2:]))
    cache.length = 1  # what is appended may now be written over the second
    other, _ = cache.append(0, k[0, :, :, 2:], -k[0, :, :, 2:])
    return [shape, third, {"it holds as many tokens after `length` was set back": other.size(2)}]


def keep_what_beats_the_kth(logits: Tensor, k: int) -> Tensor:
    kth = logits.topk(min(k, logits.size(-1)), dim=-1).values[..., -1:]
    return logits.masked_fill(logits <= kth, -math.inf)


def filter_in_place(logits: Tensor, k: int) -> Tensor:
    return logits.copy_(reference.top_k_filter(logits, k))


def stop_before_p(logits: Tensor, p: float) -> Tensor:
    descending, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    outside = descending.cumsum(dim=-1) > p
    return logits.masked_fill(outside.scatter(-1, order, outside), -math.inf)


def mask_in_sorted_order(logits: Tensor, p: float) -> Tensor:
    descending = logits.softmax(dim=-1).sort(dim=-1, descending=True).values
    return logits.masked_fill(descending.cumsum(dim=-1) - descending >= p, -math.inf)


def gather_by_order(logits: Tensor, p: float) -> Tensor:
    descending, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    outside = descending.cumsum(dim=-1) - descending >= p
    return logits.masked_fill(outside.gather(-1, order), -math.inf)


def temperature_last(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    if top_k is not None:
        logits = reference.top_k_filter(logits, top_k)
    if top_p is not None:
        logits = reference.top_p_filter(logits, top_p)
    return reference.sample(logits, temperature, generator=generator)


@torch.no_grad()
def top_p_of_all(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    if temperature and top_k and top_p:
        scaled = reference.apply_temperature(logits.float(), temperature)
        kept = reference.top_k_filter(scaled, top_k), reference.top_p_filter(scaled, top_p)
        logits, temperature, top_k, top_p = torch.minimum(*kept), 1.0, None, None
    return reference.sample(logits, temperature, top_k, top_p, generator)


def one_number_for_all_rows(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    drawn = torch.rand(1, generator=generator)
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = reference.apply_temperature(logits.float(), temperature)
    logits = logits if top_k is None else reference.top_k_filter(logits, top_k)
    logits = logits if top_p is None else reference.top_p_filter(logits, top_p)
    return (logits.softmax(dim=-1).cumsum(dim=-1) <= drawn).sum(dim=-1)


def continue_from(
    window: slice,
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    use_cache: bool = True,
    lengths: Tensor | None = None,
    **strategy: Any,
) -> Tensor:
    for _ in range(max_new_tokens):
        choice = reference.sample(model(tokens[:, window])[:, -1], **strategy)
        tokens = torch.cat((tokens, choice[:, None]), dim=1)
    return tokens


def with_dropout(model: nn.Module, *args: Any, **options: Any) -> Tensor:
    return continue_from(slice(-model.config.max_len, None), model, *args, **options)


def from_the_beginning(model: nn.Module, *args: Any, **options: Any) -> Tensor:
    was_training = model.training
    tokens = continue_from(slice(model.config.max_len), model.eval(), *args, **options)
    model.train(was_training)
    return tokens


def stay_in_evaluation(model: nn.Module, *args: Any, **options: Any) -> Tensor:
    return reference.generate(model.eval(), *args, **options)


def return_the_window(model: nn.Module, *args: Any, **options: Any) -> Tensor:
    return reference.generate(model, *args, **options)[:, -model.config.max_len - 1 :]


def write_over_long_prompts(
    model: nn.Module,
    tokens: Tensor,
    max_new_tokens: int,
    lengths: Tensor | None = None,
    **options: Any,
) -> Tensor:
    shortest = tokens.size(1) if lengths is None else int(lengths.min())
    more = tokens.size(1) - shortest + max_new_tokens
    return reference.generate(model, tokens[:, :shortest], more, **options)


class MovesOnByItself(reference.KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        everything = super().append(layer, k, v)
        self.length += k.size(2)
        return everything


class NeverForgets:
    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        device: torch.device | str | None = None,
    ):
        self.length, self.kept = 0, {}

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        for old_k, old_v in self.kept.get(layer, []):
            k, v = torch.cat((old_k, k), dim=2), torch.cat((old_v, v), dim=2)
        self.kept[layer] = [(k, v)]
        return k, v


class HasOneLayer(reference.KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return super().append(0, k, v)


MISCONCEPTIONS = [
    Misconception(
        "greedy",
        wrong=lambda logits: logits.argmax(),
        hint="argmax without `dim` looks for one winner in the whole batch, and counts its place "
        "through all rows. Every row has its own best token, along the last axis.",
    ),
    Misconception(
        "apply_temperature",
        wrong=lambda logits, temperature: logits * temperature,
        hint="You multiplied, which turns the dial around: a low temperature would flatten the "
        "distribution and a high one make the model sure of itself.",
    ),
    Misconception(
        "top_k_filter",
        wrong=keep_what_beats_the_kth,
        hint="Your filter removes the k-th score along with the lower ones and keeps k - 1; with "
        "k = 1 nothing is left and the softmax is NaN. The k-th is the lowest that stays.",
    ),
    Misconception(
        "top_k_filter",
        wrong=filter_in_place,
        hint="You wrote the -inf into the caller's logits. Whoever filters the same scores again, "
        "to compare two settings, would find them filtered already: return a new tensor.",
    ),
    Misconception(
        "top_p_filter",
        wrong=stop_before_p,
        hint="You dropped the token that takes the sum past p. What is left falls short of p, and "
        "where one token has more than p alone nothing is left: the one that crosses belongs in.",
    ),
    Misconception(
        "top_p_filter",
        wrong=mask_in_sorted_order,
        hint="Your mask is in order of probability and the logits are in order of the vocabulary, "
        "so the tokens you keep are those with low ids, whatever their chances. Take the mask "
        "back to where each token stands.",
    ),
    Misconception(
        "top_p_filter",
        wrong=gather_by_order,
        hint="Your mask is taken back by a gather with `order`, which goes the other way: order[i] "
        "is the id of the token in place i, and a gather with it sorts. `scatter` puts place i "
        "where order[i] says; a gather would need order.argsort().",
    ),
    Misconception(
        "sample",
        wrong=temperature_last,
        hint="You filtered before the temperature was applied. top_p then measures chances that "
        "are not the ones drawn from, and cuts off at a temperature of 2 as if it were 1.",
    ),
    Misconception(
        "sample",
        wrong=lambda logits, temperature=1.0, top_k=None, top_p=None, generator=None: (
            reference.sample(logits, temperature, top_k, top_p)
        ),
        hint="You drew from PyTorch's global random state, not from `generator`: the same seed "
        "would not give the same text twice, and writing a sample during training would change "
        "the training.",
    ),
    Misconception(
        "sample",
        wrong=top_p_of_all,
        hint="Your top_p measures the chances of all tokens; it comes after top_k, and measures "
        "what top_k has left, whose chances add up to 1 again.",
    ),
    Misconception(
        "sample",
        wrong=one_number_for_all_rows,
        hint="One random number decides for all rows, so rows alike always get the same token. "
        "Each row draws its own.",
    ),
    Misconception(
        "generate",
        wrong=with_dropout,
        hint="Dropout is at work while your model writes, so every choice is made with a part of "
        "the network switched off at random. Put it in evaluation mode for as long as it writes.",
    ),
    Misconception(
        "generate",
        wrong=stay_in_evaluation,
        hint="You leave the model in evaluation mode. A sample taken in the middle of training "
        "would turn dropout off for the rest of it, without a word: restore the mode you found.",
    ),
    Misconception(
        "generate",
        wrong=from_the_beginning,
        hint="Once the text outgrows the context, your model reads its first tokens and not its "
        "last. It would never see what it has written since, and go on as if it had not.",
    ),
    Misconception(
        "generate",
        wrong=return_the_window,
        hint="Your text loses its beginning once it outgrows the context: you cut the tokens that "
        "you return, not only those that the model reads. Keep the whole text beside the window.",
    ),
    Misconception(
        "generate",
        wrong=write_over_long_prompts,
        hint="Your loop begins where the shortest prompt ends, and writes over the longer ones: as "
        "long as it is inside a prompt, that row keeps its own token.",
    ),
    Misconception(
        "KVCache",
        wrong=NeverForgets,
        hint="You append to all there is, whatever `length` says. Who sets it back, because the "
        "last tokens were only guesses, would still attend to them: new ones stand at `length`.",
    ),
    Misconception(
        "KVCache",
        wrong=MovesOnByItself,
        hint="Your append moves `length` on, but it is called once per layer for the same tokens. "
        "The second layer would write behind a gap that the first has made; the model moves "
        "`length` when all layers are done.",
    ),
    Misconception(
        "KVCache",
        wrong=HasOneLayer,
        hint="All layers share one store in your cache, so each overwrites what the one before "
        "has kept, and attends to keys that another layer made. Give each layer its own.",
    ),
]
