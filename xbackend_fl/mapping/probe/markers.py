"""Values that stand for something else: a zero that pads, a -1 or -999 that says "missing", an id that is no word.

A model compares data with them, and no drawn number is ever equal to one: a branch that no probe takes would be the same in any two
models. So some data holds the usual ones, in single values, in tails and in whole examples, and those that the graph names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Node, Port, Property, Schema, has
from xbackend_fl.canonical.row import OPAQUE

Array = NDArray[Any]

_NO_BOUND = 1e30
"""Bounds that are larger are those of the dtype: no data is."""

_MAX = 12
"""How many values of a graph its draws hold."""


@dataclass(frozen=True, order=True)
class Compared:
    """A number that a graph compares an input with.

    Attributes:
        number: The number.
        ordering: Whether it is a bound; otherwise data is equal to it or not.
    """

    number: float
    ordering: bool

    def shown_by(self, data: Iterable[Array]) -> bool:
        """Whether some data lies on either side of the bound, or is equal to the number and is not."""
        sides: set[bool] = set()
        for array in data:
            number = array.dtype.type(self.number) if array.dtype.kind == "f" else self.number
            taken = array > number if self.ordering else array == number
            below = array < number if self.ordering else ~taken
            sides |= {side for side, found in ((True, taken), (False, below)) if found.any()}
        return len(sides) == 2

    def __str__(self) -> str:
        return f"{'bounded by' if self.ordering else 'equal to'} {self.number:g}"


def compared(schema: Schema) -> Mapping[str, frozenset[Compared]]:
    """Numbers that each input is compared with as it is, by the input's name; of those without any, nothing."""
    origins: dict[str, frozenset[str]] = {port.name: frozenset({port.name}) for port in schema.inputs}
    found: dict[str, set[Compared]] = defaultdict(set)
    codes = dict(_codes(schema))
    for node in schema.nodes:
        origin = frozenset().union(*(origins.get(value, frozenset()) for value in node.inputs))
        for name in origin:
            found[name].update(_numbers(node))
            if node.operator == OPAQUE:
                # What is looked for comes first; what is found instead lies behind it.
                found[name].update(next((codes[value] for value in node.inputs if value in codes), ()))
        if has(node.operator, Property.PICKS | Property.SHAPE_ONLY):
            origins |= dict.fromkeys(node.outputs, origin)
    return {name: frozenset(numbers) for name, numbers in found.items() if numbers}


def _codes(schema: Schema) -> Iterator[tuple[str, list[Compared]]]:
    """A few whole numbers that a graph holds, by the value that they are: an operation that nobody knows may look for them."""
    for node in schema.nodes:
        numbers = node.attributes.get("value")
        whole = str(node.attributes.get("dtype", "")).startswith("int")
        if node.operator == "Constant" and whole and isinstance(numbers, tuple) and len(numbers) <= _MAX:
            yield node.outputs[0], list(_usable(numbers, ordering=False))


def _numbers(node: Node) -> Iterator[Compared]:
    if node.operator == "Equal":
        yield from _usable([node.attributes.get("constant")], ordering=False)
    elif has(node.operator, Property.BOUNDS):
        yield from _usable([node.attributes.get(key) for key in ("constant", "min", "max")], ordering=True)


def _usable(numbers: Iterable[object], *, ordering: bool) -> Iterator[Compared]:
    for number in numbers:
        if isinstance(number, int | float) and abs(number) < _NO_BOUND:
            yield Compared(float(number), ordering)


def values(numbers: Iterable[Compared]) -> tuple[float, ...]:
    """What data has to hold to show every comparison: the number, and of a bound what lies on either side."""
    found: dict[float, None] = {}
    for item in sorted(numbers):
        step = max(1.0, abs(item.number) / 2) if item.ordering else 0.0
        found |= dict.fromkeys((item.number, item.number + step, item.number - step))
    return tuple(found)[:_MAX]


def unseen(
    schema: Schema, own: Schema, data: Sequence[Sequence[Array]], indices: Sequence[Mapping[str, int]]
) -> dict[str, str]:
    """Comparisons of a candidate that the reference's graph does not have and no draw decides, and why, by what to say of them.

    Args:
        schema: The reference.
        own: The candidate; its inputs are in the reference's order.
        data: The inputs of every draw.
        indices: How many valid indices an input has, by its name in the reference and by that in the candidate.
    """
    theirs, ours = compared(own), compared(schema)
    found: dict[str, str] = {}
    for place, (port, other) in enumerate(zip(schema.inputs, own.inputs, strict=True)):
        known = ours.get(port.name, frozenset())
        for item in sorted(theirs.get(other.name, frozenset()) - known):
            asked = _may_be(item, port, indices[0].get(port.name, indices[1].get(other.name)))
            if asked and not item.shown_by(inputs[place] for inputs in data):
                found[f"input {port.name!r}"] = (
                    f"the candidate asks whether it is {item}, and no data shows it"
                )
    return found


def _may_be(item: Compared, port: Port, rows: int | None) -> bool:
    """Whether data may lie on both sides of a comparison: a mask is 0 or 1, and an index within its table."""
    if port.binary or port.dtype == "bool":
        return False
    if rows is None:
        return True
    return 0 <= item.number < rows if not item.ordering else 0 < item.number < rows - 1


def marked(plain: Array, marks: Sequence[float], generator: np.random.Generator) -> Array:
    """Numbers of which some stand for something else: a tail of zeros, one of marks, single marks, halves.

    Args:
        plain: Four examples or more of the usual kind, batch first; a copy is changed.
        marks: Besides 0 and -1.
        generator: Draws.
    """
    found, several = plain.copy(), np.array([-1.0, *marks], plain.dtype)
    if found.ndim < 2:
        found[:3] = np.resize(np.array([0.0, *several], plain.dtype), found[:3].shape)
    else:
        tail = slice((found.shape[1] + 1) // 2, None)
        found[0, tail] = 0
        steps = found[1, tail]
        steps[...] = np.resize(several, len(steps)).reshape(-1, *(1 for _ in steps.shape[1:]))
        found[2, ..., (found.shape[-1] + 1) // 2 :] = 0
    chosen = generator.choice(np.array([0.0, *several], plain.dtype), found[2:3].shape)
    found[2:3] = np.where(generator.random(chosen.shape) < 0.4, chosen, found[2:3])
    found[3:] = np.rint(6.0 * generator.standard_normal(found[3:].shape)) / 2
    return found


def halves(plain: Array, generator: np.random.Generator) -> Array:
    """Numbers that lie in the middle between two whole ones, in the first half of the examples; between two halves, quarters or eighths in the rest.

    The number below is even in every other example, and odd in the others.

    Args:
        plain: Several examples of the usual kind, batch first.
        generator: Draws.
    """
    place = np.arange(len(plain)).reshape(-1, *(1 for _ in plain.shape[1:]))
    found: Array = 2.0 * np.rint(plain) + place % 2 + 0.5
    finer = generator.choice((0.5, 0.25, 0.125), plain.shape)
    return np.where(place < len(plain) // 2, found, found * finer)


def blank(plain: Array, marks: Sequence[float]) -> Array:
    """Numbers with one example of nothing but zeros, one of -1, and one of a mark if there are any."""
    found = plain.copy()
    for place, value in enumerate((0.0, -1.0, *marks[:1])):
        found[place] = value
    return found


def marked_indices(plain: Array, rows: int, marks: Sequence[float], generator: np.random.Generator) -> Array:
    """Indices of which many are the first, the second, the last, or one that the graph names.

    Args:
        plain: Four examples or more, batch first; a copy is changed.
        rows: How many are valid.
        marks: That the graph names; those that are not valid are left out.
        generator: Draws.
    """
    usual = [0, min(1, rows - 1), rows - 1]
    several = [*usual, *(int(m) for m in marks if 0 <= m < rows and m == int(m) and int(m) not in usual)]
    found = plain.copy()
    if found.ndim < 2:
        found[:] = np.resize(np.array(several, plain.dtype), found.shape)
        return found
    tail = slice((found.shape[1] + 1) // 2, None)
    found[0, tail], found[1, tail] = 0, rows - 1
    chosen = generator.choice(np.array(several, plain.dtype), found[2:].shape)
    found[2:] = np.where(generator.random(chosen.shape) < 0.5, chosen, found[2:])
    steps = found[3, tail]
    steps[...] = np.resize(np.array(several[::-1], plain.dtype), len(steps)).reshape(
        -1, *(1 for _ in steps.shape[1:])
    )
    if found.shape[1] > 1:
        # Padding in front hides all that the first position of a causal model sees.
        found[:, 0] = np.where(found[:, 0] == 0, min(1, rows - 1), found[:, 0])
    return found


def blank_indices(plain: Array) -> Array:
    """Indices with one example of nothing but the first."""
    found = plain.copy()
    found[0] = 0
    return found


def marked_mask(plain: Array) -> Array:
    """Zeros and ones that end in zeros in two examples, where the others have what they had."""
    found = plain.copy()
    if found.ndim > 1:
        found[2:, ..., (found.shape[-1] + 1) // 2 :] = 0
        found[2:, ..., 0] = 1
    return found


def blank_mask(plain: Array) -> Array:
    """Zeros and ones with one example of nothing but zeros."""
    found = plain.copy()
    found[-1] = 0
    return found
