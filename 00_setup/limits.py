"""Numbers that come from outside, checked in one place and in one form of words."""

import math
import operator
import reprlib
from numbers import Integral, Real

LARGEST_SEED = 2**32 - 1  # NumPy's
LARGEST_FLOAT = 1e38  # about that of float32


def check_number(
    name: str,
    value: float,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """See that a number is finite and within its bounds; whole ones must fit into 64 bits.

    `whole` asks for one of those. True and False are no numbers, though Python counts with them.

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
    kind = kind_asked(value, whole)
    if not kind and all(holds(value, bound) for _, bound, holds in bounds):
        return
    asked = kind + [f"{word} {bound}" for word, bound, _ in bounds]
    raise ValueError(f"{name} is {reprlib.repr(value)}; it must be {' and '.join(asked)}")


def kind_asked(value: float, whole: bool) -> list[str]:
    """What a value would have to be before its bounds are looked at; nothing if it is that."""
    if isinstance(value, bool):
        return ["a number"]
    if isinstance(value, Integral):
        return [] if abs(value) < 2**63 else ["below 2**63"]
    if whole:
        return ["whole"]
    return [] if isinstance(value, Real) and math.isfinite(value) else ["finite"]
