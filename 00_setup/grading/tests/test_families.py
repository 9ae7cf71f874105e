"""What a learner is told about a wrong answer that is in no catalog."""

import pytest
import torch

from tiny_transformer.setup.grading.families import explain

SIZES = {"B": 2, "T": 5, "S": 7, "n_heads": 4, "d_head": 8, "d_model": 32}
HEADS = "the axes n_heads and d_head"
X = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
SQUARE = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
WEIGHTS = SQUARE.softmax(dim=-1)


def test_the_right_answer_has_no_explanation():
    assert explain(X, X + 1e-8, SIZES) is None


@pytest.mark.parametrize(
    "got, want, reason",
    [
        ((2, 5, 4, 8), (2, 5, 32), f"{HEADS} were not folded into the axis d_model"),
        ((2, 4, 5, 8), (2, 5, 32), f"{HEADS} were not folded into the axis d_model"),
        ((2, 5, 32), (2, 4, 5, 8), f"the axis d_model was not split into {HEADS}"),
        ((2, 5, 4, 8), (2, 4, 5, 8), "the axes T and n_heads are swapped"),
        ((8, 2, 4, 5), (2, 4, 5, 8), "the right sizes in another order"),
        ((2, 7), (2, 5, 7), "the axis T is missing; was it summed, averaged or indexed away?"),
        ((2, 5, 1), (2, 5), "the axis of size 1 should not be there any more"),
        ((2, 1, 7), (2, 5, 7), "the axis T was reduced to size 1"),
        ((2, 4), (2, 5), "axis T has size 4, one too few"),
        ((2, 5), (), "numbers along 2 axes came, where a single number should"),
        ((), (2, 5, 7), "a single number came, where numbers along 3 axes should"),
        ((2, 6), (2, 5), "axis T has size 6, one too many"),
        ((2, 9), (2, 8), "axis d_head has size 9, one too many"),
        ((2, 10), (2, 9), "axis 1 has size 10, one too many"),
    ],
)
def test_a_wrong_shape_is_explained_in_named_dimensions(got, want, reason):
    told = explain(torch.zeros(got), torch.zeros(want), SIZES)
    assert told.startswith("returned (") and told.endswith(f": {reason}.")


def test_sizes_that_are_exchanged_are_no_swapped_axes_unless_the_numbers_are():
    told = explain(X.view(5, 2, 32), X, SIZES)
    assert "axes 0 and 1 have each other's size" in told and "swapped" not in told


def test_both_shapes_are_read_aloud():
    told = explain(torch.zeros(2, 4, 5, 8), torch.zeros(2, 5, 32), SIZES)
    assert "(B=2, n_heads=4, T=5, d_head=8); expected (B=2, T=5, d_model=32)" in told


@pytest.mark.parametrize(
    "got, told",
    [
        (None, "returned None; expected a tensor. Is a `return` missing?"),
        ((X, X), "returned (a tensor, a tensor); expected a tensor."),
        (X.double(), "returned torch.float64; expected torch.float32 (the right values)."),
        (X / X * torch.nan, "320 of 320 numbers are NaN"),
        (torch.full_like(X, 3.0), "every number is 3: nothing of the input has come through."),
        (-X, "the right numbers with the wrong sign."),
        (X * 8**0.5, "every number is 2.828 (√d_head) times what it should be."),
        (X / 32, "every number is 0.03125 (1 / d_model) times what it should be."),
        (X / 10, "every number is 0.1 (1 / (B × T)) times what it should be."),
        (X / 0.6931472, "(1 / ln 2) times"),
        (X + 0.5, "every number is off by the same +0.5."),
        (X.softmax(-1), "its softmax: probabilities where scores are expected."),
        (X.log_softmax(-1), "its log-softmax"),
        (X.exp(), "its exponential"),
        (X.square(), "its square: a root is missing"),
        (X.roll(1, 1), "off by one: along T every number stands one place too late."),
        (X.roll(-1, 1), "off by one: along T every number stands one place too early."),
        (X.flip(1), "the right numbers, but T runs backwards."),
        (X.roll(16, 2), "along d_model the second half stands before the first."),
        (X.mT.reshape(2, 5, 32), "the right numbers in the wrong places"),
        (X - X.mean(-1, keepdim=True), "each row is right up to an offset of its own"),
        (X / X.norm(dim=-1, keepdim=True), "each row is right up to a factor of its own"),
        (X.index_fill(1, torch.tensor([4]), 9.0), "64 of 320 numbers are wrong, all of them at T"),
        (X + X.roll(1, 0), "320 of 320 numbers are wrong; at [0, 0, 0] you have"),
    ],
)
def test_a_wrong_value_is_told_by_its_family(got, told):
    assert told in explain(got, X, SIZES)


@pytest.mark.parametrize(
    "got, want, told",
    [
        (SQUARE.mT, SQUARE, "it is transposed: axes 0 and 1 have changed places."),
        (SQUARE, WEIGHTS, "scores where probabilities are expected: the softmax is missing."),
        (torch.rand(3, 4).softmax(0), torch.rand(3, 4).softmax(1), "sums to 1 along axis 0"),
        (SQUARE.triu(), SQUARE, "15 of 36 numbers are wrong, all of them below the diagonal"),
        ((X, -X), (X, X), "the right numbers with the wrong sign. (result 2 of 2)"),
        ("no", "yes", "returned 'no'; expected 'yes'."),
        ([1, 2], [1], "returned [1, 2]; expected [1]."),
        ([X, 2], [X, 1], "returned 2; expected 1."),
        (([1], [2]), (X, X), "returned (a list, a list); expected (a tensor, a tensor)."),
        ({"it repeats": False}, {"it repeats": True}, "this should hold: it repeats."),
        ({"p = 1": "no"}, {"p = 1": "yes"}, "for p = 1: returned 'no'; expected 'yes'."),
    ],
)
def test_a_wrong_answer_of_another_kind(got, want, told):
    assert told in explain(got, want, {})


@pytest.mark.parametrize(
    "got, told", [(7.5, "it is 5 (T) times"), (4.0, "you have 4, expected 1.5")]
)
def test_a_single_number_is_a_multiple_only_by_a_factor_with_a_name(got, told):
    assert told in explain(torch.tensor(got), torch.tensor(1.5), SIZES)


def test_a_row_of_its_own_is_named_where_the_future_leaks():
    told = explain(SQUARE, SQUARE.tril(), {})
    assert "all of them above the diagonal" in told


def test_two_numbers_are_no_function_of_the_right_ones():
    assert "one minus" not in explain(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), {})
    assert "times what" not in explain(torch.tensor([0.0, 3e-41]), torch.tensor([0.0, 1.0]), {})


def test_every_second_number_is_told_by_its_parity():
    wrong = X.clone()
    wrong[..., 1::2] += torch.arange(16)
    assert "all of them at odd places along d_model" in explain(wrong, X, SIZES)
