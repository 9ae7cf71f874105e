"""Says something true about a wrong answer that is in no catalog, by the family it belongs to.

`explain` compares an answer with the right one: what kind of thing it is, its shape in named
dimensions, its dtype, and then what could have turned the right numbers into these. Of a dict of
claims the first that does not hold is named.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Sizes = dict[str, int]  # {"B": 2, "T": 5, "d_model": 32}: how an axis is called, by its size

MAPS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("its softmax: probabilities where scores are expected", lambda x: x.softmax(dim=-1)),
    ("its log-softmax, where the scores themselves are expected", lambda x: x.log_softmax(dim=-1)),
    ("its logarithm", torch.log),
    ("its exponential", torch.exp),
    ("its square: a root is missing", torch.square),
    ("its square root", torch.sqrt),
    ("one minus it", lambda x: 1 - x),
    ("one over it", torch.reciprocal),
]


class Named(str):
    """In the place of a thing that is told by the name of its class alone."""

    __repr__ = str.__str__


def explain(got: Any, want: Any, sizes: Sizes) -> str | None:
    """What is wrong with `got`, or None if it is `want`. Both may be nested lists and tuples."""
    if kind(got) == kind(want) == "a value":
        return None if got == want else f"returned {got!r}; expected {want!r}."
    if kind(got) != kind(want):
        forgotten = " Is a `return` missing?" if "None" in kind(got) else ""
        return f"returned {called(got)}; expected {called(want)}.{forgotten}"
    if isinstance(want, list | tuple):
        for i, (ours, theirs) in enumerate(zip(got, want, strict=True)):
            if problem := explain(ours, theirs, sizes):
                which = f" (result {i + 1} of {len(want)})" if isinstance(want, tuple) else ""
                return problem + which
        return None
    if isinstance(want, dict):
        for claim, theirs in want.items():
            if theirs is True and got[claim] is not True:
                return f"this should hold: {claim}."
            if problem := explain(got[claim], theirs, sizes):
                return f"for {claim}: {problem}"
        return None
    if got.shape != want.shape:
        return explain_shape(got, want, sizes)
    return explain_dtype(got, want) or explain_values(got, want, sizes)


def kind(value: Any) -> str:
    if isinstance(value, list | tuple) and {*map(kind, value)} - {"a value"}:
        left, right = "()" if isinstance(value, tuple) else "[]"
        return f"{left}{', '.join(map(kind, value))}{right}"
    if isinstance(value, dict):
        return "facts"
    return "None" if value is None else "a tensor" if isinstance(value, Tensor) else "a value"


def called(value: Any) -> str:
    """What kind of thing it is, where that alone is wrong."""
    if isinstance(value, tuple) and 0 < len(value) <= 4:
        return f"({', '.join(map(called, value))})"
    if kind(value) != "a value":
        return kind(value)
    name = value if isinstance(value, Named) else type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def explain_shape(got: Tensor, want: Tensor, sizes: Sizes) -> str:
    message = f"returned {named(got.shape, sizes)}; expected {named(want.shape, sizes)}"
    reason = other_order(got, want, sizes) or shape_reason(list(got.shape), list(want.shape), sizes)
    return f"{message}: {reason}." if reason else f"{message}."


def other_order(got: Tensor, want: Tensor, sizes: Sizes) -> str | None:
    """Of the right sizes in another order: whether the axes were moved, or have other numbers."""
    if sorted(got.shape) != sorted(want.shape):
        return None
    moved = [i for i in range(want.dim()) if got.size(i) != want.size(i)]
    if len(moved) > 2:
        return "the right sizes in another order"
    names = [label(got.size(i), sizes) or f"of size {got.size(i)}" for i in moved]
    if same(got.transpose(*moved), want):
        return f"the axes {names[0]} and {names[1]} are swapped"
    return (
        f"axes {moved[0]} and {moved[1]} have each other's size, and to swap them would not give "
        "the right numbers"
    )


def shape_reason(got: list[int], want: list[int], sizes: Sizes) -> str | None:
    def name(size: int) -> str:
        return label(size, sizes) or f"of size {size}"

    def names(pair: list[int]) -> str:
        return f"the axes {name(pair[0])} and {name(pair[1])}"

    lost, extra = difference(want, got), difference(got, want)
    if not want or not got:
        return f"{axes_of(got)} came, where {axes_of(want)} should"
    if len(lost) == 1 and len(extra) == 2 and math.prod(extra) == lost[0]:
        return f"{names(extra)} were not folded into the axis {name(lost[0])}"
    if len(lost) == 2 and len(extra) == 1 and math.prod(lost) == extra[0]:
        return f"the axis {name(extra[0])} was not split into {names(lost)}"
    if not extra:
        return f"the axis {name(lost[0])} is missing; was it summed, averaged or indexed away?"
    if not lost:
        return f"the axis {name(extra[0])} should not be there any more"
    if len(lost) == len(extra) == 1 and len(got) == len(want):
        if extra[0] == 1:
            return f"the axis {name(lost[0])} was reduced to size 1"
        short = {-1: ", one too few", 1: ", one too many"}.get(extra[0] - lost[0], "")
        places = [i for i in range(len(want)) if got[i] != want[i]]
        if len(places) > 1:
            return f"there is an axis of size {extra[0]}, and none {name(lost[0])}"
        axis = label(lost[0], sizes) or places[0]
        return f"axis {axis} has size {extra[0]}{short or f', not {lost[0]}'}"
    return None


def axes_of(shape: list[int]) -> str:
    axes = "an axis" if len(shape) == 1 else f"{len(shape)} axes"
    return f"numbers along {axes}" if shape else "a single number"


def difference(a: list[int], b: list[int]) -> list[int]:
    """The sizes of `a` that `b` has not, as often as they are missing."""
    rest = list(b)
    return [size for size in a if size not in rest or rest.remove(size)]


def named(shape: torch.Size, sizes: Sizes) -> str:
    axes = (f"{name}={n}" if (name := label(n, sizes)) else str(n) for n in shape)
    return f"({', '.join(axes)})"


def label(size: int, sizes: Sizes) -> str | None:
    return next((name for name, n in sizes.items() if n == size), None)


def explain_dtype(got: Tensor, want: Tensor) -> str | None:
    if got.dtype == want.dtype:
        return None
    verdict = "the right values" if same(got, want) else "wrong values besides"
    return f"returned {got.dtype}; expected {want.dtype} ({verdict})."


def explain_closeness(got: Any, want: Any) -> str | None:
    """Numbers that are right but for more than rounding."""
    if not isinstance(got, Tensor) or not isinstance(want, Tensor) or got.shape != want.shape:
        return None
    if not got.is_floating_point() or torch.finfo(got.dtype).bits < 32:
        return None
    if torch.allclose(got.double(), want.double(), rtol=1.3e-6, atol=1e-5, equal_nan=True):
        return None
    off = (got.double() - want.double()).abs().max().item()
    return f"nearly right: no number is off by more than {off:.1e}, but rounding is less than that."


def explain_values(got: Tensor, want: Tensor, sizes: Sizes) -> str | None:
    if same(got, want):
        return None
    if got.isnan().sum() > want.isnan().sum():
        return (
            f"{int(got.isnan().sum())} of {got.numel()} numbers are NaN: look for inf - inf, "
            "0 / 0, ln 0, a softmax over nothing but -inf, or places of torch.empty that were "
            "never filled."
        )
    a, b = got.double(), want.double()
    if a.numel() > 2 and (a == a.flatten()[0]).all() and b.unique().numel() > 1:
        return f"every number is {a.flatten()[0]:.4g}: nothing of the input has come through."
    return (
        by_factor(a, b, sizes)
        or by_map(a, b)
        or by_place(a, b, sizes)
        or by_axis(a, b, sizes)
        or by_region(a, b, sizes)
    )


def by_factor(got: Tensor, want: Tensor, sizes: Sizes) -> str | None:
    """One factor or one offset for all."""
    finite = want.isfinite() & got.isfinite()
    a, b = got[finite], want[finite]
    factor = (a @ b / (b @ b)).item()
    if b[b != 0].unique().numel() < 2:  # of one number anything is a multiple
        name = meaning(factor, sizes)
        multiple = name and same(a, b * factor)
        return f"it is {factor:.4g}{name} times what it should be." if multiple else None
    if factor and same(got, want * factor):
        if same(got, -want):
            return "the right numbers with the wrong sign."
        return f"every number is {factor:.4g}{meaning(factor, sizes)} times what it should be."
    offset = (a - b).mean().item()
    if same(got, want + offset):
        return f"every number is off by the same {offset:+.4g}."
    return None


def meaning(factor: float, sizes: Sizes) -> str:
    """How a factor is probably called: d_k, 1 / √d_k, B × T."""
    constants = {"ln 2": math.log(2), "√2": math.sqrt(2)}
    for name, n in sizes.items():
        constants |= {
            name: n,
            f"√{name}": math.sqrt(n),
            f"{name} / ({name} - 1)": n / max(n - 1, 1),
        }
    for (a, m), (b, n) in itertools.combinations(sizes.items(), 2):
        constants[f"{a} × {b}"] = m * n
    names = [name for name, c in constants.items() if math.isclose(factor, c, rel_tol=1e-4)]
    names += [
        f"1 / ({name})" if name.count(" ") > 1 else f"1 / {name}"
        for name, c in constants.items()
        if math.isclose(factor * c, 1, rel_tol=1e-4)
    ]
    return f" ({names[0]})" if names else ""


def by_map(got: Tensor, want: Tensor) -> str | None:
    """A known function of all of them."""
    if want.unique().numel() < 3:  # one number or two are a function of the right ones by chance
        return None
    for words, function in MAPS:
        if same(got, function(want)):
            return f"in place of the right result you return {words}."
    if same(want, got.softmax(dim=-1)):
        return "these are scores where probabilities are expected: the softmax is missing."
    return None


def by_place(got: Tensor, want: Tensor, sizes: Sizes) -> str | None:
    """The right numbers in the wrong places."""
    for i, j in itertools.combinations(range(want.dim()), 2):
        if want.size(i) == want.size(j) and same(got, want.transpose(i, j)):
            return f"it is transposed: axes {i} and {j} have changed places."
    for i, n in enumerate(want.shape):
        axis = label(n, sizes) or f"axis {i}"
        if n > 1 and same(got, want.flip(i)):
            return f"the right numbers, but {axis} runs backwards."
        if n > 2 and same(got, want.roll(n // 2, i)) and n % 2 == 0:
            return f"the right numbers, but along {axis} the second half stands before the first."
        if n > 2 and same(got.narrow(i, 1, n - 1), want.narrow(i, 0, n - 1)):
            return f"off by one: along {axis} every number stands one place too late."
        if n > 2 and same(got.narrow(i, 0, n - 1), want.narrow(i, 1, n - 1)):
            return f"off by one: along {axis} every number stands one place too early."
    if same(got.flatten().sort().values, want.flatten().sort().values):
        return (
            "the right numbers in the wrong places: ask of each view, reshape, transpose, stack "
            "and cat in which order it lays the numbers."
        )
    return None


def by_axis(got: Tensor, want: Tensor, sizes: Sizes) -> str | None:
    """Normalized along the wrong axis, or by something of its own for each row."""
    ones = [i for i in range(want.dim()) if same(want.sum(i), torch.ones(()))]
    for i in range(want.dim()):
        if ones and i not in ones and same(got.sum(i), torch.ones(())):
            axis = label(want.size(i), sizes) or f"axis {i}"
            right = label(want.size(ones[0]), sizes) or f"axis {ones[0]}"
            return f"it sums to 1 along {axis}; it should along {right}."
    if want.dim() and want.size(-1) > 2:
        ratio, gap = got / want, got - want
        if same(ratio, ratio[..., :1].expand_as(ratio)):
            return (
                "each row is right up to a factor of its own: look at what each is divided by, or "
                "multiplied."
            )
        if same(gap, gap[..., :1].expand_as(gap)):
            return "each row is right up to an offset of its own: a mean or maximum, perhaps."
    return None


def by_region(got: Tensor, want: Tensor, sizes: Sizes) -> str:
    """Nothing fits all of them: say which numbers are wrong."""
    wrong = ~torch.isclose(got, want, rtol=1e-4, atol=1e-6, equal_nan=True)
    count = f"{int(wrong.sum())} of {wrong.numel()} numbers are wrong"
    if want.numel() > 1 and (off := (got - want).abs().max()) < 0.01 * want.abs().max():
        count += f", though none by more than {off:.1e}"
    where = tuple(wrong.nonzero()[0].tolist())
    example = f"at {list(where)} you have {got[where]:.4g}, expected {want[where]:.4g}"
    if not want.dim():
        return f"you have {got:.4g}, expected {want:.4g}."
    if wrong.all():
        return f"{count}; {example}."
    if want.dim() > 1 and want.size(-1) == want.size(-2):
        for words, part in (
            ("above", wrong.triu(1)),
            ("on", diagonal(wrong)),
            ("below", wrong.tril(-1)),
        ):
            if same(part, wrong):
                return f"{count}, all of them {words} the diagonal; {example}."
    for i, n in enumerate(want.shape):
        bad = wrong.movedim(i, 0).reshape(n, -1).any(1).nonzero().flatten().tolist()
        axis = label(n, sizes) or f"axis {i}"
        if len(bad) < n and len(bad) <= 6:
            return f"{count}, all of them at {axis} = {', '.join(map(str, bad))}; {example}."
        if len({place % 2 for place in bad}) == 1:
            parity = "odd" if bad[0] % 2 else "even"
            return f"{count}, all of them at {parity} places along {axis}; {example}."
    return f"{count}; {example}."


def diagonal(x: Tensor) -> Tensor:
    return x & torch.eye(x.size(-1), dtype=torch.bool)
