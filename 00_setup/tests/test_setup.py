"""Module 00. `impl` is the reference in one run of each test and your exercises in the other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.sgd import sgd

from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.habits import HABITS, has_parameters, keeps_the_graph


@pytest.mark.exercise("add_position_bias")
class TestAddPositionBias:
    @pytest.mark.parametrize("B", [1, 2, 5])
    def test_every_sequence_gets_the_same_bias_at_the_same_position(self, impl, B):
        x, bias = torch.randn(B, 5, 3), torch.randn(5, 3)
        out = impl.add_position_bias(x, bias)
        for b in range(B):
            torch.testing.assert_close(out[b], x[b] + bias)

    @pytest.mark.parametrize("shape", [(), (3,), (1, 3), (5, 1), (2, 1, 3), (2, 5, 3), (4, 3)])
    def test_a_bias_of_any_other_shape_is_an_error(self, impl, shape):
        with pytest.raises(ValueError):
            impl.add_position_bias(torch.zeros(2, 5, 3), torch.ones(shape))

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.add_position_bias, torch.randn(2, 5, 3), torch.randn(5, 3))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "add_position_bias")


@pytest.mark.exercise("pairwise_dots")
class TestPairwiseDots:
    @pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
    def test_each_query_meets_each_key(self, impl, lead):
        q, k = torch.randn(*lead, 4, 8), torch.randn(*lead, 6, 8)
        expected = torch.einsum("...td,...sd->...ts", q, k)
        torch.testing.assert_close(impl.pairwise_dots(q, k), expected)

    def test_as_many_queries_as_keys(self, impl):
        q, k = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
        expected = torch.einsum("btd,bsd->bts", q, k)
        torch.testing.assert_close(impl.pairwise_dots(q, k), expected)

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.pairwise_dots, torch.randn(2, 4, 8), torch.randn(2, 6, 8))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "pairwise_dots")


@pytest.mark.exercise("fold_batch_time")
class TestFoldBatchTime:
    def test_row_b_times_T_plus_t_is_position_t_of_sequence_b(self, impl):
        x = torch.randn(2, 3, 4)
        folded = impl.fold_batch_time(x)
        assert folded.shape == (6, 4)
        for b in range(2):
            for t in range(3):
                torch.testing.assert_close(folded[b * 3 + t], x[b, t])

    def test_takes_one_sequence_of_one_position(self, impl):
        x = torch.randn(1, 1, 4)
        torch.testing.assert_close(impl.fold_batch_time(x), x[0])

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.fold_batch_time, torch.randn(2, 3, 4))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "fold_batch_time")


@pytest.mark.exercise("shift_targets")
class TestShiftTargets:
    @pytest.mark.parametrize("T", [5, 1])
    @pytest.mark.parametrize("B", [2, 1])
    def test_each_target_is_the_token_after_its_input(self, impl, B, T):
        tokens = torch.arange(B * (T + 1)).view(B, T + 1)
        try:
            result = impl.shift_targets(tokens)
        except ValueError:
            told = f"tokens ({B}, {T + 1}) were refused; 2 columns are enough, and any rows."
            raise AssertionError(told) from None
        inputs, targets = result
        torch.testing.assert_close(inputs, tokens[:, :T])
        torch.testing.assert_close(targets, inputs + 1)

    @pytest.mark.parametrize("columns", [1, 0])
    @pytest.mark.parametrize("B", [2, 1])
    def test_fewer_than_two_columns_have_no_target(self, impl, B, columns):
        with pytest.raises(ValueError):
            impl.shift_targets(torch.zeros(B, columns, dtype=torch.long))

    @pytest.mark.parametrize("habit", [habit for habit in HABITS if habit is not keeps_the_graph])
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.shift_targets, torch.arange(12).view(2, 6))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "shift_targets")


@pytest.mark.exercise("pick_scores")
class TestPickScores:
    def test_cross_entropy_is_logsumexp_minus_the_picked_score(self, impl):
        logits, targets = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
        picked = impl.pick_scores(logits, targets)
        assert picked.shape == (3, 5)
        expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        torch.testing.assert_close((logits.logsumexp(-1) - picked).flatten(), expected)

    @pytest.mark.parametrize("B, T", [(1, 5), (3, 1), (1, 1)])
    def test_one_sequence_or_one_position_keeps_its_axis(self, impl, B, T):
        logits, targets = torch.randn(B, T, 7), torch.randint(7, (B, T))
        shape = tuple(impl.pick_scores(logits, targets).shape)
        assert shape == (B, T), (
            f"targets {B, T} gave scores {shape}: an axis of size 1 is an axis too. A bare "
            "squeeze() takes all of them; squeeze(-1) takes the last alone."
            if shape == tuple(n for n in (B, T) if n > 1)
            else f"targets {B, T} gave scores {shape}; they should be {B, T}."
        )

    def test_scores_come_as_they_are(self, impl):
        logits = torch.tensor([[[1.0, 2.0, 30.0]]])
        for token in range(3):
            assert impl.pick_scores(logits, torch.tensor([[token]])) == logits[0, 0, token]

    def test_infinite_scores_beside_it_change_nothing(self, impl):
        logits = torch.randn(1, 2, 4)
        targets, plain = torch.tensor([[2, 0]]), logits.clone()
        torch.testing.assert_close(
            impl.pick_scores(plain, targets), logits[0, [0, 1], [2, 0]][None]
        )
        logits[0, :, 1] = -torch.inf
        picked = impl.pick_scores(logits, targets)
        assert picked.isfinite().all(), (
            f"tokens beside the targets have the score -inf, and the scores picked are "
            f"{picked.flatten().tolist()}: 0 times -inf is nan. Read the target's score from its "
            "place; then the others are not in the sum."
        )

    def test_the_gradient_reaches_the_picked_score_and_no_other(self, impl):
        logits = torch.zeros(1, 1, 4, requires_grad=True)
        picked = impl.pick_scores(logits, torch.tensor([[2]]))
        assert picked.requires_grad, (
            "no gradient comes through the picked score: the graph is cut (detach, .item(), .data, "
            "numpy, no_grad do that)."
        )
        picked.sum().backward()
        assert logits.grad.tolist() == [[[0.0, 0.0, 1.0, 0.0]]], (
            "token 2 is the target, and the gradients of the four scores are "
            f"{logits.grad.flatten().tolist()}; they should be 0, 0, 1, 0."
        )

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.pick_scores, torch.randn(2, 3, 4), torch.randint(4, (2, 3)))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "pick_scores")


@pytest.mark.exercise("Linear")
class TestLinear:
    def test_it_has_the_parameters_of_nn_linear(self, impl):
        has_parameters(impl.Linear(6, 3), {"weight": (3, 6), "bias": (3,)})

    @pytest.mark.parametrize("lead", [(2, 5), (), (4,), (2, 3, 4)])
    def test_takes_any_axes_before_the_last(self, impl, lead):
        layer, x = impl.Linear(6, 3), torch.randn(*lead, 6)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))

    def test_a_saved_torch_layer_loads_and_computes_the_same(self, impl):
        theirs, ours = nn.Linear(6, 3), impl.Linear(6, 3)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 5, 6)
        torch.testing.assert_close(ours(x), theirs(x))

    def test_gradients_agree_with_torch(self, impl):
        theirs, ours = nn.Linear(6, 3), impl.Linear(6, 3)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 5, 6)
        torch.testing.assert_close(ours(x), theirs(x))
        for layer in (ours, theirs):
            layer(x).square().sum().backward()
        for name, parameter in theirs.named_parameters():
            got = getattr(ours, name).grad
            assert got is not None, (
                f"no gradient reaches {name}: the graph is cut (detach, .item(), .data, numpy, "
                "no_grad do that)."
            )
            assert torch.allclose(got, parameter.grad, rtol=1e-4, atol=1e-5), (
                f"the output is right, and the gradient of {name} is not: some of what the output "
                "depends on is cut from the graph."
            )

    @pytest.mark.parametrize("d_in", [16, 400])
    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_parameters_start_uniform_within_the_bound(self, impl, d_in, name):
        values = getattr(impl.Linear(d_in, 2000), name)
        bound, low, high = d_in**-0.5, values.min().item(), values.max().item()
        told = (
            f"with d_in={d_in} the numbers of {name} start between {low:.3f} and {high:.3f}; they "
            f"should be uniform between -1 / sqrt(d_in) = {-bound:.3f} and {bound:.3f}"
        )
        assert -bound <= low and high <= bound, f"{told}."
        assert low < -0.98 * bound and high > 0.98 * bound, f"{told}."  # one in 2000 is beyond
        # a uniform spread is bound / sqrt(3); 2000 draws hit it within 5% (five sigmas)
        spread = (
            f"{told}, whose standard deviation is {bound / 3**0.5:.3f}, not {values.std():.3f}."
        )
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), spread
        assert values.mean().abs() < 0.1 * bound, f"{told}, around 0."

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.Linear(6, 3), torch.randn(2, 5, 6))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "Linear")


@pytest.mark.exercise("sgd_step")
class TestSgdStep:
    def test_each_parameter_moves_against_its_gradient(self, impl):
        params = [torch.tensor([3.0, 2.0], requires_grad=True), torch.ones(2, requires_grad=True)]
        ((params[0] ** 2).sum() - params[1].sum()).backward()
        impl.sgd_step(params, lr=0.25)
        assert params[0].tolist() != [3.0, 2.0], (
            "the parameters have the numbers that they had before. The step must write into the "
            "very tensors it was given; `param = param - ...` makes a new one."
        )
        assert [param.tolist() for param in params] == [[1.5, 1.0], [1.25, 1.25]]

    def test_agrees_with_torch_over_ten_steps(self, impl):
        torch.manual_seed(1)
        ours, x = nn.Linear(4, 3), torch.randn(8, 4)
        theirs = nn.Linear(4, 3)
        theirs.load_state_dict(ours.state_dict())
        params = list(theirs.parameters())
        plain = {"weight_decay": 0, "momentum": 0, "dampening": 0}
        for _ in range(10):
            for layer in (ours, theirs):
                layer.zero_grad()
                layer(x).square().mean().backward()
            impl.sgd_step(list(ours.parameters()), lr=0.1)
            with torch.no_grad():  # what torch.optim.SGD does, which would import the compiler
                grads = [param.grad for param in params]
                sgd(params, grads, [None, None], lr=0.1, nesterov=False, maximize=False, **plain)
        torch.testing.assert_close(ours.weight, theirs.weight)
        torch.testing.assert_close(ours.bias, theirs.bias)

    def test_a_parameter_without_gradient_stays(self, impl):
        used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        alone = torch.ones(2, requires_grad=True)
        (used + alone).sum().backward()
        impl.sgd_step([alone], lr=0.5)
        assert alone.tolist() == [0.5, 0.5]
        impl.sgd_step([unused, used], lr=0.5)
        assert unused.tolist() == [1.0, 1.0], "a parameter whose gradient is None has moved."
        assert used.tolist() == [0.5, 0.5], (
            "of two parameters the first has None for a gradient, and the second did not move: "
            "None skips one parameter, those after it still take their step."
        )

    def test_takes_any_iterable_once(self, impl):
        layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
        before, befores = layer.weight.detach().clone(), other.weight.detach().clone()
        (layer(torch.ones(1, 2)) + other(torch.ones(1, 2))).sum().backward()
        impl.sgd_step(list(other.parameters()), lr=0.5)
        torch.testing.assert_close(other.weight, befores - 0.5)
        impl.sgd_step(layer.parameters(), lr=0.5)
        assert not torch.equal(layer.weight, before), (
            "given model.parameters(), the step moves nothing. That is a generator, which can be "
            "walked through once: a second loop over it finds it empty."
        )
        torch.testing.assert_close(layer.weight, before - 0.5)

    def test_gradients_are_left_as_they_are(self, impl):
        param = torch.ones(2, requires_grad=True)
        param.sum().backward()
        impl.sgd_step([param], lr=0.5)
        assert param.grad is not None and param.grad.tolist() == [1.0, 1.0], (
            "the step has changed the gradient itself. It should leave it as it is: whoever calls "
            "the step decides when to reset it."
        )

    def test_returns_nothing(self, impl):
        assert impl.sgd_step([torch.ones(2, requires_grad=True)], lr=0.5) is None

    def test_a_stepped_parameter_can_still_learn(self, impl):
        param = torch.ones(2, requires_grad=True)
        param.sum().backward()
        impl.sgd_step([param], lr=0.5)
        assert param.is_leaf and param.requires_grad, (
            "after the step the parameter has requires_grad "
            f"{param.requires_grad} and is_leaf {param.is_leaf}; both should stay True, or no "
            "second gradient comes: step under no_grad, and write into the tensor alone."
        )

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "sgd_step")
