"""Numbers that come from outside, checked in one place and in one form of words."""

import math
import operator
import reprlib
from numbers import Integral, Real

LARGEST_SEED = 2**32 - 1  # NumPy's


def check_number(
    name: str,
    value: float,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """See that a number is finite and within its bounds; whole ones must fit into 64 bits.

    Raises:
        ValueError: "max_lr is inf; it must be finite and above 0".
    """
    bounds = [
        (word, bound, holds)
        for word, bound, holds in (
            ("at least", least, operator.ge),
            ("above", above, operator.gt),
            ("at most", most, operator.le),
            ("below", below, operator.lt),
        )
        if bound is not None
    ]
    whole = isinstance(value, Integral)
    finite = abs(value) < 2**63 if whole else isinstance(value, Real) and math.isfinite(value)
    if finite and all(holds(value, bound) for _, bound, holds in bounds):
        return
    asked = [f"{word} {bound}" for word, bound, _ in bounds]
    if not finite:
        asked.insert(0, "below 2**63" if whole else "finite")
    raise ValueError(f"{name} is {reprlib.repr(value)}; it must be {' and '.join(asked)}")
