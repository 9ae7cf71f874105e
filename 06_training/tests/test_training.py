"""Module 06. `impl` is the reference in one run of each test and your exercises in the other."""

import contextlib
import copy
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.setup.grading.doors import takes, unused
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.habits import (
    HABITS,
    keeps_the_dtype,
    keeps_the_graph,
    refuses,
    stays_on_the_device,
)
from tiny_transformer.setup.grading.recording import unnoted
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import (
    AdamW,
    TrainConfig,
    clip_gradients,
    cross_entropy,
    evaluate,
    even_batch,
    get_batch,
    make_optimizer,
    split_corpus,
    train_step,
    training_steps,
    warmup_cosine,
    warmup_stable_decay,
)

SMALL = ModelConfig(vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=2, d_ff=32)
BRIEF = TrainConfig(batch_size=4, max_steps=6, warmup_steps=2, max_lr=1e-2, min_lr=1e-3)
TOKENS = torch.randint(11, (300,), generator=torch.Generator().manual_seed(0))
OF_TOKENS = [habit for habit in HABITS if habit not in (keeps_the_graph, keeps_the_dtype)]


def small_model(**changes):
    return TinyTransformerLM(dataclasses.replace(SMALL, **changes))


def with_gradients(*lengths, scale=1.0):
    """Parameters of these lengths, with random gradients, and one that has none."""
    params = [nn.Parameter(torch.randn(length)) for length in lengths]
    for p in params:
        p.grad = scale * torch.randn(len(p))
    return [*params, nn.Parameter(torch.randn(3))]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.exercise("split_corpus")
class TestSplitCorpus:
    @pytest.mark.parametrize("N", [10, 100, 12345])
    def test_nothing_is_lost_and_nothing_moves(self, impl, N):
        tokens = torch.arange(N)
        both = torch.cat(impl.split_corpus(tokens))
        assert both.dtype == tokens.dtype, (
            f"Tokens of {tokens.dtype} come out as {both.dtype}; they should stay what they are."
        )
        assert both.equal(tokens), (
            f"The two texts one after the other are not the {N} tokens in their order: some moved, "
            "are missing, or are there twice."
        )

    # Where the cut falls inside a token, that one is for validation.
    @pytest.mark.parametrize("N, val", [(10, 1), (100, 10), (12345, 1235), (19, 2), (11, 2)])
    def test_the_last_tenth_is_for_validation(self, impl, N, val):
        train_tokens, val_tokens = impl.split_corpus(torch.arange(N))
        assert (len(train_tokens), len(val_tokens)) == (N - val, val), (
            f"Of {N} tokens you train on {len(train_tokens)} and validate on {len(val_tokens)}; "
            f"a share of 0.1 is {N - val} and {val}."
        )

    def test_the_fraction_is_yours_to_choose(self, impl):
        val_tokens = impl.split_corpus(torch.arange(100), val_fraction=0.25)[1]
        assert len(val_tokens) == 25, (
            f"With val_fraction=0.25 the second text has {len(val_tokens)} of 100 tokens, not 25."
        )

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 10])
    def test_a_fraction_that_leaves_nothing_on_one_side_is_an_error(self, impl, fraction):
        refuses(impl.split_corpus, TOKENS, fraction)

    @pytest.mark.parametrize("habit", OF_TOKENS)
    def test_it_has_good_habits(self, impl, habit):
        habit(lambda tokens: tuple(impl.split_corpus(tokens)), torch.arange(1, 51))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "split_corpus")


@pytest.mark.exercise("get_batch")
class TestGetBatch:
    def test_inputs_are_slices_of_the_text(self, impl):
        inputs, _ = impl.get_batch(torch.arange(50), 4, 6, torch.Generator())
        assert inputs.shape == (4, 6), (
            f"The inputs are {tuple(inputs.shape)}; with batch_size=4 and block_size=6 they are "
            "(4, 6)."
        )
        assert inputs.equal(inputs[:, :1] + torch.arange(6)), (
            "A row of the inputs is not a piece of the text: its tokens do not follow each other."
        )

    def test_each_target_is_the_token_after_its_input(self, impl):
        inputs, targets = impl.get_batch(torch.arange(50), 4, 6, torch.Generator())
        assert targets.equal(inputs + 1), (
            "A target is not the token that follows its input in the text: of the text 0 1 2 ... "
            f"your first row has inputs {inputs[0].tolist()} and targets {targets[0].tolist()}."
        )

    def test_every_window_comes_up_and_about_equally_often(self, impl):
        generator = torch.Generator().manual_seed(0)
        inputs, _ = impl.get_batch(torch.arange(7), 3000, 4, generator)
        assert len(inputs) == 3000, (
            f"With batch_size=3000 you give {len(inputs)} windows. A text of 7 tokens has 3 of 4, "
            "and one may come up any number of times."
        )
        often = inputs[:, 0].bincount(minlength=3).tolist()
        assert len(often) == 3 and min(often) > 900, (
            "A text of 7 tokens has 3 windows of 4 with a target for each token, and each is "
            f"equally likely. Of 3000 draws yours come up {often} times, the last one last."
        )

    def test_each_row_draws_a_window_of_its_own(self, impl):
        generator, firsts, distances = torch.Generator().manual_seed(0), set(), set()
        for _ in range(5):
            starts = impl.get_batch(torch.arange(1000), 8, 4, generator)[0][:, 0]
            assert len(starts.unique()) > 1, "All 8 rows of a batch are the same window."
            firsts.add(starts[0].item())
            distances.add(tuple(((starts[1:] - starts[0]) % 996).tolist()))
        assert len(distances) > 1 or len(firsts) == 1, (
            "In each of 5 batches the other windows begin "
            f"{str([*distances][0])[1:-1]} tokens after the first one: one number that is drawn "
            "decides all of them. Each window should be drawn by itself."
        )

    def test_a_text_of_one_window_and_its_last_target_is_enough(self, impl):
        inputs, targets = impl.get_batch(torch.arange(5), 2, 4, torch.Generator())
        assert inputs.tolist() == [[0, 1, 2, 3]] * 2 and targets.tolist() == [[1, 2, 3, 4]] * 2, (
            "Of the text 0 1 2 3 4 every window of 4 is 0 1 2 3 with targets 1 2 3 4; here the "
            f"first row is {inputs[0].tolist()} with targets {targets[0].tolist()}."
        )

    def test_the_generator_alone_decides(self, impl):
        batches = []
        for seed in (1, 1, 2):
            generator = torch.Generator().manual_seed(seed)
            batches.append(impl.get_batch(TOKENS, 4, 8, generator)[0])
        assert batches[0].equal(batches[1]), (
            "Two generators of the same seed give different batches: something else decides too."
        )
        assert not batches[0].equal(batches[2]), (
            "Generators of different seeds give the same batch: `generator` decides nothing."
        )

    def test_the_next_batch_is_another(self, impl):
        generator = torch.Generator().manual_seed(0)
        first, second = (impl.get_batch(TOKENS, 4, 8, generator)[0] for _ in range(2))
        assert not first.equal(second), "One generator gives the same batch twice in a row."

    @pytest.mark.parametrize("N", [0, 3, 8])
    def test_a_text_too_short_for_a_window_and_its_last_target_is_an_error(self, impl, N):
        refuses(impl.get_batch, torch.arange(N), 2, 8, torch.Generator())

    @pytest.mark.parametrize("habit", OF_TOKENS)
    def test_it_has_good_habits(self, impl, habit):
        def draw(tokens):
            return tuple(impl.get_batch(tokens, 4, 8, torch.Generator().manual_seed(0)))

        habit(draw, torch.arange(1, 51))

    def test_tokens_stay_what_they_are(self, impl):
        for part in impl.get_batch(torch.arange(50), 4, 8, torch.Generator()):
            assert part.dtype == torch.int64, (
                f"The tokens of a text are int64, and in a batch {part.dtype}; they should stay "
                "what they are."
            )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "get_batch")


class TestEvenBatch:
    """The reference's other order: windows that fill each other's gaps."""

    def test_windows_and_their_targets(self):
        inputs, targets = even_batch(torch.arange(50), 4, 6, step=3)
        assert inputs.shape == (4, 6)
        assert inputs.equal(inputs[:, :1] + torch.arange(6))
        assert targets.equal(inputs + 1)

    def test_after_any_number_of_steps_no_hole_is_large(self):
        text, starts = torch.arange(10_000), []
        for step in range(25):
            starts += even_batch(text, 4, 8, step)[0][:, 0].tolist()
            ends = torch.tensor([0, *sorted(starts), 10_000])
            assert ends.diff().max() < 2 * 10_000 / len(starts) + 1  # random: 5 times the mean

    def test_the_steps_are_one_sequence_whatever_the_batch_size(self):
        text = torch.arange(1000)
        pairs = [even_batch(text, 2, 8, step)[0] for step in (4, 5)]
        assert torch.cat(pairs).equal(even_batch(text, 4, 8, 2)[0])

    def test_the_loop_reads_in_this_order(self):
        model, seen = small_model(), []
        model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        config = dataclasses.replace(BRIEF, order="even")
        optimizer = make_optimizer(model, config)
        for _ in training_steps(model, optimizer, TOKENS, config, torch.Generator(), start=4):
            pass
        expected = [even_batch(TOKENS, 4, 8, step)[0] for step in (4, 5)]
        assert torch.stack(seen).equal(torch.stack(expected))

    def test_a_text_too_short_is_an_error(self):
        with pytest.raises(ValueError, match="^tokens has 8; block_size 8 needs 9 or more$"):
            even_batch(torch.arange(8), 2, 8, 0)


@pytest.mark.exercise("cross_entropy")
class TestCrossEntropy:
    @pytest.mark.parametrize("lead", [(5,), (2, 3), ()], ids=str)
    def test_agrees_with_torch_in_value_and_gradient(self, impl, lead):
        logits, targets = 3 * torch.randn(*lead, 11), torch.randint(1, 11, lead)
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss = impl.cross_entropy(ours, targets)
        expected = F.cross_entropy(theirs.view(-1, 11), targets.flatten())
        assert loss.shape == (), f"The loss is {tuple(loss.shape)}; it should be one number, ()."
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5), (
            f"The loss is {loss.item():.6g}; the mean of -ln p(target) over the {targets.numel()} "
            f"positions of these logits {tuple(logits.shape)} is {expected.item():.6g}."
            f"{cause(loss, expected, logits, targets)}"
        )
        assert loss.requires_grad, (
            "The loss has no graph, so no gradient reaches the logits: it is cut on the way "
            "(detach, .data, no_grad do that)."
        )
        loss.backward()
        expected.backward()
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6), (
            "The loss is right, and its gradient is not: at a target it is (p - 1) / "
            f"{targets.numel()}, elsewhere p / {targets.numel()}. Yours is off by up to "
            f"{(ours.grad - theirs.grad).abs().max():.2g}."
        )

    def test_a_target_of_token_0_counts_like_any_other(self, impl):
        logits, targets = torch.tensor([[0.0, 1.0, 2.0]] * 4), torch.tensor([0, 2, 0, 1])
        loss, expected = impl.cross_entropy(logits, targets), F.cross_entropy(logits, targets)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4), (
            "With logits 0, 1, 2 at four positions the targets 0, 2, 0, 1 cost a mean of "
            f"{expected:.4f}; your loss is {loss:.4f}. Token 0 is one like any other, and each "
            "position counts."
        )

    def test_the_loss_is_finite_for_finite_scores(self, impl):
        logits = torch.tensor([[1e4, 1e4, -1e4]])
        losses = [impl.cross_entropy(logits, torch.tensor([target])).item() for target in (0, 2)]
        assert all(map(math.isfinite, losses)), (
            f"For logits 10000, 10000, -10000 the loss of target 0 is {losses[0]} and of target 2 "
            f"{losses[1]}; both are finite. An exponential overflows, or ln 0 is taken."
        )

    def test_a_row_far_below_the_others_has_a_finite_loss(self, impl):
        logits = torch.tensor([[0.0, 0.0], [200.0, 200.0]])
        loss = impl.cross_entropy(logits, torch.tensor([0, 0])).item()
        assert loss == pytest.approx(math.log(2), rel=1e-3), (
            f"For two rows of logits, 0, 0 and 200, 200, the loss is {loss:.4g}. In each row two "
            "tokens are equally likely, which costs ln 2 = 0.6931, however high another row lies."
        )

    @pytest.mark.parametrize("target, expected", [(0, math.log(2)), (2, 2e4 + math.log(2))])
    def test_survives_huge_scores(self, impl, target, expected):
        loss = impl.cross_entropy(torch.tensor([[1e4, 1e4, -1e4]]), torch.tensor([target])).item()
        # Around 1e4 the float32 numbers are 0.001 apart.
        assert loss == pytest.approx(expected, abs=2e-3), (
            f"For logits 10000, 10000, -10000 target {target} costs {expected:.8g}; your loss is "
            f"{loss:.8g}."
        )

    def test_to_know_nothing_costs_the_log_of_the_vocabulary(self, impl):
        loss = impl.cross_entropy(torch.zeros(2, 4, 65), torch.randint(65, (2, 4))).item()
        assert loss == pytest.approx(math.log(65)), (
            "Where all 65 logits are 0, every target costs ln 65 = 4.1744; your loss is "
            f"{loss:.4f}."
        )

    @pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 3, 1), (6,)])
    def test_targets_that_do_not_fit_the_logits_are_an_error(self, impl, shape):
        refuses(impl.cross_entropy, torch.zeros(2, 3, 11), torch.zeros(shape, dtype=torch.long))

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.cross_entropy, torch.randn(2, 5, 7), torch.randint(7, (2, 5)))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "cross_entropy")


def cause(loss, expected, logits, targets):
    """What a wrong loss is, where the numbers show it."""
    for dim in range(targets.dim()):
        chosen = logits.log_softmax(dim).gather(-1, targets.unsqueeze(-1))
        if loss.item() == pytest.approx(-chosen.mean().item(), rel=1e-5):
            return (
                f" Yours is what a softmax along axis {dim} gives; the chances of a position add "
                "up to 1 along the last axis, its vocabulary."
            )
    factor = (loss / expected).item()
    for name, n in {
        "as many as there are positions": targets.numel(),
        "as many as a row has positions": math.prod(targets.shape[1:]),
        "1 / ln 2": 1 / math.log(2),
    }.items():
        if n != 1 and factor == pytest.approx(n, rel=1e-5):
            return f" Yours is {factor:.4g} times as large: {name}."
    return " The sign is wrong." if factor == pytest.approx(-1, rel=1e-5) else ""


@pytest.mark.exercise("perplexity")
class TestPerplexity:
    @pytest.mark.parametrize("choices", [65, 2, 1, 1.002])
    @pytest.mark.parametrize("kind", [float, torch.tensor])
    def test_an_even_choice_has_as_many_as_it_has_options(self, impl, choices, kind):
        perplexity = impl.perplexity(kind(math.log(choices)))
        assert float(perplexity) == pytest.approx(choices, rel=1e-5), (
            f"Of a loss of ln {choices} = {math.log(choices):.6f} the perplexity is {choices}; "
            f"yours is {float(perplexity):.6g}."
        )
        assert isinstance(perplexity, float), (
            "The perplexity is a float, of a tensor too; here its type is "
            f"{type(perplexity).__name__}."
        )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "perplexity")


@pytest.mark.exercise("warmup_cosine")
class TestWarmupCosine:
    @pytest.mark.parametrize(
        "step, expected",
        [
            pytest.param(0, 1.1 / 11, id="first"),
            pytest.param(4, 1.1 * 5 / 11, id="halfway-up"),
            pytest.param(9, 1.1 * 10 / 11, id="one-before-the-top"),
            pytest.param(10, 1.1, id="top"),
        ],
    )
    def test_climbs_along_a_line(self, impl, step, expected):
        rate = impl.warmup_cosine(step, 10, 110, 1.1, 0.1)
        assert rate == pytest.approx(expected), (
            f"With warmup_steps=10 and max_lr=1.1 the rate of step {step} is {rate:.4g}; on the "
            f"line from max_lr / (warmup_steps + 1) it is {expected:.4g}."
        )

    @pytest.mark.parametrize(
        "step, expected",
        [
            pytest.param(35, 0.1 + math.cos(math.pi / 8) ** 2, id="a-quarter-down"),
            pytest.param(60, 0.6, id="halfway-down"),
            pytest.param(110, 0.1, id="end"),
        ],
    )
    def test_comes_down_along_half_a_cosine(self, impl, step, expected):
        rate = impl.warmup_cosine(step, 10, 110, 1.1, 0.1)
        assert rate == pytest.approx(expected), (
            f"On half a cosine from 1.1 at step 10 to 0.1 at step 110 the rate of step {step} is "
            f"{expected:.4g}; yours is {rate:.4g}."
        )

    @pytest.mark.parametrize("step", [111, 160, 210])
    def test_stays_at_the_end(self, impl, step):
        rate = impl.warmup_cosine(step, 10, 110, 1.1, 0.1)
        assert rate == pytest.approx(0.1), (
            f"With max_steps=110 the rate stays at min_lr=0.1 afterwards; at step {step} yours is "
            f"{rate:.4g}."
        )

    def test_without_a_warm_up_it_starts_at_the_top(self, impl):
        rate = impl.warmup_cosine(0, 0, 100, 1.0, 0.1)
        assert rate == pytest.approx(1.0), (
            f"With warmup_steps=0 the rate of step 0 is max_lr=1; yours is {rate:.4g}."
        )

    @pytest.mark.parametrize("step", [6, 7, 100])
    def test_a_run_may_be_warm_up_to_its_end(self, impl, step):
        rate = impl.warmup_cosine(step, 5, 5, 1.0, 0.1)
        assert rate == pytest.approx(0.1), (
            f"With warmup_steps and max_steps both 5 the rate of step {step} is min_lr=0.1; yours "
            f"is {rate:.4g}."
        )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "warmup_cosine")


@pytest.mark.exercise("clip_gradients")
class TestClipGradients:
    def test_returns_the_length_before(self, impl):
        params = with_gradients(5, 7)
        whole = torch.cat([p.grad for p in params[:-1]])
        length, lengths = whole.norm(), torch.stack([p.grad.norm() for p in params[:-1]])
        returned = impl.clip_gradients(params, 0.5)
        assert isinstance(returned, torch.Tensor) and returned.shape == (), (
            "What is returned should be a tensor (), the length of the gradients before."
        )
        wrong = {
            "the sum of their lengths": lengths.sum(),
            "the longest of them": lengths.max(),
            "the sum of the squares, without its root": length**2,
            "the sum of the numbers without their signs": whole.abs().sum(),
            "what max_norm leaves of it": 0.5,
        }
        told = [f", {name}" for name, n in wrong.items() if abs(returned - n) < 1e-4 * n]
        assert returned.item() == pytest.approx(length.item(), rel=1e-4), (
            f"Laid end to end the gradients were {length:.4f} long; {returned:.4f} is "
            f"returned{''.join(told)}."
        )

    def test_together_they_are_as_long_as_they_may_be(self, impl):
        params = with_gradients(5, 7)
        before = [p.grad.clone() for p in params[:-1]]
        impl.clip_gradients(params, 0.5)
        assert not all(p.grad.equal(grad) for p, grad in zip(params, before, strict=False)), (
            "Gradients longer than max_norm are what they were: `p.grad` of each parameter should "
            "be shortened."
        )
        length = torch.cat([p.grad for p in params[:-1]]).norm().item()
        assert length == pytest.approx(0.5, rel=1e-4), (
            f"Laid end to end the gradients are {length:.4f} long afterwards; max_norm is 0.5."
        )

    def test_their_direction_stays(self, impl):
        params = with_gradients(5, 7)
        before = torch.cat([p.grad.clone() for p in params[:-1]])
        impl.clip_gradients(params, 0.5)
        after = torch.cat([p.grad for p in params[:-1]])
        assert F.cosine_similarity(before, after, dim=0) > 0.9999, (
            "Laid end to end the gradients point elsewhere than before: they must all be "
            "shortened by one factor."
        )

    @pytest.mark.parametrize("max_norm", [0.01, 1.0, 3.0])
    def test_agrees_with_torch(self, impl, max_norm):
        ours = with_gradients(5, 7)
        theirs = copy.deepcopy(ours)
        for p, q in zip(ours, theirs, strict=True):  # deepcopy leaves gradients behind
            q.grad = None if p.grad is None else p.grad.clone()
        before = torch.cat([p.grad for p in ours[:-1]]).norm()
        impl.clip_gradients(ours, max_norm)
        nn.utils.clip_grad_norm_(theirs, max_norm)
        got, expected = (torch.cat([p.grad for p in params[:-1]]) for params in (ours, theirs))
        assert torch.allclose(got, expected, atol=1e-5), (
            f"With max_norm={max_norm}, gradients that are {before:.4f} long together are "
            f"{got.norm():.4f} long afterwards; clipped they are {expected.norm():.4f}. The number "
            f"that is furthest off is so by {(got - expected).abs().max():.2g}."
        )

    @pytest.mark.parametrize("scale", [0.01, 0.0])
    def test_gradients_that_are_short_enough_stay_as_they_are(self, impl, scale):
        params = with_gradients(5, 7, scale=scale)
        before = [p.grad.clone() for p in params[:-1]]
        impl.clip_gradients(params, 1.0)
        assert all(p.grad.equal(grad) for p, grad in zip(params[:-1], before, strict=True)), (
            "Gradients shorter than max_norm are changed; they stay as they are."
        )

    def test_parameters_may_come_one_by_one(self, impl):
        params = with_gradients(5, 7)
        impl.clip_gradients(iter(params), 0.5)
        length = torch.cat([p.grad for p in params[:-1]]).norm()
        assert length.item() == pytest.approx(0.5, rel=1e-4), (
            "Given as an iterator, which can be gone through only once, like "
            f"model.parameters(), gradients with max_norm=0.5 end up {length:.4f} long."
        )

    def test_a_gradient_that_is_none_stays_none(self, impl):
        params = with_gradients(5, 7)
        impl.clip_gradients(params, 0.5)
        assert params[-1].grad is None, (
            "A parameter had None for its gradient, and has a tensor afterwards: an optimizer "
            "would move what should rest."
        )

    def test_where_no_parameter_has_a_gradient_the_length_is_0(self, impl):
        length = impl.clip_gradients([nn.Parameter(torch.zeros(3))], 1.0)
        assert float(length) == 0, f"Without any gradient you return {length}; the length is 0."
        assert isinstance(length, torch.Tensor) and length.shape == (), (
            f"Without any gradient a {type(length).__name__} comes back; the length should be a "
            "tensor (), as it is with them."
        )

    def test_the_weights_themselves_stay(self, impl):
        params = with_gradients(5)
        before = params[0].detach().clone()
        impl.clip_gradients(params, 0.1)
        assert params[0].equal(before), "The weights are changed; only their gradients should be."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "clip_gradients")


def after_100_steps(optimizer, params):
    """The parameters after 100 steps down random gradients, the same ones at each call."""
    generator = torch.Generator().manual_seed(0)
    for step in range(100):
        for i, p in enumerate(params):
            gradient = torch.randn(p.shape, generator=generator)
            p.grad = None if (i + step) % 5 == 0 else gradient * 10.0 ** (i - 2)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


def moves(impl, gradients, shape=(1,), **options):
    """How a weight of 4 moves at each step of AdamW down these gradients."""
    p = nn.Parameter(torch.full(shape, 4.0))
    optimizer = impl.AdamW([p], **{"lr": 0.1, "weight_decay": 0.0, **options})
    found = []
    for gradient in gradients:
        before = p.item()
        p.grad = None if gradient is None else torch.full(shape, gradient)
        optimizer.step()
        found.append(p.item() - before)
    return found


def listed(numbers):
    return " and ".join(f"{number:.4g}" for number in numbers)


@pytest.mark.exercise("AdamW")
class TestAdamW:
    @pytest.mark.parametrize("gradient", [5.0, -0.01])
    def test_the_first_step_is_as_long_as_the_rate(self, impl, gradient):
        (move,), (tenfold,) = moves(impl, [gradient]), moves(impl, [10 * gradient])
        expected = -math.copysign(0.1, gradient)
        exchanged = expected * (0.9 / 0.1) / (0.999 / 0.001) ** 0.5
        why = "lr down the gradient, which is divided by the root of its average square."
        if math.isnan(move):
            why = "t is 1 at the first step; with t = 0, 1 - beta^t would be 0."
        elif move == pytest.approx(exchanged, rel=1e-4):
            why = (
                "an average keeps beta of what it was and takes 1 - beta of what is new. Yours is "
                "what comes where it is the other way round."
            )
        elif move == 0:
            why = "lr down the gradient, written into the parameter itself, in place."
        elif move == pytest.approx(tenfold, rel=1e-3) and move * expected > 0:
            why = (
                "both averages start at 0 and take 1 - beta of g and of g · g; then each is "
                "divided by 1 - beta^t, with its own beta and t = 1."
            )
        assert move == pytest.approx(expected, rel=1e-3), (
            f"With lr=0.1, no decay and a gradient of {gradient:g} the first step moves a weight "
            f"by {move:.4g}. It should be {expected:g}: {why}"
        )

    def test_eps_is_added_to_the_root(self, impl):
        (move,) = moves(impl, [0.5], lr=0.3, eps=1.0)
        assert move == pytest.approx(-0.1, rel=1e-3), (
            "With lr=0.3, eps=1 and a gradient of 0.5 the first step moves a weight by "
            f"{move:.4g}; it should be -0.3 · 0.5 / (√0.25 + 1) = -0.1, with eps beside the root."
        )

    def test_a_vector_decays_like_a_matrix(self, impl):
        vector, matrix = (
            moves(impl, [0.0], shape=shape, weight_decay=0.5)[0] for shape in ((1,), (1, 1))
        )
        assert vector == pytest.approx(matrix), (
            f"With weight_decay=0.5 a step moves a vector by {vector:.4g} and a matrix of the same "
            f"number by {matrix:.4g}. Which parameters decay is for the groups to say, by their "
            '"weight_decay": AdamW makes no difference between shapes.'
        )

    def test_decay_shrinks_the_weight_itself(self, impl):
        (move,) = moves(impl, [0.0], weight_decay=0.5)
        assert move == pytest.approx(-0.2, rel=1e-3), (
            "With lr=0.1, weight_decay=0.5 and a gradient of 0 a step moves a weight of 4 by "
            f"{move:.4g}. The decay is -0.1 · 0.5 · 4 = -0.2, apart from the gradient and its "
            "averages."
        )

    def test_decay_is_a_share_of_the_weight_before_the_step(self, impl):
        (move,) = moves(impl, [1.0], weight_decay=0.5)
        late = " Yours shrinks 3.9, what the gradient has left." if abs(move + 0.295) < 1e-4 else ""
        assert move == pytest.approx(-0.3, rel=1e-3), (
            "With lr=0.1, weight_decay=0.5 and a gradient of 1 the first step moves a weight of 4 "
            f"by {move:.4g}. It should be -0.1 · 0.5 · 4 for the decay and -0.1 for the gradient, "
            f"-0.3.{late}"
        )

    def test_the_averages_are_kept_from_step_to_step(self, impl):
        found = moves(impl, [1.0, 0.0], betas=(0.9, 0.9))
        expected = -0.1 * (0.09 / 0.19) ** 0.5
        told = ""
        if found[1] == pytest.approx(-0.1 * (0.9 / 0.19) ** 0.5, rel=1e-4):
            told = (
                " Yours is what comes where the averages themselves are corrected, and kept so: "
                "the correction is for one step, and the next begins with the averages without it."
            )
        assert found[1] == pytest.approx(expected, rel=1e-3), (
            "With lr=0.1, betas=(0.9, 0.9) and gradients 1, 0 the second step moves a weight by "
            f"{found[1]:.4g}; both averages still hold 0.9 of what the first gradient left, and "
            f"are divided by 1 - 0.9² = 0.19, so it is {expected:.4g}.{told}"
        )

    def test_each_beta_is_of_its_own_average(self, impl):
        found = moves(impl, [1.0, 0.0], betas=(0.5, 0.9))
        swapped = -0.1 * (0.09 / 0.19) / (0.25 / 0.75) ** 0.5
        expected = -0.1 * (0.25 / 0.75) / (0.09 / 0.19) ** 0.5
        told = " Yours has the two exchanged." if abs(found[1] - swapped) < 1e-4 else ""
        assert found[1] == pytest.approx(expected, rel=1e-3), (
            "With lr=0.1, betas=(0.5, 0.9) and gradients 1, 0 the second step moves a weight by "
            f"{found[1]:.4g}; it should be {expected:.4g}. The first beta is of the average of the "
            f"gradients, the second of that of their squares.{told}"
        )

    def test_parameters_step_each_for_itself(self, impl):
        params = [nn.Parameter(torch.tensor([4.0])) for _ in range(3)]
        optimizer = impl.AdamW(params, lr=0.1, weight_decay=0.0)
        for p in params:
            p.grad = torch.ones(1)
        optimizer.step()
        moved = [p.item() - 4 for p in params]
        assert max(moved) - min(moved) < 1e-5, (
            "Three parameters with the same number and gradient move by "
            f"{', '.join(f'{move:.4g}' for move in moved)} at their first step. They should "
            "move alike: averages and count of steps are each parameter's own."
        )

    def test_a_parameter_has_a_count_of_its_own(self, impl):
        found = moves(impl, [None, None, None, 5.0])
        assert found[3] == pytest.approx(-0.1, rel=1e-3), (
            "A parameter without a gradient for 3 steps moves by "
            f"{found[3]:.4g} when it has one. Its own count of steps has waited, so this is its "
            "first step: as long as lr, 0.1."
        )

    def test_a_parameter_whose_gradient_is_none_rests(self, impl):
        idle, busy = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        optimizer = impl.AdamW([idle, busy], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
        busy.grad = torch.ones(3)
        optimizer.step()
        assert idle.equal(torch.ones(3)), (
            "A parameter whose gradient is None has moved; it should rest, decay too."
        )
        assert not busy.equal(torch.ones(3)), (
            "One parameter has None for its gradient, and the next, which has one, has not moved."
        )

    def test_settings_that_are_not_given_are_those_of_the_signature(self, impl):
        (ours,), (theirs,) = (
            optimizer([nn.Parameter(torch.zeros(1))]).param_groups
            for optimizer in (impl.AdamW, torch.optim.AdamW)
        )
        for name in ("lr", "betas", "eps", "weight_decay"):
            assert ours[name] == theirs[name], (
                f"Without settings `{name}` in `param_groups` is {ours[name]}; by the signature it "
                f"is {theirs[name]}."
            )

    @pytest.mark.parametrize("setting, value", [("lr", 0.0), ("betas", (0.0, 0.0))], ids=str)
    def test_a_setting_may_change_between_steps(self, impl, setting, value):
        p = nn.Parameter(torch.tensor([4.0]))
        optimizer = impl.AdamW([p], lr=0.1, weight_decay=0.0)
        for gradient in (1.0, 0.0):
            p.grad = torch.tensor([gradient])
            before = p.item()
            optimizer.step()
            optimizer.param_groups[0][setting] = value
        assert p.item() == pytest.approx(before), (
            f'With "{setting}" in `param_groups` set to {value} after the first step the second '
            f"moves a weight by {p.item() - before:.4g}; it should not move it."
        )

    @pytest.mark.parametrize(
        "setting, value",
        [("lr", 0.3), ("betas", (0.5, 0.6)), ("eps", 1.0), ("weight_decay", 0.5)],
        ids=str,
    )
    def test_each_group_has_its_settings(self, impl, setting, value):
        plain, of_group = (self.two_groups(impl.AdamW, setting, value, own) for own in (0, 1))
        right, expected = (
            self.two_groups(torch.optim.AdamW, setting, value, own) for own in (0, 1)
        )
        assert plain == pytest.approx(right, rel=1e-3), (
            f"With {setting}={value} for all, two steps move two weights of 4 by {listed(plain)}; "
            f"it should be {listed(right)}."
        )
        assert of_group == pytest.approx(expected, rel=1e-3), (
            f"Where the second of two groups has {setting}={value} of its own, two steps move a "
            f"weight of 4 in each by {listed(of_group)}; by the settings in `param_groups` it is "
            f"{listed(expected)}. With this {setting} for both, the steps are right."
        )

    def two_groups(self, optimizer_class, setting, value, own):
        """How a weight in each of two groups moves; one has the setting of `own`, or else both."""
        params = [nn.Parameter(torch.tensor([4.0])) for _ in range(2)]
        groups = [
            {"params": params[:1]},
            {"params": params[1:], **({setting: value} if own else {})},
        ]
        settings = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
        optimizer = optimizer_class(groups, **settings | ({} if own else {setting: value}))
        for gradient in (1.0, 0.5):
            for p in params:
                p.grad = torch.tensor([gradient])
            optimizer.step()
        return [p.item() - 4 for p in params]

    def test_gradients_are_left_as_they_are(self, impl):
        p = nn.Parameter(torch.tensor([4.0]))
        optimizer = impl.AdamW([p], weight_decay=0.5)
        p.grad = torch.tensor([3.0])
        optimizer.step()
        assert p.grad is not None, "A step sets the gradient to None; it should leave it as it is."
        assert p.grad.item() == 3, (
            f"A step changes the gradient of a parameter, from 3 to {p.grad.item():.4g}; it should "
            "leave it as it is."
        )

    def test_what_it_remembers_is_in_its_state(self, impl):
        one, other = (nn.Parameter(torch.tensor([4.0])) for _ in range(2))
        optimizer, restored = impl.AdamW([one], lr=0.1), impl.AdamW([other], lr=0.1)
        for p, steps in ((one, optimizer), (other, restored)):
            p.grad = torch.ones(1)
            if steps is optimizer:
                steps.step()
        other.data = one.data.clone()
        restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for p, steps in ((one, optimizer), (other, restored)):
            p.grad = torch.zeros(1)
            steps.step()
        assert other.item() == pytest.approx(one.item()), (
            "An optimizer that takes over the state_dict() of another goes on otherwise than that: "
            "what is to be remembered belongs in self.state[p], which a checkpoint saves."
        )

    @pytest.mark.parametrize(
        "changes",
        [{}, {"weight_decay": 0.0}, {"weight_decay": 2.0}, {"eps": 0.1}, {"betas": (0.5, 0.6)}],
        ids=str,
    )
    def test_agrees_with_torch_over_100_steps(self, impl, changes):
        options = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, **changes}
        ours = [nn.Parameter(torch.randn(4, 3)) for _ in range(4)]
        theirs = copy.deepcopy(ours)
        moved = after_100_steps(impl.AdamW(ours, **options), ours)
        expected = after_100_steps(torch.optim.AdamW(theirs, **options), theirs)
        assert torch.allclose(moved, expected, rtol=1e-5, atol=1e-5), (
            f"After 100 steps down random gradients, a fifth of them None, with {options}, weights "
            f"are off those of torch.optim.AdamW by up to {(moved - expected).abs().max():.2g}."
        )

    def test_what_it_remembers_is_of_the_same_kind(self, impl):
        p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = impl.AdamW([p])
        p.grad = torch.ones_like(p)
        optimizer.step()
        kept = [v for v in optimizer.state[p].values() if isinstance(v, torch.Tensor)]
        wrong = [v.dtype for v in kept if v.shape == p.shape and v.dtype != p.dtype]
        assert not wrong, (
            f"Of a parameter of float64 something is remembered in {wrong[0]}. Zeros take dtype "
            "and device from the parameter."
        )

    def test_a_step_stays_on_the_device(self, impl):
        def step(layer, gradient):
            layer.weight.grad = gradient
            impl.AdamW([layer.weight]).step()
            return layer.weight.detach()

        stays_on_the_device(step, nn.Linear(3, 1), torch.ones(1, 3))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "AdamW")


@pytest.mark.exercise("train_step")
class TestTrainStep:
    def test_returns_a_tensor_without_its_graph(self, impl):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        loss = impl.train_step(model, optimizer, *torch.randint(11, (2, 4, 8)), 1.0)
        assert isinstance(loss, torch.Tensor), (
            f"The loss that is returned is a {type(loss).__name__}; it should be a tensor (), "
            "which stays where it was computed."
        )
        assert loss.shape == (), f"The loss is {tuple(loss.shape)}; it should be one number, ()."
        assert not loss.requires_grad, "The loss that is returned still has its graph."

    def test_the_optimizer_uses_gradients_that_are_clipped(self, impl):
        moved = self.moved_by(impl.train_step, lambda params: params)
        assert moved < 0.101, (
            f"A step of SGD with lr=1 and max_norm=0.1 has moved the weights by {moved:.3f}: the "
            "gradients were longer than max_norm when the optimizer used them. They are clipped "
            "before."
        )

    def test_the_parameters_of_all_groups_are_clipped_together(self, impl):
        def in_two_groups(params):
            return [{"params": params[:1]}, {"params": params[1:]}]

        moved = self.moved_by(impl.train_step, in_two_groups)
        assert moved < 0.101, (
            "Where the optimizer has the parameters in two groups, a step of SGD with lr=1 and "
            f"max_norm=0.1 has moved the weights by {moved:.3f}. The gradients of all parameters "
            "together should be at most max_norm long."
        )

    def moved_by(self, train_step, grouped):
        model = small_model()
        before, batch = weights(model), torch.randint(11, (2, 4, 8))
        optimizer = torch.optim.SGD(grouped([*model.parameters()]), 1.0)
        steps = []
        optimizer.register_step_pre_hook(lambda *_: steps.append(1))
        train_step(model, optimizer, *batch, max_norm=0.1)
        assert len(steps) < 2, (
            f"optimizer.step() is called {len(steps)} times for a batch; it should be one time."
        )
        return (weights(model) - before).norm().item()

    @pytest.mark.parametrize("max_norm", [100.0, 0.1])
    def test_is_the_recipe_of_loss_gradient_clip_and_step(self, impl, max_norm):
        ours = small_model()
        theirs, before, used = copy.deepcopy(ours), weights(ours), []
        inputs, targets = torch.randint(11, (2, 4, 8))
        optimizer = torch.optim.SGD(ours.parameters(), 0.5)
        optimizer.register_step_pre_hook(
            lambda *_: used.append(
                any(p.grad is not None and p.grad.any() for p in ours.parameters())
            )
        )
        impl.train_step(ours, optimizer, inputs, targets, max_norm)
        assert used, "The weights are not moved: optimizer.step() is never called."
        assert any(used), (
            "When the optimizer takes its step, every gradient is None or 0: there is nothing left "
            "for it to go by."
        )
        F.cross_entropy(theirs(inputs).flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        torch.optim.SGD(theirs.parameters(), 0.5).step()
        moved, expected = weights(ours) - before, weights(theirs) - before
        assert torch.allclose(moved, expected, rtol=1e-4, atol=1e-5), (
            f"With SGD, lr=0.5 and max_norm={max_norm:g} a step "
            f"{compared(moved, expected, 'loss, gradient, clip and step do')}."
        )

    def test_the_gradients_of_the_last_step_are_forgotten(self, impl):
        fresh = small_model()
        used = copy.deepcopy(fresh)
        for p in used.parameters():
            p.grad = torch.ones_like(p)
        inputs, targets = torch.randint(11, (2, 4, 8))
        for model in (fresh, used):
            optimizer = torch.optim.SGD(model.parameters(), 0.5)
            impl.train_step(model, optimizer, inputs, targets, 1.0)
        assert weights(used).equal(weights(fresh)), (
            "A step moves the weights otherwise where gradients of an earlier batch are still "
            "there: those of this batch are added to them. They should be forgotten."
        )

    def test_returns_the_loss_before_the_step(self, impl):
        model = small_model()
        inputs, targets = torch.randint(11, (2, 4, 8))
        expected = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        loss = impl.train_step(model, optimizer, inputs, targets, 1.0)
        assert float(loss) == pytest.approx(expected.item(), rel=1e-5), (
            f"The loss that is returned is {float(loss):.4f}; before the step it is {expected:.4f}."
        )

    def test_the_model_is_in_training_mode_when_it_reads(self, impl):
        model, resting = small_model().eval(), []
        model.register_forward_pre_hook(
            lambda model, _: resting.extend(
                name for name, module in model.named_modules() if not module.training
            )
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        impl.train_step(model, optimizer, *torch.randint(11, (2, 4, 8)), 1.0)
        assert not resting, (
            "A model that comes in evaluation mode reads the batch in it: its dropout rests."
        )

    def test_the_model_is_left_in_training_mode(self, impl):
        model = small_model().eval()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        impl.train_step(model, optimizer, *torch.randint(11, (2, 4, 8)), 1.0)
        assert all(module.training for module in model.modules()), (
            "After the step the model is in evaluation mode; it should stay in training mode."
        )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "train_step")


def compared(moved, expected, than):
    """moves the weights 0.25 times as far as the whole batch does, 30° away from that direction"""
    if not moved.any():
        return "moves no weight"
    factor = (moved.norm() / expected.norm()).item()
    angle = math.degrees(torch.acos(F.cosine_similarity(moved, expected, dim=0).clamp(-1, 1)))
    way = f"{angle:.0f}° away from that direction" if angle >= 1 else "in the same direction"
    return f"moves the weights {factor:.3g} times as far as {than}, {way}"


def after_a_step(train_step, max_norm=1.0, rows=slice(None), **options):
    """What one step does: its loss, how the weights move, and what each forward pass returned."""
    torch.manual_seed(0)
    model, batch, passes = small_model(), torch.randint(11, (2, 4, 8))[:, rows], []
    model.register_forward_hook(lambda _, args, logits: passes.append(logits.detach()))
    optimizer, before, steps = torch.optim.SGD(model.parameters(), 0.5), weights(model), []
    optimizer.register_step_pre_hook(lambda *_: steps.append(1))
    loss = torch.as_tensor(train_step(model, optimizer, *batch, max_norm, **options))
    return SimpleNamespace(
        loss=loss,
        moved=weights(model) - before,
        passes=passes,
        model=model,
        batch=batch,
        steps=len(steps),
    )


class WatchedScaler(torch.amp.GradScaler):
    """A scaler that knows whether it was asked to scale anything."""

    asked = False

    def scale(self, outputs):
        self.asked = True
        return super().scale(outputs)


OPTIONS = {"accumulate": lambda: 4, "bf16": lambda: True, "scaler": lambda: WatchedScaler("cpu")}


def skip_if_unused(train_step, name):
    """Nothing about a step tells whether it was given this argument."""
    value, plain = OPTIONS[name](), after_a_step(train_step)
    step = plain
    if takes(train_step, name):
        with contextlib.suppress(NotImplementedError):  # a mark for what is to come
            step = after_a_step(train_step, **{name: value})
    same = step.loss.equal(plain.loss) and step.moved.equal(plain.moved)
    seen = [[(p.shape, p.dtype) for p in of.passes] for of in (step, plain)]
    if same and seen[0] == seen[1] and not getattr(value, "asked", False):
        pytest.skip(unused("train_step", name))


@pytest.fixture
def step(impl):
    """`after_a_step` of the code under test; the test is skipped where it ignores an option."""

    def step(max_norm=1.0, **options):
        with unnoted():
            for name in options:
                skip_if_unused(impl.train_step, name)
        return after_a_step(impl.train_step, max_norm, **options)

    return step


@pytest.mark.door
@pytest.mark.exercise("train_step")
class TestAccumulate:
    def test_each_part_is_its_share_of_the_batch(self, step):
        split, whole = step(accumulate=4), step()
        sizes = [len(logits) for logits in split.passes]
        assert sizes == [1, 1, 1, 1], (
            f"With accumulate=4 the forward passes read {sizes} sequences of a batch of 4; they "
            "should be [1, 1, 1, 1]."
        )
        assert split.steps < 2, (
            f"With accumulate=4 the optimizer takes {split.steps} steps for a batch; it should "
            "take one, when all parts have gone back."
        )
        assert torch.allclose(torch.cat(split.passes), *whole.passes, atol=1e-5), (
            "With accumulate=4 the four passes, one after the other, are not those of the batch's "
            "four sequences in their order."
        )

    @pytest.mark.parametrize("parts", [2, 4])
    def test_the_parts_make_the_step_of_the_whole(self, step, parts):
        whole, split = step(100.0), step(100.0, accumulate=parts)
        last = after_a_step(train_step, 100.0, rows=slice(-4 // parts, None)).moved
        cause = ""
        if torch.allclose(split.moved, parts * whole.moved, rtol=1e-3, atol=1e-5):
            cause = " Each part is only a share of the mean."
        elif F.cosine_similarity(split.moved, last, dim=0) > 0.9999:
            cause = " It is the step of the last part alone: the others' gradients are gone."
        assert torch.allclose(split.moved, whole.moved, rtol=1e-4, atol=1e-6), (
            f"With accumulate={parts} a step "
            f"{compared(split.moved, whole.moved, 'with the batch as a whole')}.{cause}"
        )

    @pytest.mark.parametrize("parts", [2, 4])
    def test_the_parts_make_the_clipped_step_of_the_whole(self, step, parts):
        whole, split = step(0.1), step(0.1, accumulate=parts)
        plain = [step(100.0).moved, step(100.0, accumulate=parts).moved]
        cause = ""
        if torch.allclose(*plain, rtol=1e-4, atol=1e-6):
            cause = (
                " With nothing to clip it is the same: the gradients are to be clipped one time, "
                "when those of all parts have been added up."
            )
        assert torch.allclose(split.moved, whole.moved, rtol=1e-4, atol=1e-6), (
            f"With accumulate={parts} and max_norm=0.1 a step "
            f"{compared(split.moved, whole.moved, 'with the batch as a whole')}.{cause}"
        )

    def test_the_loss_is_that_of_the_whole(self, step):
        split, whole = step(accumulate=4).loss, step().loss
        assert torch.allclose(split, whole), (
            f"With accumulate=4 the loss is {split.item():.4f}; that of the whole batch is "
            f"{whole.item():.4f}."
        )

    def test_each_part_goes_back_before_the_next_is_read(self, impl):
        # Otherwise the graphs of all parts are in memory at once, which was to be spared.
        skip_if_unused(impl.train_step, "accumulate")
        model, gone_back = small_model(), []
        model.register_forward_pre_hook(
            lambda model, _: gone_back.append(model.head.weight.grad is not None)
        )
        batch = torch.randint(11, (2, 4, 8))
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        impl.train_step(model, optimizer, *batch, 1.0, accumulate=4)
        assert gone_back == [False, True, True, True], (
            "With accumulate=4 a part is read before the one before it has gone back: the graphs "
            "of several parts are in memory at once."
        )


@pytest.mark.door
@pytest.mark.exercise("train_step")
class TestBf16:
    def test_the_forward_pass_is_in_bfloat16_and_the_weights_are_not(self, step):
        rounded = step(bf16=True)
        dtypes = [logits.dtype for logits in rounded.passes]
        assert dtypes == [torch.bfloat16], (
            f"With bf16 the logits of the forward pass are {dtypes}; it should run under "
            "torch.autocast to bfloat16."
        )
        assert {p.dtype for p in rounded.model.parameters()} == {torch.float32}, (
            "The weights are rounded too; only the forward pass should be."
        )

    def test_the_loss_of_the_logits_is_taken_in_float32(self, step):
        rounded = step(bf16=True)
        logits, targets = rounded.passes[0].float().flatten(0, 1), rounded.batch[1].flatten()
        expected = F.cross_entropy(logits, targets)
        assert torch.allclose(rounded.loss.float(), expected, rtol=1e-5), (
            f"With bf16 the loss is {rounded.loss.item():.5f}, {rounded.loss.dtype}; of the same "
            f"logits as float32 it is {expected.item():.5f}."
        )
        assert rounded.loss.dtype == torch.float32, "With bf16 the loss is not float32."

    def test_the_step_is_nearly_the_same(self, step):
        exact, rounded = step(), step(bf16=True)
        off = (rounded.moved - exact.moved).norm() / exact.moved.norm()
        assert off < 0.05, (  # 8 bits
            f"With bf16 a step {compared(rounded.moved, exact.moved, 'in float32')}; it should be "
            "nearly the same."
        )


def assert_alike(rounded, exact, max_norm):
    off = (rounded.moved - exact.moved).norm() / exact.moved.norm()
    assert off < 0.02, (
        f"With a scaler and max_norm={max_norm:g} a step "
        f"{compared(rounded.moved, exact.moved, 'without')}. Gradients are unscaled before they "
        "are clipped, and the optimizer's step is the scaler's to take."
    )


@pytest.mark.door
@pytest.mark.exercise("train_step")
class TestScaler:
    def test_the_forward_pass_is_in_float16_and_the_weights_are_not(self, step):
        rounded = step(scaler=torch.amp.GradScaler("cpu"))
        dtypes = [logits.dtype for logits in rounded.passes]
        assert dtypes == [torch.float16], (
            f"With a scaler the logits of the forward pass are {dtypes}; it should run under "
            "torch.autocast to float16."
        )
        assert {p.dtype for p in rounded.model.parameters()} == {torch.float32}, (
            "The weights are rounded too; only the forward pass should be."
        )

    def test_the_loss_is_the_one_before_it_was_scaled(self, step):
        exact, rounded = step(), step(scaler=torch.amp.GradScaler("cpu"))
        assert torch.allclose(rounded.loss.float(), exact.loss, rtol=2e-3, atol=0), (  # 11 bits
            f"With a scaler the loss that is returned is {rounded.loss.item():.4f}; without it is "
            f"{exact.loss.item():.4f}."
        )
        assert rounded.loss.dtype == torch.float32, "With a scaler the loss is not float32."

    @pytest.mark.parametrize("max_norm", [0.1, 100.0])
    def test_gradients_are_clipped_as_what_they_are_and_not_as_scaled(self, step, max_norm):
        exact, rounded = step(max_norm), step(max_norm, scaler=torch.amp.GradScaler("cpu"))
        assert_alike(rounded, exact, max_norm)

    @pytest.mark.parametrize("max_norm", [0.1, 100.0])
    def test_it_scales_each_part_of_a_batch(self, step, max_norm):
        scaler = torch.amp.GradScaler("cpu")
        exact, rounded = step(max_norm), step(max_norm, accumulate=2, scaler=scaler)
        assert_alike(rounded, exact, max_norm)

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda model: make_optimizer(model, BRIEF),
            lambda model: AdamW(model.parameters()),
            lambda model: make_optimizer(model, dataclasses.replace(BRIEF, optimizer="muon")),
        ],
        ids=["fused AdamW", "our AdamW", "Muon"],
    )
    def test_a_step_that_overflows_is_left_out_and_the_next_is_not(self, impl, optimizer):
        skip_if_unused(impl.train_step, "scaler")
        model = small_model()
        optimizer, batch = optimizer(model), torch.randint(11, (2, 4, 8))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-30)
        before = weights(model)
        impl.train_step(model, optimizer, *batch, 1.0, scaler=scaler)
        assert weights(model).equal(before), (
            "A step whose scaled gradients overflow has moved the weights; the scaler would have "
            "left it out."
        )
        assert scaler.get_scale() == 2**10, (
            "After a step whose scaled gradients overflow the scale should be lowered, from 2**40 "
            f"to 2**10; it is 2**{math.log2(scaler.get_scale()):.0f}."
        )
        impl.train_step(model, optimizer, *batch, 1.0, scaler=scaler)
        assert weights(model).isfinite().all() and not weights(model).equal(before), (
            "The step after one that overflowed moves nothing, or makes weights inf or NaN."
        )


class TestTheReferenceStep:
    def test_parts_that_are_not_of_one_size_make_the_step_of_the_whole_too(self):
        batch, model, models, losses = torch.randint(11, (2, 5, 8)), small_model(), [], []
        for passes in (1, 2):
            models.append(copy.deepcopy(model))
            optimizer = torch.optim.SGD(models[-1].parameters(), 0.5)
            losses.append(train_step(models[-1], optimizer, *batch, 1.0, passes))
        torch.testing.assert_close(losses[0], losses[1])
        torch.testing.assert_close(weights(models[0]), weights(models[1]))


def begin():
    """A model with dropout, its optimizer, and the generator of its batches."""
    torch.manual_seed(1)
    model = small_model(dropout=0.2)
    return model, make_optimizer(model, BRIEF), torch.Generator().manual_seed(1)


class TestTheLoop:
    def test_counts_the_steps_done(self):
        model, optimizer, generator = begin()
        steps = training_steps(model, optimizer, TOKENS, BRIEF, generator, start=4)
        assert [step for step, _ in steps] == [5, 6]

    def test_each_step_takes_its_learning_rate_from_the_schedule(self):
        model, optimizer, generator = begin()
        rates = [
            {group["lr"] for group in optimizer.param_groups}
            for _ in training_steps(model, optimizer, TOKENS, BRIEF, generator)
        ]
        assert rates == [{warmup_cosine(step, 2, 6, 1e-2, 1e-3)} for step in range(6)]

    @pytest.mark.parametrize("stop", [1, 4])
    def test_a_resumed_run_ends_bit_for_bit_like_the_uninterrupted_one(self, stop):
        model, optimizer, generator = begin()
        for step, _ in training_steps(model, optimizer, TOKENS, BRIEF, generator):
            if step == stop:
                states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
                batches, dropout = generator.get_state(), torch.get_rng_state()
        resumed, optimizer, generator = begin()
        resumed.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
        generator.set_state(batches)
        torch.set_rng_state(dropout)
        for _ in training_steps(resumed, optimizer, TOKENS, BRIEF, generator, start=stop):
            pass
        assert weights(resumed).equal(weights(model))

    def test_a_text_that_repeats_itself_is_learned(self):
        config = TrainConfig(batch_size=8, max_steps=40, warmup_steps=5, max_lr=1e-2)
        tokens, model = torch.arange(400) % 11, small_model()
        for _ in training_steps(
            model, make_optimizer(model, config), tokens, config, torch.Generator()
        ):
            pass
        assert evaluate(model, tokens) < math.log(11) / 2

    def test_a_scaler_reaches_every_step(self):
        model, optimizer, generator = begin()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        for _ in training_steps(model, optimizer, TOKENS, BRIEF, generator, scaler=scaler):
            pass
        assert scaler.get_scale() == 2 ** (10 + BRIEF.max_steps // 2)

    @pytest.mark.parametrize("field", ["batch_size", "accumulate", "max_norm", "bf16"])
    def test_hands_every_setting_to_the_step(self, field, monkeypatch):
        seen = {}

        def spy(model, optimizer, inputs, targets, max_norm, accumulate, bf16, scaler):
            seen.update(batch_size=len(inputs), max_norm=max_norm, accumulate=accumulate, bf16=bf16)

        monkeypatch.setitem(training_steps.__globals__, "train_step", spy)
        model, optimizer, generator = begin()
        config = dataclasses.replace(BRIEF, batch_size=6, accumulate=3, max_norm=0.7)
        next(training_steps(model, optimizer, TOKENS, config, generator, bf16=True))
        assert seen[field] == {**vars(config), "bf16": True}[field]

    @pytest.mark.parametrize("kind", [torch.uint8, torch.int16])
    def test_tokens_of_a_small_type_train_the_same_model(self, kind):
        trained = []
        for tokens in (TOKENS, TOKENS.to(kind)):
            model, optimizer, generator = begin()
            for _ in training_steps(model, optimizer, tokens, BRIEF, generator):
                pass
            trained.append((weights(model), evaluate(model, tokens)))
        assert trained[0][0].equal(trained[1][0])
        assert trained[0][1] == trained[1][1]


def slow_evaluate(model, tokens):
    """One window after the other, summing the loss of every target."""
    total, T = 0.0, model.config.max_len
    for start in range(0, len(tokens) - 1, T):
        window = tokens[start : start + T + 1]
        logits = model(window[None, :-1])[0]
        total += F.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / (len(tokens) - 1)


class TestEvaluate:
    # 4 windows of 8 make a batch: a last window or a last batch that is whole, or nearly.
    @pytest.mark.parametrize("N", [2, 8, 9, 10, 32, 33, 34, 100])
    @torch.no_grad()
    def test_every_token_but_the_first_is_predicted_once(self, N):
        model, tokens = small_model(), torch.randint(11, (N,))
        model.embedding.token.weight.mul_(20)  # so that the losses of the tokens differ
        loss = evaluate(model, tokens, at_once=35)
        assert loss == pytest.approx(slow_evaluate(model, tokens), rel=1e-5)

    def test_no_pass_reads_more_windows_than_the_batch_size(self):
        model, shapes = small_model(), []
        model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
        evaluate(model, TOKENS[:50], at_once=24)
        assert shapes == [(3, 8), (3, 8), (1, 8)]

    def test_dropout_rests(self):
        model = small_model(dropout=0.5)
        assert evaluate(model.train(), TOKENS) == evaluate(model.eval(), TOKENS)

    @pytest.mark.parametrize("training", [True, False])
    def test_leaves_the_model_in_the_mode_it_was_in(self, training):
        model = small_model().train(training)
        evaluate(model, TOKENS)
        assert all(module.training == training for module in model.modules())

    def test_leaves_it_in_that_mode_when_it_fails(self):
        model = small_model().train()
        with pytest.raises(IndexError):
            evaluate(model, TOKENS + 1)  # there is no token 11
        assert all(module.training for module in model.modules())

    def test_builds_no_graph(self):
        model, graphs = small_model(), []
        model.register_forward_hook(lambda _, args, logits: graphs.append(logits.requires_grad))
        evaluate(model, TOKENS[:20])
        assert graphs == [False]

    def test_bfloat16_gives_nearly_the_same_loss(self):
        model = small_model()
        exact, rounded = evaluate(model, TOKENS), evaluate(model, TOKENS, bf16=True)
        assert exact != rounded, "bf16 changed nothing"
        assert rounded == pytest.approx(exact, rel=1e-2)


class TestTheReferenceOptimizers:
    @pytest.mark.parametrize("rate", [0.01, 0.002])
    def test_adamw_keeps_groups_apart_and_follows_their_learning_rates(self, rate):
        ends = []
        for optimizer_class in (AdamW, torch.optim.AdamW):
            torch.manual_seed(0)
            params = [nn.Parameter(torch.randn(4, 3)) for _ in range(4)]
            groups = [{"params": params[:2], "weight_decay": 0.5}, {"params": params[2:]}]
            optimizer = optimizer_class(groups, lr=0.1, weight_decay=0.0)
            optimizer.param_groups[1]["lr"] = rate
            ends.append(after_100_steps(optimizer, params))
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)

    def test_adamw_goes_on_from_its_saved_state(self):
        params = [nn.Parameter(torch.randn(4, 3)) for _ in range(4)]
        optimizer = AdamW(params)
        after_100_steps(optimizer, params)
        copies = copy.deepcopy(params)
        restored = AdamW(copies)
        restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert after_100_steps(restored, copies).equal(after_100_steps(optimizer, params))

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    @pytest.mark.parametrize("own, of_tables", [(None, 0.3), (0.7, 0.7), (0.0, 0.0)])
    def test_only_matrices_decay_and_tables_of_ngrams_as_they_should(
        self, optimizer, own, of_tables
    ):
        model = build(dataclasses.replace(SMALL, ngrams=5))
        config = dataclasses.replace(BRIEF, optimizer=optimizer, weight_decay=0.3, ngram_decay=own)
        decay = {
            id(p): group["weight_decay"]
            for group in make_optimizer(model, config).param_groups
            for p in group["params"]
        }
        for name, p in model.named_parameters():
            expected = of_tables if name.startswith("ngrams.") else 0.3 if p.dim() == 2 else 0.0
            assert decay[id(p)] == expected, name

    def test_the_optimizer_takes_the_recipe_s_betas(self):
        config = dataclasses.replace(BRIEF, betas=(0.8, 0.95))
        groups = make_optimizer(small_model(), config).param_groups
        assert [group["betas"] for group in groups] == [(0.8, 0.95)] * 2


class TestErrors:
    @pytest.mark.parametrize(
        "field, value",
        [
            *((name, 0) for name in ("batch_size", "accumulate", "max_steps", "max_lr")),
            ("warmup_steps", -1),
            ("min_lr", -1e-4),
            ("min_lr", 0.5),
            ("weight_decay", -0.1),
            ("ngram_decay", -0.1),
            ("decay_fraction", 1.1),
            ("accumulate", 5),
            *((name, 1.5) for name in ("batch_size", "accumulate", "max_steps", "warmup_steps")),
            *(
                (name, value)
                for name in (
                    *("max_lr", "min_lr", "max_norm", "weight_decay", "decay_fraction", "muon_lr"),
                    *("batch_size", "accumulate", "max_steps", "warmup_steps"),
                )
                for value in (math.nan, math.inf, -1.0, True, None)
            ),
        ],
    )
    def test_a_bad_setting_is_an_error_that_names_it(self, field, value):
        with pytest.raises(ValueError, match=f"^{field} is {value!r}; "):
            TrainConfig(**{field: value})

    @pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan, True])
    def test_a_bad_beta_is_named(self, beta):
        for take in (lambda betas: TrainConfig(betas=betas), lambda b: AdamW([TOKENS], betas=b)):
            with pytest.raises(ValueError, match=f"^betas is {beta}; it must be "):
                take((0.9, beta))

    def test_one_beta_is_one_too_few(self):
        with pytest.raises(ValueError, match=r"^betas is \(0.9,\); it must be two numbers$"):
            TrainConfig(betas=(0.9,))

    def test_a_learning_rate_that_would_climb_is_named_with_its_top(self):
        with pytest.raises(ValueError, match="^min_lr is 0.0001; .* max_lr, which is 1e-05$"):
            TrainConfig(max_lr=1e-5, min_lr=1e-4)

    @pytest.mark.parametrize("schedule", [warmup_cosine, warmup_stable_decay])
    @pytest.mark.parametrize(
        "name, recipe",
        [
            ("warmup_steps", (-1, 9, 1.0, 0.1)),
            ("max_steps", (2, 0, 1.0, 0.1)),
            ("max_lr", (2, 9, math.nan, 0.1)),
            ("min_lr", (2, 9, 1.0, 2.0)),
        ],
    )
    def test_a_schedule_refuses_what_the_config_refuses(self, schedule, name, recipe):
        with pytest.raises(ValueError, match=f"^{name} is "):
            schedule(0, *recipe)

    @pytest.mark.parametrize("name", ["lr", "eps", "weight_decay"])
    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
    def test_the_optimizer_refuses_what_would_ruin_the_weights(self, name, value):
        with pytest.raises(ValueError, match=f"^{name} is {value}; it must be "):
            AdamW([nn.Parameter(torch.zeros(2))], **{name: value})

    @pytest.mark.parametrize("batch", [get_batch, even_batch])
    @pytest.mark.parametrize("sizes, name", [((0, 8), "batch_size"), ((2, 0), "block_size")])
    def test_a_batch_of_nothing_is_an_error(self, batch, sizes, name):
        with pytest.raises(ValueError, match=f"^{name} is 0; it must be at least 1$"):
            batch(TOKENS, *sizes, torch.Generator() if batch is get_batch else 0)

    def test_tokens_in_rows_are_no_text(self):
        for read in (
            lambda tokens: get_batch(tokens, 2, 8, torch.Generator()),
            lambda tokens: even_batch(tokens, 2, 8, 0),
            lambda tokens: evaluate(small_model(), tokens),
        ):
            with pytest.raises(ValueError, match=r"^tokens is \(100, 3\); it must be \(N,\)$"):
                read(TOKENS.view(100, 3))

    def test_the_mean_loss_of_nothing_is_an_error(self):
        with pytest.raises(ValueError, match="^targets is empty"):
            cross_entropy(torch.zeros(0, 11), torch.zeros(0, dtype=torch.long))

    def test_parameters_that_were_read_already_are_an_error(self):
        params = small_model().parameters()
        list(params)
        with pytest.raises(ValueError, match="^params is empty; a generator"):
            clip_gradients(params, 1.0)

    @pytest.mark.parametrize("max_norm", [0, -1.0, math.nan])
    def test_a_length_that_gradients_cannot_have_is_an_error(self, max_norm):
        with pytest.raises(ValueError, match=f"^max_norm is {max_norm}; it must be above 0$"):
            clip_gradients(with_gradients(3), max_norm)

    @pytest.mark.parametrize("field", ["warmup_steps", "min_lr", "weight_decay"])
    def test_a_setting_that_may_be_zero_may(self, field):
        assert getattr(TrainConfig(**{field: 0}), field) == 0

    @pytest.mark.parametrize("N", [0, 3, 8])
    def test_a_text_too_short_for_a_batch_is_named_with_what_it_takes(self, N):
        with pytest.raises(ValueError, match=f"tokens has {N}; block_size 8 needs 9"):
            get_batch(torch.arange(N), 2, 8, torch.Generator())

    @pytest.mark.parametrize("N", [0, 1])
    def test_a_text_too_short_to_evaluate_is_an_error(self, N):
        with pytest.raises(ValueError, match=f"tokens has {N} "):
            evaluate(small_model(), TOKENS[:N])

    @pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 3, 1), (6,)])
    def test_targets_that_do_not_fit_the_logits_are_named_with_what_fits(self, shape):
        with pytest.raises(ValueError, match=r"targets are \[.*; logits need \[2, 3\]"):
            cross_entropy(torch.zeros(2, 3, 11), torch.zeros(shape, dtype=torch.long))

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 10, math.nan, True])
    def test_a_fraction_outside_0_to_1_is_named(self, fraction):
        with pytest.raises(ValueError, match=f"val_fraction is {fraction};"):
            split_corpus(TOKENS, fraction)

    def test_the_config_cannot_change_after_it_was_checked(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            BRIEF.accumulate = 5


class TestWarmupStableDecay:
    @pytest.mark.parametrize("step, expected", [(0, 0.1), (9, 1.0), (40, 1.0), (75, 0.5), (100, 0)])
    def test_rises_stays_and_falls(self, step, expected):
        assert warmup_stable_decay(step, 9, 100, 1.0, 0.0, 0.5) == pytest.approx(expected)
