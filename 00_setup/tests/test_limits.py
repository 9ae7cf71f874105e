"""The one place where numbers from outside are checked."""

import math

import numpy as np
import pytest

from tiny_transformer.setup.limits import check_number


@pytest.mark.parametrize(
    "value, bounds",
    [
        (0, dict(least=0)),
        (1.0, dict(above=0, most=1)),
        (0, dict(least=0, below=1)),
        (2**63 - 1, {}),
        (np.float32(0.5), dict(above=0)),
        (np.int64(3), dict(least=1)),
        (np.int64(3), dict(least=1, whole=True)),
        (0, dict(whole=True)),
    ],
)
def test_a_number_within_its_bounds_passes(value, bounds):
    check_number("x", value, **bounds)


@pytest.mark.parametrize(
    "value, bounds, sentence",
    [
        (-1, dict(least=0), "x is -1; it must be at least 0"),
        (0.0, dict(above=0, most=1), "x is 0.0; it must be above 0 and at most 1"),
        (1.5, dict(above=0, most=1), "x is 1.5; it must be above 0 and at most 1"),
        (1, dict(least=0, below=1), "x is 1; it must be at least 0 and below 1"),
        (math.inf, dict(above=0), "x is inf; it must be finite and above 0"),
        (math.nan, {}, "x is nan; it must be finite"),
        (2**63, dict(least=1), "x is 9223372036854775808; it must be below 2**63 and at least 1"),
        (2.0, dict(least=1, whole=True), "x is 2.0; it must be whole and at least 1"),
        (math.nan, dict(whole=True), "x is nan; it must be whole"),
        (2**63, dict(whole=True), "x is 9223372036854775808; it must be below 2**63"),
        (True, dict(least=0), "x is True; it must be a number and at least 0"),
        (None, dict(above=0), "x is None; it must be finite and above 0"),
        ("3", dict(least=1), "x is '3'; it must be finite and at least 1"),
    ],
)
def test_any_other_is_one_sentence_that_names_it(value, bounds, sentence):
    with pytest.raises(ValueError) as error:
        check_number("x", value, **bounds)
    assert str(error.value) == sentence


def test_a_number_of_many_digits_is_shortened():
    with pytest.raises(ValueError) as error:
        check_number("x", 10**400)
    assert len(str(error.value)) < 100
