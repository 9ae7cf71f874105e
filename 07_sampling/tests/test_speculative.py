"""Guessing ahead changes how many passes a text takes, and never the text."""

import pytest
import torch

from tiny_transformer.sampling.reference import generate
from tiny_transformer.sampling.speculative import GUESSES, TRUST, NGramDraft, generate_ahead
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

    def draft(so_far, n, choose):
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
    draft = NGramDraft(text[0], 11)
    ahead = generate_ahead(model, PROMPT, NEW, draft, generator=seeded(), **strategy)
    assert ahead.equal(text)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_the_prompt_may_be_of_any_length(model, length):
    prompt = torch.arange(length).unsqueeze(0) % 11
    text = generate(model, prompt, NEW, generator=seeded())
    ahead = generate_ahead(model, prompt, NEW, NGramDraft(text[0], 11), generator=seeded())
    assert ahead.equal(text)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_of_any_dtype_writes_ahead(model, dtype):
    text = generate(model.to(dtype), PROMPT, NEW, generator=seeded())
    ahead = generate_ahead(model, PROMPT, NEW, NGramDraft(text[0], 11), generator=seeded())
    assert ahead.shape == text.shape
    if dtype == torch.float64:  # narrower ones round otherwise where several tokens are read
        assert ahead.equal(text)


def test_a_draft_that_fails_leaves_the_model_in_training(model):
    with pytest.raises(ZeroDivisionError):
        generate_ahead(model, PROMPT, NEW, lambda text, n, choose: 1 / 0)
    assert all(module.training for module in model.modules())


def test_nothing_new_is_the_prompt(model):
    assert generate_ahead(model, PROMPT, 0, NGramDraft(PROMPT[0], 11)).equal(PROMPT)


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
        generate_ahead(model, *args, NGramDraft(PROMPT[0], 11))


def test_without_a_generator_chance_is_that_of_the_global_seed(model):
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(generate_ahead(model, PROMPT, NEW, NGramDraft(PROMPT[0], 11)))
    assert texts[0].equal(texts[1]) and not texts[0].equal(texts[2])


@pytest.mark.parametrize("strategy", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}])
def test_a_draft_with_the_model_s_own_chances_is_always_right(model, strategy):
    asked = []

    def draft(text, n, choose):
        asked.append(n)
        for _ in range(n):
            text = torch.cat((text, choose(model(text.unsqueeze(0))[0, -1])))
        return text[len(text) - n :]

    ahead = generate_ahead(model, PROMPT, 12, draft, generator=seeded(), **strategy)
    assert ahead.equal(generate(model, PROMPT, 12, generator=seeded(), **strategy))
    assert asked == [4, 4, 1]  # and one is drawn after the guesses of each pass


def likeliest(logits):
    return logits.argmax(dim=-1, keepdim=True)


class TestNGramDraft:
    def test_the_longest_known_context_decides(self):
        # After 1 mostly comes 2, but after 9 8 1 always 3, and after 6 9 8 1 always 4.
        text = torch.tensor([1, 2] * 90 + [5, 9, 8, 1, 3] * 40 + [7, 6, 9, 8, 1, 4] * 20)
        draft = NGramDraft(text, 10)
        assert draft(torch.tensor([0, 0, 1]), 1, likeliest).tolist() == [2]
        assert draft(torch.tensor([0, 9, 8, 1]), 1, likeliest).tolist() == [3]
        assert draft(torch.tensor([7, 6, 9, 8, 1]), 1, likeliest).tolist() == [4]

    def test_what_was_seen_seldom_counts_little(self):
        text = torch.tensor([2, 1, 3] + [0, 1, 2] * 100)
        assert NGramDraft(text, 4)(torch.tensor([2, 1]), 1, likeliest).tolist() == [2]

    def test_its_chances_are_those_of_counting(self):
        draft = NGramDraft(torch.tensor([0, 1, 0, 1, 0, 2]), 3)
        any_token = (torch.tensor([3.0, 2.0, 1.0]) + TRUST / 3) / (6 + TRUST)
        after_0 = (torch.tensor([0.0, 2.0, 1.0]) + TRUST * any_token) / (3 + TRUST)
        assert torch.allclose(draft.chances(), any_token)
        assert torch.allclose(draft.chances(0), after_0)
        assert torch.allclose(draft.chances(2), any_token)  # nothing came after it
        for recent in ((), (0,), (2,), (1, 0), (2, 2, 2, 2)):
            assert draft.chances(*recent).sum() == pytest.approx(1)

    @pytest.mark.parametrize("characters", [1448, 1449, 5000, 55108, 55109, 60_000])
    def test_it_finds_what_followed_whatever_the_size_of_the_vocabulary(self, characters):
        # n tokens and their follower as one number fit into 64 bits only for a smaller n.
        text = torch.randperm(characters)[:3000]
        draft = NGramDraft(text, characters)
        assert draft(text[100:110], 6, likeliest).equal(text[110:116])

    def test_it_goes_on_from_its_own_guesses(self):
        draft = NGramDraft(torch.arange(10), 10)
        assert draft(torch.tensor([2]), 6, likeliest).tolist() == [3, 4, 5, 6, 7, 8]

    @pytest.mark.parametrize("text", [[], [3]])
    def test_a_text_of_nothing_or_little_is_enough(self, text):
        draft = NGramDraft(torch.tensor(text, dtype=torch.long), 10)
        assert draft(torch.tensor([7, 3]), 2, likeliest).tolist() == (text or [0]) * 2
