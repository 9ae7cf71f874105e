"""Examples in docstrings, run on right and wrong implementations."""

from types import SimpleNamespace

import pytest
import torch

from tiny_transformer.setup import reference
from tiny_transformer.setup.grading.examples import alike, the_example_is_true


def impl(**changed):
    return SimpleNamespace(**{**vars(reference), **changed})


def test_the_reference_s_examples_are_true():
    the_example_is_true(impl(), "pick_scores")
    the_example_is_true(impl(), "Linear")


def test_a_wrong_answer_is_told_with_its_line():
    scaled = impl(pairwise_dots=lambda q, k: 2 * q @ k.transpose(-2, -1))
    told = (
        r"`pairwise_dots\(q, k\)` gives tensor\(\[\[ 6., 16., 6.\]\]\), where it should give "
        r"tensor\(\[\[3., 8., 3.\]\]\)"
    )
    with pytest.raises(AssertionError, match=told):
        the_example_is_true(scaled, "pairwise_dots")


def test_no_answer_is_told_too():
    with pytest.raises(AssertionError, match="gives nothing"):
        the_example_is_true(impl(fold_batch_time=lambda x: None), "fold_batch_time")


def test_what_right_code_prints_on_its_way_is_no_answer():
    def loud(q, k):
        print("q is", q)
        return reference.pairwise_dots(q, k)

    the_example_is_true(impl(pairwise_dots=loud), "pairwise_dots")
    with pytest.raises(AssertionError, match="gives q is"):
        the_example_is_true(impl(pairwise_dots=lambda q, k: 2 * loud(q, k)), "pairwise_dots")


@pytest.mark.parametrize(
    "got, want",
    [
        ("tensor([[4.0000]])", "tensor([[4.]])"),
        ("tensor([-0.0000, 0.6932])", "tensor([0.0000, 0.6931])"),
        ("[1, 2]\n", "[1, ...]"),
        (str(torch.zeros(2, 2)), "tensor([[0., 0.], [0., 0.]])"),
        ("0.49999999", "0.5"),
        ("nan", "nan"),
    ],
)
def test_right_answers_may_be_printed_otherwise(got, want):
    assert alike(got, want)


@pytest.mark.parametrize(
    "got, want",
    [
        ("tensor([[4]])", "tensor([[4.]])"),
        ("4", "5"),
        ("tensor([1., 2.])", "tensor([1., 2., 3.])"),
        ("0.51", "0.5"),
        ("[4.0]", "(4.0,)"),
        ("'1.0'", "1.0"),
    ],
)
def test_another_answer_is_told_apart(got, want):
    assert not alike(got, want)
