"""Which axes of the data may be of any length, and which lengths beyond the example's are tried.

A model that keeps a hundred steps, or counts distances up to 128, is another one only for data that are longer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from xbackend_fl.canonical import Parameter, Property, Schema, has
from xbackend_fl.mapping.probe.distributions import vocabularies

Shape: TypeAlias = tuple[int, ...]
Axes: TypeAlias = frozenset[tuple[int, int]]
"""Input and axis, each: axes that are longer together."""

EXAMPLES = 2
"""Examples in a draw of far more steps than the example has."""

_TARGETS = (130, 1030)
"""Beyond what usual distances, buckets and tables end at: 128 and 1024."""

_STEP_BY_STEP = 66
"""As many steps as are tried where one is run after the other, outside a graph: a hundred take a second."""

_KEPT = 1 << 22
"""Numbers of data and outputs of such a draw, at most: evidence is published."""

_WORK = 1e10
"""Products in one such draw, at most: about a second."""

_PAIRS = 1 << 29
"""Bytes of what is computed for every pair of steps, at most."""

_MANY = 50_000_000
"""Values of a model from which on one such draw is enough: to draw its weights takes longer than to run it."""


def behind_channels(shapes: Sequence[Shape]) -> Axes:
    """Height and width of images, and steps of a series whose channels lie in front of them."""
    return frozenset((index, axis) for index, shape in enumerate(shapes) for axis in range(2, len(shape)))


def series(schema: Schema, shapes: Sequence[Shape]) -> Axes:
    """The axis of steps of all that may be a series, and those of masks and pairs of its steps; empty without a series."""
    tables = vocabularies(schema)
    first = {
        index
        for index, (port, shape) in enumerate(zip(schema.inputs, shapes, strict=True))
        if len(shape) == 3 or (len(shape) == 2 and port.name in tables)
    }
    lengths = {shapes[index][1] for index in first if shapes[index][1] > 1}
    several = len(shapes) > 1
    found = set()
    for index, shape in enumerate(shapes):
        if len(shape) > 1 and shape[1] in lengths and (index in first or several):
            found.add((index, 1))
            if several and len(shape) == 3 and shape[1] == shape[2]:
                found.add((index, 2))
        elif len(shape) == 4 and several:
            # A mask for every head.
            found |= {(index, axis) for axis in (2, 3) if shape[axis] in lengths}
    return frozenset(found)


def others(schema: Schema, shapes: Sequence[Shape]) -> Iterator[Axes]:
    """Axes that are tried where neither images nor series may be larger: samples of a wave, frames of images, one side of a table."""
    known = {behind_channels(shapes), series(schema, shapes), frozenset()}
    lengths = sorted(
        {(axis, shape[axis]) for shape in shapes for axis in range(1, len(shape)) if shape[axis] > 1}
    )
    pairs = [
        ((axis, n), (axis + 1, m)) for axis, n in lengths for other, m in lengths if other == axis + 1 > 3
    ]
    for group in (*((one,) for one in lengths), *pairs):
        axes = frozenset(
            (index, axis)
            for index, shape in enumerate(shapes)
            for axis, n in group
            if axis < len(shape) and shape[axis] == n
        )
        if axes not in known:
            known.add(axes)
            yield axes


def longer(shapes: Sequence[Shape], axes: Axes, times: int = 1, more: int = 0) -> list[Shape]:
    """Shapes in which some axes are so many times as long, and have so many steps more."""
    return [
        tuple(n * times + more if (index, axis) in axes else n for axis, n in enumerate(shape))
        for index, shape in enumerate(shapes)
    ]


def length_factors(schema: Schema, shapes: Sequence[Shape], axes: Axes) -> list[int]:
    """How many times as long the axes are in the draws beyond one step more, in ascending order; bounded by work and memory.

    Args:
        schema: The model.
        shapes: Of the example.
        axes: What is longer.
    """
    length = max(shapes[index][axis] for index, axis in axes)
    wanted = [2]
    if _is_series(shapes, axes) and not _unrolled(schema, length):
        targets = (_STEP_BY_STEP,) if _step_by_step(schema, shapes) else _TARGETS
        wanted += [-(-target // length) for target in targets]
    largest = max(_affordable(schema, shapes, axes, max(wanted)), 1)
    found = sorted({min(times, largest) for times in wanted} - {1})
    return found[-1:] if schema.num_values > _MANY else found


def many_examples(schema: Schema, shapes: Sequence[Shape]) -> int:
    """How many examples are a large batch, beyond 128; 0 where a draw of so many takes too long, or is too large."""
    one = sum(math.prod(shape[1:]) for shape in shapes)
    tables = vocabularies(schema)
    # A row of numbers is one step, a row of ids is as many as it has.
    steps = max(
        1 if len(shape) == 2 and port.name not in tables else math.prod(shape[1:])
        for port, shape in zip(schema.inputs, shapes, strict=True)
    )
    outputs = sum(math.prod(port.shape[1:]) for port in schema.outputs)
    count = _TARGETS[0]
    if count * steps * _values(schema) > _WORK or count * (one + outputs) > _KEPT:
        return 0
    return count


def _values(schema: Schema) -> int:
    """Values of all weights that a step is multiplied with."""
    return sum(math.prod(parameter.shape) for parameter in _dense(schema))


def _dense(schema: Schema) -> list[Parameter]:
    """Weights that are no tables: of those a step reads a row."""
    return [parameter for parameter in schema.parameters if parameter.operator != "Gather"]


def _is_series(shapes: Sequence[Shape], axes: Axes) -> bool:
    """Whether some input is longer along one axis alone; an image is along several."""
    return any(len(shapes[index]) <= 3 or sum(one == index for one, _ in axes) == 1 for index, _ in axes)


def _step_by_step(schema: Schema, shapes: Sequence[Shape]) -> bool:
    """Whether a model runs one step after the other, or makes of every step an image."""
    recurrent = any(has(node.operator, Property.RECURRENT) for node in schema.nodes)
    return recurrent or max(map(len, shapes)) > 4


def _unrolled(schema: Schema, length: int) -> bool:
    """Whether a layer is called for each step by a loop of Python's: to trace a thousand steps takes minutes."""
    calls = Counter(name for node in schema.nodes for name in set(node.parameters.values()))
    return max(calls.values(), default=0) >= max(length, 3)


def _affordable(schema: Schema, shapes: Sequence[Shape], axes: Axes, wanted: int) -> int:
    """The largest factor, up to a wanted one, within the bounds."""
    one_axis, values = _is_series(shapes, axes), _values(schema)
    width = max((min(p.shape[:2]) for p in _dense(schema) if len(p.shape) > 1), default=1) if one_axis else 1

    def fits(times: int) -> bool:
        larger = longer(shapes, axes, times)
        long = (
            [n for axis, n in enumerate(shape) if (index, axis) in axes] for index, shape in enumerate(larger)
        )
        steps = max(max(axis, default=1) if one_axis else math.prod(axis) for axis in long)
        rest = max(math.prod(shape[2:]) if len(shape) > 3 and one_axis else 1 for shape in shapes)
        work, pairs = EXAMPLES * steps * rest * values, EXAMPLES * 4 * steps * steps * width
        outputs = times * sum(math.prod(port.shape[1:]) for port in schema.outputs)
        kept = EXAMPLES * (outputs + sum(math.prod(shape[1:]) for shape in larger))
        return work <= _WORK and pairs <= _PAIRS and kept <= _KEPT

    if fits(wanted):
        return wanted
    low, high = 0, wanted
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
