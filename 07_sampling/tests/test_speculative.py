"""Guessing ahead changes how many passes a text takes, and never the text."""

import pytest
import torch

from tiny_transformer.sampling.reference import generate
from tiny_transformer.sampling.speculative import GUESSES, NGramDraft, generate_ahead
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig

PROMPT = torch.tensor([[1, 2, 3]])
NEW = 40  # the window of 16 moves on several times


@pytest.fixture(params=[False, True], ids=["", "token shift"])
def model(request):
    """A model with opinions: fresh weights would give all tokens nearly the same score."""
    torch.manual_seed(0)
    shape = dict(vocab_size=11, max_len=16, d_model=16, n_layers=2, n_heads=2, d_ff=32)
    model = build(ModelConfig(**shape, token_shift=request.param))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / 2)
    return model.train()


def seeded():
    return torch.Generator().manual_seed(3)


def passes(model):
    """Counts the model's forward passes from here on."""
    count = []
    model.register_forward_hook(lambda *_: count.append(1))
    return count


@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
@pytest.mark.parametrize("of", ["all right", "all wrong", "half right"])
def test_the_text_is_that_of_generate_whatever_is_guessed(model, temperature, of):
    text = generate(model, PROMPT, NEW, temperature, generator=seeded())

    def draft(so_far, n):
        right = text[0, len(so_far) : len(so_far) + n]
        wrong = {"all right": 0, "all wrong": 1, "half right": torch.arange(len(right)) % 2}[of]
        return (right + wrong) % 11

    count = passes(model)
    ahead = generate_ahead(model, PROMPT, NEW, draft, temperature, generator=seeded())
    assert ahead.equal(text)
    assert model.training
    fewest = NEW / (GUESSES + 1)
    least, most = {"all right": (fewest, NEW / 2), "all wrong": (NEW, NEW)}.get(of, (10, NEW / 1.5))
    assert least <= len(count) <= most


@pytest.mark.parametrize("strategy", [{"top_k": 3}, {"top_p": 0.6}, {"top_k": 3, "top_p": 0.6}])
def test_the_filters_apply(model, strategy):
    text = generate(model, PROMPT, NEW, generator=seeded(), **strategy)
    ahead = generate_ahead(model, PROMPT, NEW, NGramDraft(text[0]), generator=seeded(), **strategy)
    assert ahead.equal(text)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_the_prompt_may_be_of_any_length(model, length):
    prompt = torch.arange(length).unsqueeze(0) % 11
    text = generate(model, prompt, NEW, generator=seeded())
    ahead = generate_ahead(model, prompt, NEW, NGramDraft(text[0]), generator=seeded())
    assert ahead.equal(text)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_of_any_dtype_writes_ahead(model, dtype):
    text = generate(model.to(dtype), PROMPT, NEW, generator=seeded())
    ahead = generate_ahead(model, PROMPT, NEW, NGramDraft(text[0]), generator=seeded())
    assert ahead.shape == text.shape
    if dtype == torch.float64:  # narrower ones round otherwise where several tokens are read
        assert ahead.equal(text)


def test_a_draft_that_fails_leaves_the_model_in_training(model):
    with pytest.raises(ZeroDivisionError):
        generate_ahead(model, PROMPT, NEW, lambda text, n: 1 / 0)
    assert all(module.training for module in model.modules())


def test_nothing_new_is_the_prompt(model):
    assert generate_ahead(model, PROMPT, 0, NGramDraft(PROMPT[0])).equal(PROMPT)


@pytest.mark.parametrize(
    "args, message",
    [
        ((PROMPT.expand(2, 3), 5), "tokens has 2 prompts; guessing ahead works on one"),
        ((PROMPT[:, :0], 5), "a prompt is empty; the model needs at least one token to continue"),
        ((PROMPT, -1), "max_new_tokens is -1; it must be at least 0"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(model, args, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        generate_ahead(model, *args, NGramDraft(PROMPT[0]))


class TestNGramDraft:
    def test_the_longest_known_context_decides(self):
        # After 1 mostly comes 2, but after 9 8 1 always 3, and after 7 6 9 8 1 always 4.
        text = torch.tensor([1, 2] * 9 + [5, 9, 8, 1, 3] * 4 + [7, 6, 9, 8, 1, 4])
        draft = NGramDraft(text)
        assert draft(torch.tensor([0, 0, 1]), 1).tolist() == [2]
        assert draft(torch.tensor([0, 9, 8, 1]), 1).tolist() == [3]
        assert draft(torch.tensor([7, 6, 9, 8, 1]), 1).tolist() == [4]

    @pytest.mark.parametrize("characters", [1448, 1449, 5000, 55108, 55109, 60_000])
    def test_it_finds_what_followed_whatever_the_size_of_the_vocabulary(self, characters):
        # n tokens and their follower as one number fit into 64 bits only for a smaller n.
        text = torch.randperm(characters)[:3000]
        text[0] = characters - 1
        assert NGramDraft(text)(text[100:110], 6).equal(text[110:116])

    def test_it_goes_on_from_its_own_guesses(self):
        draft = NGramDraft(torch.arange(10))
        assert draft(torch.tensor([2]), 6).tolist() == [3, 4, 5, 6, 7, 8]

    def test_it_stops_where_it_knows_nothing(self):
        draft = NGramDraft(torch.arange(10))
        assert draft(torch.tensor([7]), 6).tolist() == [8, 9]
        assert draft(torch.tensor([42]), 6).tolist() == []
