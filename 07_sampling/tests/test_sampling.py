"""Module 07. `impl` is the reference in one run of each test and your exercises in the other."""

import dataclasses
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tiny_transformer.sampling.reference import (
    KVCache,
    apply_temperature,
    generate,
    greedy,
    sample,
    top_k_filter,
    top_p_filter,
)
from tiny_transformer.setup.grading.doors import heeds, unused
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.habits import (
    HABITS,
    keeps_the_graph,
    leaves_its_inputs_alone,
    refuses,
    takes_any_memory_layout,
)
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig

SMALL = ModelConfig(vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=2, d_ff=32)
CHANCES = torch.tensor([0.15, 0.5, 0.1, 0.25])  # not in order, so that the filters must look
GREEDY = {"temperature": 0}
WITHOUT_GRADIENT = [habit for habit in HABITS if habit is not keeps_the_graph]
STRATEGIES = [GREEDY, {}, {"temperature": 2.0, "top_k": 2}, {"top_p": 0.6}]

every_position = pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=str)


def small_model(**changes):
    """A model with opinions: fresh weights would give all tokens nearly the same score."""
    model = build(dataclasses.replace(SMALL, **changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.add_(torch.randn_like(p) / 2)
    return model


def rounded(numbers):
    return [round(float(x), 3) for x in numbers]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.exercise("greedy")
class TestGreedy:
    @pytest.mark.parametrize("lead", [(), (3,), (2, 3), (1,), (2, 1)], ids=str)
    def test_takes_the_highest_score_of_each_row(self, impl, lead):
        logits = torch.randn(*lead, 11)
        choice = impl.greedy(logits)
        assert isinstance(choice, torch.Tensor), (
            f"greedy returned a {type(choice).__name__}; it should be a tensor of token ids."
        )
        assert not choice.is_floating_point(), (
            f"greedy returned numbers of {choice.dtype}; token ids are whole numbers, int64: where "
            "the highest score stands, and not the score."
        )
        assert choice.shape == lead, (
            f"Of logits {(*lead, 11)} the shape of the choice is {tuple(choice.shape)}; with a "
            f"token for each row, along the last axis, it is {lead}."
        )
        assert logits.gather(-1, choice.unsqueeze(-1)).squeeze(-1).equal(logits.amax(-1)), (
            "A token is chosen whose score is not the highest of its row."
        )

    @pytest.mark.parametrize("habit", WITHOUT_GRADIENT)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.greedy, torch.randn(3, 7))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "greedy")


@pytest.mark.exercise("apply_temperature")
class TestApplyTemperature:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_raises_the_chances_to_the_power_of_its_inverse(self, impl, temperature):
        powers = CHANCES ** (1 / temperature)
        expected = powers / powers.sum()
        scores = impl.apply_temperature(CHANCES.log(), temperature)
        assert not torch.isclose(scores.sum(), torch.ones(())), (
            f"Of 4 logits come {rounded(scores)}, which add up to 1: probabilities, where logits "
            "are expected, of which a later softmax makes probabilities."
        )
        actual = scores.softmax(-1)
        assert torch.allclose(actual, expected, rtol=1e-4), (
            f"With temperature={temperature} tokens of probability {rounded(CHANCES)} come to have "
            f"{rounded(actual)}. Each to the power of 1 / {temperature}, over their sum, is "
            f"{rounded(expected)}."
        )

    @pytest.mark.parametrize("lead", [(3,), (2, 3)], ids=str)
    def test_takes_logits_of_any_shape(self, impl, lead):
        logits = torch.randn(*lead, 11)
        rows = logits.clone().view(-1, 11)
        actual = impl.apply_temperature(logits, 0.5)
        assert actual.shape == logits.shape, (
            f"Logits {tuple(logits.shape)} come back as {tuple(actual.shape)}."
        )
        alone = torch.stack([impl.apply_temperature(row, 0.5) for row in rows])
        assert torch.allclose(actual.softmax(-1).view(-1, 11), alone.softmax(-1), rtol=1e-4), (
            f"A row of logits {tuple(logits.shape)} comes to have other probabilities than the "
            "same row alone."
        )

    @pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
    def test_a_temperature_not_above_0_is_an_error(self, impl, temperature):
        refuses(impl.apply_temperature, CHANCES.log(), temperature)

    @pytest.mark.parametrize("habit", WITHOUT_GRADIENT)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.apply_temperature, torch.randn(3, 7), 0.5)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "apply_temperature")


@pytest.mark.exercise("top_k_filter")
class TestTopKFilter:
    @pytest.mark.parametrize("k", [1, 3, 11])
    @pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
    def test_keeps_the_k_highest_scores_as_they_are(self, impl, k, lead):
        logits = torch.randn(*lead, 11)
        best, where = logits.topk(k)
        expected = torch.full_like(logits, -math.inf).scatter(-1, where, best)
        kept = impl.top_k_filter(logits.clone(), k)
        assert kept.shape == logits.shape, (
            f"Logits {tuple(logits.shape)} come back as {tuple(kept.shape)}."
        )
        for row, yours, ours in zip(
            *(x.view(-1, 11) for x in (logits, kept, expected)), strict=True
        ):
            order = row.argsort(descending=True)
            stay = (yours[order].isfinite().nonzero().flatten() + 1).tolist()
            assert stay == list(range(1, k + 1)), (
                f"With k={k}, of the scores of a row, highest first, number {stay} stay: are not "
                f"-inf. The {k} highest should, the k-th too, each row by itself."
            )
            assert yours.equal(ours), (
                f"With k={k} the right scores stay, and not as they were: the highest of a row was "
                f"{row[order[0]]:.4f} and is {yours[order[0]]:.4f} now."
            )

    def test_scores_that_tie_with_the_last_one_stay(self, impl):
        logits = torch.tensor([[1.0, 3.0, 1.0, 0.0, 1.0]])
        kept = impl.top_k_filter(logits, 2).isfinite()
        assert kept.tolist() == [[True, True, True, False, True]], (
            f"Of scores 1 3 1 0 1 with k=2 you keep {logits[kept].tolist()}; the second highest is "
            "1, and all that tie with it stay."
        )

    @pytest.mark.parametrize("k", [12, 50])
    def test_a_k_beyond_the_vocabulary_keeps_everything(self, impl, k):
        logits = torch.randn(2, 11)
        assert impl.top_k_filter(logits, k).equal(logits), (
            f"Of 11 scores k={k} keeps all as they are; yours are changed."
        )

    @pytest.mark.parametrize("k", [2, 11, 12])
    def test_makes_a_new_tensor(self, impl, k):
        logits = torch.randn(2, 11)
        before = logits.clone()
        kept = impl.top_k_filter(logits, k)
        assert logits.equal(before), (
            "The logits that were given are changed in place; the result is a new tensor."
        )
        assert kept.data_ptr() != logits.data_ptr(), (
            f"With k={k} the logits that were given come back; the result is a new tensor."
        )

    @pytest.mark.parametrize("k", [0, -3])
    def test_a_k_that_keeps_nothing_is_an_error(self, impl, k):
        refuses(impl.top_k_filter, CHANCES.log(), k)

    @pytest.mark.parametrize("habit", WITHOUT_GRADIENT)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.top_k_filter, torch.randn(3, 7), 4)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "top_k_filter")


def slow_top_p(logits, p):
    """Row by row and token by token, likeliest first, until their chances add up to p."""
    kept = torch.full_like(logits, -math.inf)
    rows = zip(logits.view(-1, logits.size(-1)), kept.view(-1, logits.size(-1)), strict=True)
    for row, out in rows:
        chances, total = row.softmax(-1), 0.0
        for token in row.argsort(descending=True).tolist():
            out[token] = row[token]
            total += chances[token].item()
            if total >= p:
                break
    return kept


@pytest.mark.exercise("top_p_filter")
class TestTopPFilter:
    def test_goes_by_probabilities(self, impl):
        logits = 2 * torch.randn(11)
        kept, shifted = (impl.top_p_filter(logits + c, 0.6).isfinite() for c in (0, 5))
        assert kept.equal(shifted), (
            "Other tokens stay when 5 is added to all logits, which changes no probability: it is "
            "the softmax that counts."
        )

    def test_filters_each_row_by_itself(self, impl):
        logits = 2 * torch.randn(5, 11)
        alone = torch.stack([impl.top_p_filter(row, 0.6) for row in logits.clone()])
        together = impl.top_p_filter(logits, 0.6)
        assert together.equal(alone), (
            "A row of a batch is filtered otherwise than the same row alone: rows meet, along a "
            "`dim` that is not the last."
        )

    def test_what_goes_is_minus_infinity(self, impl):
        kept = impl.top_p_filter(CHANCES.log(), 0.3)
        assert kept.eq(-math.inf).any(), (
            f"Of tokens with probabilities {rounded(CHANCES)} none has -inf for p=0.3. One of them "
            "reaches p alone; the others get -inf, of which the softmax makes 0."
        )

    @pytest.mark.parametrize("p", [0.3, 0.6, 0.8])
    def test_none_stays_that_is_less_likely_than_one_that_goes(self, impl, p):
        kept = impl.top_p_filter(CHANCES.log(), p).isfinite()
        assert kept.all() or not kept.any() or CHANCES[kept].min() >= CHANCES[~kept].max(), (
            f"For p={p} tokens of probability {rounded(CHANCES[kept])} stay and those of "
            f"{rounded(CHANCES[~kept])} go. The likeliest should stay; what is known of the "
            "tokens in sorted order must go back to their ids."
        )

    @pytest.mark.parametrize("p", [0.3, 0.6, 0.95])
    def test_what_is_kept_reaches_p(self, impl, p):
        kept = impl.top_p_filter(CHANCES.log(), p).isfinite()
        total, best = CHANCES[kept].sum(), CHANCES.sort(descending=True).values[: kept.sum()].sum()
        assert total >= p or not torch.isclose(total, best), (
            f"Of tokens with probabilities {rounded(CHANCES)} those you keep for p={p} have "
            f"{total:.2f} together: less than p. The one that crosses p stays."
        )

    def test_of_equal_tokens_it_keeps_no_more_than_it_needs(self, impl):
        kept = impl.top_p_filter(torch.zeros(1, 4), 0.5).isfinite().sum().item()
        assert kept == 2, (
            f"Of four tokens with probability 0.25 each {kept} have a score that is not -inf for "
            "p=0.5; two have exactly 0.5 together, which is p or more, and the fewest that do stay."
        )

    @pytest.mark.parametrize("p", [0.05, 0.3, 0.6, 0.9, 0.99])
    @pytest.mark.parametrize("lead", [(), (5,), (2, 3)], ids=str)
    def test_keeps_the_fewest_likeliest_tokens_that_reach_p(self, impl, p, lead):
        logits = 2 * torch.randn(*lead, 11)
        expected, kept = slow_top_p(logits, p), impl.top_p_filter(logits.clone(), p)
        assert kept.shape == expected.shape, (
            f"Logits {tuple(logits.shape)} come back as {tuple(kept.shape)}."
        )
        for row, yours, ours in zip(
            *(x.view(-1, 11) for x in (logits, kept, expected)), strict=True
        ):
            order = row.argsort(descending=True)
            right, stay = ours.isfinite().sum().item(), yours[order].isfinite().nonzero().flatten()
            assert stay.tolist() == list(range(right)), (
                f"Of a row's tokens, likeliest first, you keep number {(stay + 1).tolist()} for "
                f"p={p}: what is not -inf. The first {right} have p together, and no fewer."
            )
            best = order[0]
            assert yours.equal(ours), (
                f"For p={p} the right tokens stay, and not with the scores that they had: that of "
                f"the likeliest was {row[best]:.4f} and is {yours[best]:.4f} now."
            )

    @pytest.mark.parametrize("p", [1e-9, 0.2])
    def test_always_keeps_the_likeliest_token(self, impl, p):
        logits = torch.randn(4, 11)
        kept = impl.top_p_filter(logits, p).isfinite()
        assert kept.gather(-1, logits.argmax(-1, keepdim=True)).all(), (
            f"With p={p} a row loses its likeliest token, which stays however small p is."
        )

    def test_a_p_of_1_keeps_even_what_the_sum_does_not_notice(self, impl):
        logits = torch.tensor([[20.0, 0.0, -20.0, -60.0]])
        kept = impl.top_p_filter(logits, 1.0)
        assert kept.equal(logits), (
            f"With p=1 of scores {logits[0].tolist()} you keep {kept[kept.isfinite()].tolist()}. A "
            "p of 1 keeps everything, also what is so unlikely that rounding loses it in the sum."
        )

    @pytest.mark.parametrize("p", [0.3, 1.0])
    def test_makes_a_new_tensor(self, impl, p):
        logits = torch.randn(2, 11)
        before = logits.clone()
        kept = impl.top_p_filter(logits, p)
        assert logits.equal(before), (
            "The logits that were given are changed in place; the result is a new tensor."
        )
        assert kept.data_ptr() != logits.data_ptr(), (
            f"With p={p} the logits that were given come back; the result is a new tensor."
        )

    @pytest.mark.parametrize("p", [0, -0.1, 1.1])
    def test_a_p_outside_0_to_1_is_an_error(self, impl, p):
        refuses(impl.top_p_filter, CHANCES.log(), p)

    @pytest.mark.parametrize("habit", WITHOUT_GRADIENT)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.top_p_filter, torch.randn(3, 7), 0.8)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "top_p_filter")


@pytest.mark.exercise("sample")
class TestSample:
    @pytest.mark.parametrize(
        "strategy, expected",
        [
            pytest.param({}, [0.15, 0.5, 0.1, 0.25], id="plain"),
            pytest.param({"temperature": 0.5}, [0.0652, 0.7246, 0.0290, 0.1812], id="temperature"),
            pytest.param({"top_k": 2}, [0, 2 / 3, 0, 1 / 3], id="top-k"),
            pytest.param({"top_p": 0.8}, [1 / 6, 5 / 9, 0, 5 / 18], id="top-p"),
            # Roots are 0.20, 0.37, 0.16, 0.26: now it takes three tokens to reach 0.7.
            pytest.param(
                {"temperature": 2, "top_p": 0.7},
                [0.2432, 0.4433, 0, 0.3135],
                id="temperature-first",
            ),
            # Of the three that top-k leaves, the first has 0.56: two make 0.8.
            pytest.param({"top_k": 3, "top_p": 0.8}, [0, 2 / 3, 0, 1 / 3], id="top-k-before-top-p"),
        ],
    )
    def test_draws_as_often_as_the_chances_say(self, impl, strategy, expected):
        logits = CHANCES.log().expand(20_000, 4)
        draws = impl.sample(logits, **strategy, generator=seeded())
        assert draws.shape == (20_000,), (
            f"Of logits (B, 4) with B = 20000 the tokens are {tuple(draws.shape)}; they should be "
            "(B,), (20000,)."
        )
        often = draws.bincount(minlength=4) / 20_000
        assert torch.allclose(often, torch.tensor(expected), rtol=0, atol=0.015), (  # 4 sigma
            f"With {strategy or 'no filter'} four tokens of probability {rounded(CHANCES)} come up "
            f"with {rounded(often)}, not {rounded(expected)}."
            f"{' The order is temperature, top_k, top_p.' if len(strategy) > 1 else ''}"
        )

    @pytest.mark.parametrize("temperature", [1.0, 0])
    def test_a_batch_of_one_row_gives_one_token(self, impl, temperature):
        draws = impl.sample(torch.randn(1, 11), temperature=temperature)
        assert draws.shape == (1,), (
            f"Of logits (1, 11) with temperature={temperature} the tokens are "
            f"{tuple(draws.shape)}; a batch of one row has one, (1,)."
        )

    def test_a_temperature_of_0_is_greedy(self, impl):
        logits = torch.randn(20, 11)
        try:
            draws = impl.sample(logits, temperature=0)
        except ValueError as error:
            pytest.fail(
                f"A temperature of 0 is `greedy`; yours is refused with: {error}", pytrace=False
            )
        assert draws.equal(logits.argmax(-1)), (
            "With a temperature of 0 other tokens come than `greedy` chooses."
        )

    def test_a_temperature_of_0_decides_even_where_the_scores_nearly_tie(self, impl):
        logits = torch.tensor([0.0, 1e-7]).repeat(50, 1)
        assert impl.sample(logits, temperature=0).all(), (
            "With a temperature of 0 a token comes that has not the highest score: it is not "
            "`greedy`, but a draw."
        )

    def test_each_row_draws_from_its_own_scores(self, impl):
        logits = torch.eye(11) * 1000
        draws = impl.sample(logits).tolist()
        assert draws == list(range(11)), (
            "Of 11 rows row i has the score 1000 at token i and 0 at the others, so i is certain; "
            f"here come {draws}."
        )

    @pytest.mark.parametrize("strategy", [{"top_k": 0}, {"top_p": 0}, {"top_p": 0.0}], ids=str)
    def test_none_leaves_a_filter_out_and_0_does_not(self, impl, strategy):
        refuses(impl.sample, torch.zeros(2, 11), **strategy)

    def test_the_generator_alone_decides(self, impl):
        logits = torch.zeros(100, 11)
        draws = [impl.sample(logits, generator=seeded(seed)) for seed in (1, 1, 2)]
        assert draws[0].equal(draws[1]), (
            "Two generators of the same seed draw different tokens: `generator` is not what "
            "decides."
        )
        assert not draws[0].equal(draws[2]), (
            "Generators of different seeds draw the same tokens: `generator` decides nothing."
        )

    def test_without_a_generator_it_draws_from_pytorch_s_own(self, impl):
        logits = torch.zeros(100, 11)
        assert not impl.sample(logits).equal(impl.sample(logits)), (
            "Without a generator two draws are the same: something seeds what they are drawn from."
        )

    def test_a_generator_leaves_pytorch_s_own_as_it_was(self, impl):
        before = torch.get_rng_state()
        impl.sample(torch.zeros(100, 11), generator=seeded())
        assert torch.get_rng_state().equal(before), (
            "PyTorch's random state is another after a draw that was given a generator."
        )

    @pytest.mark.parametrize("habit", [leaves_its_inputs_alone, takes_any_memory_layout])
    def test_it_has_good_habits(self, impl, habit):
        def draw(logits):
            return impl.sample(logits, 0.7, 5, 0.9, torch.Generator().manual_seed(0))

        habit(draw, torch.randn(3, 7))

    def test_a_temperature_below_0_is_an_error(self, impl):
        refuses(impl.sample, torch.zeros(2, 11), temperature=-1.0)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "sample")


def slow_generate(impl, model, tokens, max_new_tokens, **strategy):
    """Read everything again for each new token, as long as it fits the context."""
    for _ in range(max_new_tokens):
        choice = impl.sample(model(tokens)[:, -1], **strategy)
        tokens = torch.cat((tokens, choice[:, None]), dim=1)
    return tokens


def came_back(tokens, prompt, new):
    B, T = prompt.shape
    return (
        f"After prompts {(B, T)} and max_new_tokens={new} the text is {tuple(tokens.shape)}; all "
        f"of it, prompt and continuation, is (B, T + max_new_tokens), {(B, T + new)}."
    )


def told_by_cache(ends):
    """Where a text with the cache, and one without, part."""
    if ends[0].shape != ends[1].shape:
        return f"With use_cache the text is {tuple(ends[0].shape)}, without {tuple(ends[1].shape)}."
    first = (ends[0] != ends[1]).any(0).nonzero()[0].item()
    return (
        f"With use_cache another token comes at position {first} than without; the context is "
        f"{SMALL.max_len}."
    )


@pytest.mark.exercise("generate")
class TestGenerate:
    def test_the_generator_alone_decides(self, impl):
        model, prompt = small_model(), torch.randint(11, (3, 2))
        before = torch.get_rng_state()
        ends = [
            impl.generate(model, prompt, 6, generator=seeded(seed), use_cache=False)
            for seed in (1, 1, 2)
        ]
        assert ends[0].equal(ends[1]), (
            "With two generators of the same seed two texts come: what is drawn is not drawn from "
            "`generator`."
        )
        assert not ends[0].equal(ends[2]), (
            "With generators of different seeds the same text comes: `generator` decides nothing."
        )
        assert torch.get_rng_state().equal(before), (
            "PyTorch's random state is another after a text that was given a generator."
        )

    @every_strategy
    @torch.no_grad()
    def test_within_the_context_samples_from_all_the_text_so_far(self, impl, strategy):
        model, prompt = small_model(), torch.randint(11, (3, 2))
        actual = impl.generate(model, prompt, 6, **strategy, generator=seeded(), use_cache=False)
        expected = slow_generate(impl, model, prompt, 6, **strategy, generator=seeded())
        assert actual.shape == expected.shape, came_back(actual, prompt, 6)
        for name in strategy:
            others = {key: value for key, value in strategy.items() if key != name}
            without = slow_generate(impl, model, prompt, 6, **others, generator=seeded())
            assert actual.equal(expected) or not actual.equal(without), (
                f"With {strategy} the text is the one that comes without {name}: the `sample` of "
                f"each new token is not given its {name}."
            )
        for k in range(2, 8):
            yours, ours = actual[:, k].tolist(), expected[:, k].tolist()
            assert yours == ours, (
                f"With {strategy or 'no strategy'} the prompts of 2 tokens go on with {yours} as "
                f"new token number {k - 1}, one a row. A `sample` of the scores at the last "
                f"position, after all the text so far, gives {ours}."
            )

    @pytest.mark.parametrize("T, new", [(1, 7), (3, 30), (8, 1), (20, 5), (5, 0), (20, 0)])
    def test_keeps_the_prompt_and_adds_as_many_tokens_as_asked_for(self, impl, T, new):
        prompt = torch.randint(11, (2, T))
        tokens = impl.generate(small_model(), prompt, new, use_cache=False)
        assert tokens.shape == (2, T + new), came_back(tokens, prompt, new)
        assert tokens[:, :T].equal(prompt), "The text does not begin with its prompt."

    @pytest.mark.parametrize("token", [0, 1, 10])
    def test_no_token_ends_the_text(self, impl, token):
        model, prompt = small_model(), torch.tensor([[2, 3]])
        model.head.register_forward_hook(
            lambda _, x, y: F.one_hot(0 * y.argmax(-1) + token, 11) * 9.0
        )
        tokens = impl.generate(model, prompt, 5, **GREEDY, use_cache=False)
        assert tokens[0, 2:].tolist() == [token] * 5, (
            f"A model that gives token {token} the highest score each time goes on with "
            f"{tokens[0, 2:].tolist()} where 5 tokens are asked for. No token is special."
        )

    def test_leaves_its_prompt_alone(self, impl):
        prompt = torch.randint(11, (2, 3))
        before = prompt.clone()
        impl.generate(small_model(), prompt, 4, use_cache=False)
        assert prompt.equal(before), "The prompt that was given is changed in place."

    @pytest.mark.parametrize("new", [4, 20])
    def test_a_row_fares_in_a_batch_as_it_does_alone(self, impl, new):
        model, prompts = small_model(), torch.randint(11, (3, 4))
        together = impl.generate(model, prompts, new, **GREEDY, use_cache=False)
        alone = [impl.generate(model, row[None], new, **GREEDY, use_cache=False) for row in prompts]
        assert together.equal(torch.cat(alone)), (
            "A prompt in a batch is continued otherwise than alone."
        )

    def test_what_lies_before_the_context_has_no_say(self, impl):
        model, prompt = small_model(), torch.randint(11, (1, 14))
        other = prompt.clone()
        other[:, :6] = (prompt[:, :6] + 1) % 11
        ends = [impl.generate(model, p, 10, **GREEDY, use_cache=False) for p in (prompt, other)]
        assert ends[0][:, 14:].equal(ends[1][:, 14:]), (
            "Two texts that differ only before the last 8 tokens, the context, go on differently."
        )

    def test_a_long_prompt_is_read_to_its_end(self, impl):
        model, prompt = small_model(), torch.randint(11, (1, 14)).repeat(11, 1)
        prompt[:, -1] = torch.arange(11)
        tokens = impl.generate(model, prompt, 1, **GREEDY, use_cache=False)
        assert len(tokens[:, -1].unique()) > 1, (
            "Prompts longer than the context that differ in their last token all go on alike: the "
            "model does not read the end of the text."
        )

    def test_past_the_context_it_reads_half_of_it_or_more(self, impl):
        model, widths = small_model(), []
        model.register_forward_pre_hook(lambda _, args: widths.append(args[0].size(1)))
        try:
            impl.generate(model, torch.randint(11, (1, 9)), 14, use_cache=False)
        except ValueError:
            if max(widths, default=0) <= 8:  # else it is the model's, which was given too much
                raise
        assert len(widths) == 14 and all(4 <= width <= 8 for width in widths), (
            f"To write 14 tokens after 9 the model, whose context is 8, is given {widths} of them; "
            "each time it should be 8 at most and no less than half of that, 4."
        )

    def test_dropout_rests(self, impl):
        model, prompt = small_model(dropout=0.5), torch.randint(11, (3, 4))
        ends = [
            impl.generate(model.train(mode), prompt, 20, **GREEDY, use_cache=False)
            for mode in (True, False)
        ]
        assert ends[0].equal(ends[1]), (
            "A model with dropout=0.5 writes another text in training than in evaluation: its "
            "dropout does not rest."
        )

    @pytest.mark.parametrize("training", [True, False])
    def test_leaves_the_model_in_the_mode_it_was_in(self, impl, training):
        model = small_model().train(training)
        impl.generate(model, torch.zeros(1, 3, dtype=torch.long), 2, use_cache=False)
        assert all(module.training == training for module in model.modules()), (
            f"A model with training={training} has training={not training} afterwards."
        )

    def test_builds_no_graph(self, impl):
        model, graphs = small_model(), []
        model.register_forward_hook(lambda _, args, logits: graphs.append(logits.requires_grad))
        impl.generate(model, torch.randint(11, (1, 3)), 2, use_cache=False)
        assert graphs == [False, False], (
            "A graph is built while the model writes, for a backward pass that will not come."
        )

    def test_with_a_cache_it_writes_on(self, impl):
        try:
            impl.generate(small_model(), torch.randint(11, (1, 3)), 5, use_cache=True)
        except ValueError as error:
            pytest.fail(
                f"With use_cache the writing stops: {error}. The model is given all tokens of the "
                "window beside the cache, and finds out itself which are new.",
                pytrace=False,
            )

    def test_with_a_cache_it_writes_past_the_context(self, impl):
        model, prompt = small_model(), torch.randint(11, (1, 5))
        impl.generate(model, prompt, 10, use_cache=False)
        try:
            impl.generate(model, prompt, 10, use_cache=True)
        except ValueError as error:
            pytest.fail(
                f"With use_cache the writing stops past the context: {error}. A window that moves "
                "on needs a new cache.",
                pytrace=False,
            )

    @every_position
    @every_strategy
    def test_the_cache_changes_no_token_well_past_the_context(self, impl, positions, strategy):
        model, prompt = small_model(positions=positions), torch.randint(11, (3, 5))
        ends = [
            impl.generate(model, prompt, 25, **strategy, generator=seeded(), use_cache=use_cache)
            for use_cache in (True, False)
        ]
        assert ends[0].equal(ends[1]), told_by_cache(ends)

    def test_the_cache_changes_no_token_of_a_modern_model(self, impl):
        modern = dict(norm="rms", positions="rope", qk_norm=True, activation="relu2")
        model, prompt = small_model(**modern, token_shift=True), torch.randint(11, (2, 5))
        torch.nn.init.normal_(model.shift.share)
        ends = [impl.generate(model, prompt, 25, **GREEDY, use_cache=cached) for cached in (1, 0)]
        assert ends[0].equal(ends[1]), told_by_cache(ends)

    @pytest.mark.parametrize("T", [1, 8, 9, 30])
    def test_the_cache_changes_no_token_after_a_prompt_of_any_length(self, impl, T):
        model, prompt = small_model(), torch.randint(11, (2, T))
        ends = [
            impl.generate(model, prompt, 12, **GREEDY, use_cache=use_cache)
            for use_cache in (True, False)
        ]
        assert ends[0].equal(ends[1]), told_by_cache(ends)

    def test_the_cache_spares_reading_a_token_twice(self, impl):
        model, widths = small_model(), []
        model.embedding.token.register_forward_pre_hook(
            lambda _, args: widths.append(args[0].size(1))
        )
        impl.generate(model, torch.randint(11, (2, 3)), 5, use_cache=True)
        assert widths != [3, 4, 5, 6, 7], (
            "With use_cache every token is still read again at each step: the model reads [3, 4, "
            "5, 6, 7] tokens after a prompt of 3. That is the part to write last: a KVCache beside "
            "the tokens, the same one at each step, makes it [3, 1, 1, 1, 1]."
        )
        assert widths == [3, 1, 1, 1, 1], (
            f"With use_cache the model reads {widths} tokens after a prompt of 3; the cache has "
            "all but the newest, so it should be [3, 1, 1, 1, 1]."
        )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "generate")


@pytest.mark.door
@pytest.mark.exercise("generate")
class TestLengths:
    @pytest.fixture
    def continued(self, impl):
        def continued(model, prompts, new, lengths, **options):
            greedily = partial(impl.generate, model, prompts, new, **GREEDY, use_cache=False)
            if not heeds(greedily, "lengths", torch.ones(len(prompts), dtype=torch.long)):
                pytest.skip(unused("generate", "lengths"))
            return impl.generate(model, prompts, new, **options, lengths=torch.tensor(lengths))

        return continued

    def test_a_longer_prompt_keeps_its_own_tokens(self, continued):
        padded, lengths = torch.randint(11, (3, 12)), [2, 12, 5]
        rows = continued(small_model(), padded, 4, lengths, **GREEDY, use_cache=False)
        for row, prompt, length in zip(rows, padded, lengths, strict=True):
            assert row[:length].equal(prompt[:length]), (
                f"Among prompts of {lengths} tokens the one of {length} is written over: its row "
                "does not begin with its own tokens."
            )

    @every_position
    @pytest.mark.parametrize("use_cache", [True, False])
    def test_each_prompt_fares_as_it_does_alone(self, impl, continued, positions, use_cache):
        model, lengths = small_model(positions=positions), [1, 12, 3, 7]
        padded, options = torch.randint(11, (4, 12)), {**GREEDY, "use_cache": use_cache}
        rows = continued(model, padded, 20, lengths, **options)
        for row, prompt, length in zip(rows, padded, lengths, strict=True):
            alone = impl.generate(model, prompt[None, :length], 20, **options)
            assert row[: length + 20].equal(alone[0]), (
                f"Among prompts of {lengths} tokens the one of {length} is continued otherwise "
                "than alone."
            )

    @every_strategy
    def test_lengths_that_are_all_alike_change_nothing(self, impl, continued, strategy):
        model, prompts = small_model(), torch.randint(11, (3, 4))
        options = {**strategy, "use_cache": False}
        text = continued(model, prompts, 9, [4, 4, 4], **options, generator=seeded())
        assert text.equal(impl.generate(model, prompts, 9, **options, generator=seeded())), (
            "With lengths of 4 for all prompts (B, 4) the text is another than without lengths."
        )

    def test_the_result_has_room_for_the_longest(self, continued):
        padded = torch.randint(11, (2, 6))
        text = continued(small_model(), padded, 5, [2, 6], use_cache=False)
        assert text.shape == (2, 11), came_back(text, padded, 5)

    def test_the_padded_prompts_stay_as_they_were(self, continued):
        padded = torch.randint(11, (2, 6))
        before = padded.clone()
        continued(small_model(), padded, 5, [2, 6], use_cache=False)
        assert padded.equal(before), "The prompts that were given are changed in place."


@pytest.mark.exercise("KVCache")
class TestKVCache:
    def test_starts_out_empty(self, impl):
        length = getattr(impl.KVCache(SMALL, 3), "length", "missing")
        assert length == 0, f"`length` of a new cache is {length}; it should be 0."

    def test_append_leaves_the_length_to_the_model(self, impl):
        cache, k = impl.KVCache(SMALL, 3), torch.randn(3, 2, 4, 8)
        for layer in range(SMALL.n_layers):
            cache.append(layer, k, k)
            assert cache.length == 0, (
                f"append of layer {layer} has set `length` to {cache.length}. Here it stays as it "
                "is: all blocks append the same tokens at the same place; the model moves it on."
            )

    def test_gives_back_all_keys_and_values_of_a_layer_so_far(self, impl):
        cache = impl.KVCache(SMALL, 3)
        k, v = torch.randn(2, 2, 3, 2, 6, 8)  # (2, n_layers, B, n_heads, T, d_head)
        for start, end in ((0, 3), (3, 4), (4, 6)):
            for layer in range(2):
                got = cache.append(layer, k[layer, :, :, start:end], v[layer, :, :, start:end])
                for name, kept, all_of_them in zip(("keys", "values"), got, (k, v), strict=True):
                    expected = all_of_them[layer, :, :, :end]
                    assert kept.shape == expected.shape, (
                        f"With `length` {start} and {end - start} new tokens the {name} of layer "
                        f"{layer} come back as {tuple(kept.shape)}; all so far are (B, n_heads, "
                        f"S, d_head), {tuple(expected.shape)}."
                    )
                    others = (v if all_of_them is k else k)[layer, :, :, :end]
                    told = " Keys and values have changed places." if kept.equal(others) else ""
                    assert kept.equal(expected), (
                        f"With `length` {start} and {end - start} new tokens the {name} of layer "
                        f"{layer} are not those that were appended to this layer, in their order."
                        f"{told}"
                    )
            cache.length = end  # which the model does once all layers have appended

    def test_a_length_that_is_set_back_makes_it_forget_what_follows(self, impl):
        cache, (k, v) = impl.KVCache(SMALL, 1), torch.randn(2, 1, 2, 6, 8)
        cache.append(0, k[:, :, :5], v[:, :, :5])
        cache.length = 3
        keys, values = cache.append(0, k[:, :, 5:], v[:, :, 5:])
        kept = [0, 1, 2, 5]
        assert keys.size(2) == 4, (
            "Of 5 tokens with `length` set back to 3 and one new one there are "
            f"{keys.size(2)}; the new one stands behind the first 3: 4."
        )
        assert keys.equal(k[:, :, kept]) and values.equal(v[:, :, kept]), (
            "After `length` was set back to 3 the new token does not stand behind the first 3."
        )

    def test_it_lies_on_the_device_it_was_made_for(self, impl):
        impl.KVCache(SMALL, 1).append(0, *torch.zeros(2, 1, 2, 3, 8))  # what goes wrong anywhere
        cache = impl.KVCache(SMALL, 1, device="meta")  # which any machine has
        k = torch.zeros(1, 2, 3, 8, device="meta")
        try:
            devices = {kept.device.type for kept in cache.append(0, k, k)}
        except (RuntimeError, ValueError) as error:
            pytest.fail(
                'A cache with device="meta" does not take keys from that device: its own tensors '
                f"lie elsewhere. PyTorch says: {error}",
                pytrace=False,
            )
        assert devices == {"meta"}, f'A cache with device="meta" gives back tensors on {devices}.'

    @every_position
    @pytest.mark.parametrize("ends", [(8,), (3, 4, 5, 6, 7, 8), (2, 5, 8)], ids=str)
    @torch.no_grad()
    def test_a_model_that_remembers_gives_the_same_logits(self, impl, positions, ends):
        model, tokens = small_model(positions=positions), torch.randint(11, (3, 8))
        cache = impl.KVCache(model.config, 3)
        logits = torch.cat([model(tokens[:, :end], cache) for end in ends], dim=1)
        off = (logits - model(tokens)).abs().amax((0, 2)).gt(1e-4).nonzero().flatten().tolist()
        assert not off, (
            f"A model that reads up to {list(ends)} of 8 tokens, with the cache beside it, gives "
            f"other logits at positions {off} than one that reads all 8 at once."
        )

    @torch.no_grad()
    def test_two_texts_that_take_turns_have_a_cache_each(self, impl):
        model, texts = small_model(), torch.randint(11, (2, 1, 8))
        caches, logits = [impl.KVCache(model.config, 1) for _ in texts], ([], [])
        for end in (3, 4, 8):
            for which, text in enumerate(texts):
                logits[which].append(model(text[:, :end], caches[which]))
        for parts, text in zip(logits, texts, strict=True):
            assert torch.allclose(torch.cat(parts, 1), model(text), rtol=1e-4, atol=1e-4), (
                "Of two texts that take turns, each with a cache of its own, one gets other logits "
                "than alone: the caches share something."
            )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "KVCache")


class TestTheReference:
    @every_strategy
    def test_two_short_texts_make_the_long_one(self, strategy):
        # The window goes by the position alone, wherever the prompt ended.
        model, prompt = small_model(), torch.randint(11, (2, 3))
        generator = seeded()
        once = generate(model, prompt, 25, **strategy, generator=seeded())
        half = generate(model, prompt, 13, **strategy, generator=generator)
        assert generate(model, half, 12, **strategy, generator=generator).equal(once)

    def test_never_reads_less_than_half_a_context_nor_more_than_one(self):
        model, prompt = small_model(), torch.randint(11, (1, 6))
        widths = []
        model.register_forward_pre_hook(lambda _, args: widths.append(args[0].size(1)))
        for use_cache in (True, False):
            generate(model, prompt, 14, use_cache=use_cache)
        assert widths[:14] == widths[14:] == [6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7]

    @every_position
    def test_the_cache_changes_no_token_of_a_model_with_a_token_shift(self, positions):
        model = small_model(token_shift=True, positions=positions)
        torch.nn.init.normal_(model.shift.share)
        prompt = torch.randint(11, (2, 5))
        ends = [generate(model, prompt, 25, **GREEDY, use_cache=cached) for cached in (True, False)]
        assert ends[0].equal(ends[1])

    @pytest.mark.parametrize("max_len", [1, 2, 3])
    def test_the_shortest_contexts_slide_too(self, max_len):
        model, prompt = small_model(max_len=max_len), torch.randint(11, (2, 5))
        ends = [generate(model, prompt, 9, **GREEDY, use_cache=cached) for cached in (True, False)]
        assert ends[0].equal(ends[1])

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_a_model_of_any_dtype_writes_with_and_without_the_cache(self, dtype, positions):
        model = small_model(positions=positions, token_shift=True).to(dtype)
        prompt, strategy = torch.randint(11, (2, 5)), {"top_k": 5, "top_p": 0.9}
        ends = [
            generate(model, prompt, 25, **strategy, generator=seeded(), use_cache=cached)
            for cached in (True, False)
        ]
        assert ends[0].shape == ends[1].shape == (2, 30)
        if dtype == torch.float64:  # narrower ones round otherwise where several rows are read
            assert ends[0].equal(ends[1])

    def test_the_cache_takes_the_dtype_of_its_keys(self):
        cache, k = KVCache(SMALL, 3), torch.randn(3, 2, 1, 8, dtype=torch.bfloat16)
        keys, values = cache.append(0, k, -k)
        assert (keys.dtype, cache.keys.dtype) == (torch.bfloat16, torch.bfloat16)
        assert keys.equal(k) and values.equal(-k)

    @pytest.mark.parametrize("shape", [(1, 2, 1, 8), (3, 1, 1, 8), (3, 2, 1, 1), (3, 2, 9, 8)])
    def test_keys_that_the_cache_has_no_room_for_are_an_error(self, shape):
        with pytest.raises(ValueError, match=r"^k is \(.*\); the cache has room for \(3, 2, "):
            KVCache(SMALL, 3).append(0, torch.zeros(shape), torch.zeros(shape))

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_a_model_that_fails_while_it_writes_goes_back_to_training(self, error):
        model = small_model().train()

        def fail(*_):
            raise error

        model.head.register_forward_hook(fail)
        with pytest.raises(error):
            generate(model, torch.zeros(1, 3, dtype=torch.long), 2)
        assert all(module.training for module in model.modules())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
    @pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-30, 1e-3])
    def test_the_coldest_temperature_is_greedy(self, temperature, dtype):
        logits = (30 * torch.randn(20, 11)).to(dtype)
        chances = apply_temperature(logits, temperature).softmax(-1)
        torch.testing.assert_close(chances, F.one_hot(greedy(logits), 11).to(dtype))
        for strategy in ({}, {"top_k": 3}, {"top_p": 0.5}):
            assert sample(logits, temperature, **strategy).equal(greedy(logits))

    def test_an_ordinary_temperature_divides_and_no_more(self):
        logits = torch.randn(20, 11)
        assert apply_temperature(logits, 0.7).equal(logits / 0.7)

    def test_sampling_with_a_generator_leaves_the_global_random_state_alone(self):
        before = torch.get_rng_state()
        sample(torch.zeros(2, 11), generator=seeded())
        assert torch.get_rng_state().equal(before)

    def test_the_cache_has_room_for_the_context(self):
        assert KVCache(SMALL, 3).keys.shape == (2, 3, 2, 8, 8)

    def test_a_text_that_outgrows_the_cache_is_an_error(self):
        model, cache = small_model(), KVCache(SMALL, 1)
        model(torch.zeros(1, 8, dtype=torch.long), cache)
        with pytest.raises(ValueError, match="position 9; the context, max_len, is 8"):
            model(torch.zeros(1, 9, dtype=torch.long), cache)

    @pytest.mark.parametrize("p", [1e-8, 1e-46, 1e-300, 5e-324])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_the_likeliest_stays_however_small_p_is(self, p, dtype):
        logits = torch.tensor([[0.0, 2.0, 1.0]], dtype=dtype)
        assert top_p_filter(logits, p).isfinite().tolist() == [[False, True, False]]


class TestErrors:
    @pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, True])
    def test_a_temperature_not_above_0_is_named(self, temperature):
        with pytest.raises(ValueError, match=f"^temperature is {temperature};"):
            apply_temperature(torch.zeros(11), temperature)

    @pytest.mark.parametrize("k", [0, -3, 2.5, True])
    def test_a_k_below_1_is_named(self, k):
        with pytest.raises(ValueError, match=f"^k is {k};"):
            top_k_filter(torch.zeros(11), k)

    @pytest.mark.parametrize("p", [0, -0.1, 1.1, math.nan])
    def test_a_p_outside_0_to_1_is_named(self, p):
        with pytest.raises(ValueError, match=f"^p is {p};"):
            top_p_filter(torch.zeros(11), p)

    @pytest.mark.parametrize("greedily", [{}, GREEDY], ids=str)
    @pytest.mark.parametrize(
        "name, value",
        [
            *(("temperature", value) for value in (-1, math.nan, math.inf)),
            *(("top_k", value) for value in (0, 2.5, True)),
            *(("top_p", value) for value in (0, 2, math.nan)),
        ],
    )
    def test_a_strategy_is_refused_by_the_names_that_it_was_given(self, name, value, greedily):
        strategy = {**greedily, name: value}
        for draw in (sample, lambda logits, **s: generate(small_model(), logits.long(), 0, **s)):
            with pytest.raises(ValueError, match=f"^{name} is {value}; it must be "):
                draw(torch.zeros(2, 11), **strategy)

    @pytest.mark.parametrize("temperature", [0, 1.0])
    @pytest.mark.parametrize("row", [[0, math.nan, 0], [0, math.inf, 0], [-math.inf] * 3], ids=str)
    def test_scores_from_which_nothing_can_be_drawn_are_one_sentence(self, row, temperature):
        with pytest.raises(ValueError, match="^logits has a row whose highest score is nan or inf"):
            sample(torch.tensor([[1.0, 2.0, 3.0], row]), temperature)

    def test_scores_of_minus_infinity_are_never_drawn(self):
        logits = torch.tensor([[0.0, -math.inf, 0.0]]).expand(50, 3)
        assert sample(logits).ne(1).all()

    @pytest.mark.parametrize("shape", [(3,), (2, 3, 3), (0, 3)])
    def test_tokens_that_are_no_batch_of_prompts_are_an_error(self, shape):
        with pytest.raises(ValueError, match=r"^tokens is \(.*\); it must be \(B, T\)"):
            generate(small_model(), torch.zeros(shape, dtype=torch.long), 5)

    @pytest.mark.parametrize("lengths", [[2], [2, 2, 2], [[2], [2]], [2.0, 2.5]], ids=str)
    def test_lengths_that_are_not_one_for_each_prompt_are_an_error(self, lengths):
        with pytest.raises(ValueError, match=r"^lengths is \[.*\]; it must have 2 whole numbers$"):
            generate(small_model(), torch.zeros(2, 3).long(), 5, lengths=torch.tensor(lengths))

    @pytest.mark.parametrize("lengths", [None, [2, 0]])
    def test_an_empty_prompt_is_an_error(self, lengths):
        tokens = torch.zeros(2, 0 if lengths is None else 3, dtype=torch.long)
        with pytest.raises(ValueError, match="a prompt is empty"):
            generate(small_model(), tokens, 5, lengths=lengths and torch.tensor(lengths))

    def test_a_prompt_longer_than_its_row_is_an_error(self):
        with pytest.raises(ValueError, match="lengths has 4; tokens has 3"):
            generate(small_model(), torch.zeros(2, 3).long(), 5, lengths=torch.tensor([2, 4]))

    @pytest.mark.parametrize("new", [2.5, math.nan, True, 10**30])
    def test_a_number_of_new_tokens_that_is_none_is_named(self, new):
        with pytest.raises(ValueError, match="^max_new_tokens is .*; it must be "):
            generate(small_model(), torch.zeros(1, 3, dtype=torch.long), new)

    def test_a_negative_number_of_new_tokens_is_named(self):
        with pytest.raises(ValueError, match="^max_new_tokens is -1; it must be at least 0$"):
            generate(small_model(), torch.zeros(1, 3, dtype=torch.long), -1)
