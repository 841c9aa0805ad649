"""Which probes are run: draws of every kind, at several sizes, and the user's own example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Property, Schema, has
from xbackend_fl.mapping.probe.distributions import (
    WIDE,
    Assignment,
    Distribution,
    assignments,
    far,
    markers,
    structured,
    vocabularies,
    words,
)
from xbackend_fl.mapping.probe.draw import BATCH, draw_inputs
from xbackend_fl.mapping.probe.larger import (
    EXAMPLES,
    Axes,
    behind_channels,
    length_factors,
    longer,
    many_examples,
    others,
    series,
)
from xbackend_fl.mapping.probe.lookups import lookups_of
from xbackend_fl.mapping.probe.probe import Case
from xbackend_fl.mapping.probe.redrawn import Redrawn, divides, rounds, rounds_exact_sums

Array = NDArray[Any]

EXAMPLE = "the example"
"""Label of the probe with the user's own data."""

ALIKE = "the same weights by shape, all features alike"
"""Label of a probe that needs neither a map nor an order of features."""

BY_SHAPE = "the same weights by shape"
"""Label of a probe that needs no map."""

DRAWS = 4
"""Draws whose gradients are always compared; a step, too, in those with an odd seed."""

LARGER = DRAWS + 1
"""Seed of the draws at other sizes: images, and series whose channels lie in front of their steps."""

KINDS = DRAWS + 2
"""Seed of the draws of every other kind of data, whose outputs alone are compared."""

_EXAMPLE, _BY_SHAPE, _FURTHER = DRAWS + 3, DRAWS + 5, 21
_ALIKE = 17
ONE = "one example"
"""Ends the label of the draw of a batch of one."""

EVERY_INDEX = "every index"
"""Ends the label of the draw that reads every row of the tables."""

_WORK = 1e9
"""Values times weights in a draw of every index, at most: about a second."""

MANY = 50_000_000
"""Values of a model from which on a draw that differs from others in its seed alone is not worth its time."""

LONGER = 19
"""Seed of the draws with more steps in every series; a model whose second axis is no length refuses them."""

_RESERVE = (11, 13, 15)
_SMALL = (4, 8)
"""How many times smaller large images are where rounding is to count less."""


def cases(schema: Schema, example: Sequence[Array], assignment: Assignment = ()) -> list[Case]:
    """What every proof runs.

    Draws at the example's size and at a neighbouring size (odd and even); outputs alone for every other kind of data and
    for the example itself; draws that are run where rounding decided in all the others; one by shape.

    Args:
        schema: The reference.
        example: One array per input.
        assignment: What the inputs are by default; normal if left out.
    """
    shapes = [array.shape for array in example]
    usual = assignment or (Distribution.NORMAL,) * len(example)
    result = [_draw(schema, example, shapes, seed, usual, step=bool(seed % 2)) for seed in range(DRAWS)]
    for seed, axes in ((LARGER, behind_channels(shapes)), (LONGER, series(schema, shapes))):
        if axes:
            larger = longer(shapes, axes, more=1)
            result.append(_draw(schema, example, larger, seed, usual, differentiate=False))
    others = (other for other in _others(schema) if other != usual)
    result += [_draw(schema, example, shapes, KINDS, other, differentiate=False) for other in others]
    result += every_index(schema, example, usual)
    result += _counts(schema, example, usual)
    result += _redrawn(schema, result[0], usual)
    own = repeated(example)
    result.append(Case(EXAMPLE, _EXAMPLE, own, differentiate=False, step=False))
    for seed, times in zip(_RESERVE, _SMALL, strict=False):
        small = [_smaller(shape, times) for shape in shapes]
        result.append(_draw(schema, example, small, seed, usual, reserve=True, rounding=small != shapes))
    result.append(_draw(schema, example, shapes, _RESERVE[2], usual, reserve=True, rounding=True))
    inputs = draw_inputs(schema, shapes, _BY_SHAPE, scale=10.0, assignment=usual, like=example)
    plain = Case(BY_SHAPE, _BY_SHAPE, inputs, step=False, by_shape=True)
    result.append(plain)
    if any(has(node.operator, Property.SATURATES) for node in schema.nodes):
        result.append(quieter(plain))
    if any(has(node.operator, Property.REORDERS) for node in schema.nodes):
        inputs = draw_inputs(schema, shapes, _ALIKE, assignment=usual, like=example)
        result.append(Case(ALIKE, _ALIKE, inputs, step=False, by_shape=True, alike=True))
    return result


def larger(schema: Schema, example: Sequence[Array], usual: Assignment) -> Iterator[list[Case]]:
    """Draws at sizes beyond one step more, outputs alone: ascending along the same axes, in one list for each choice of axes.

    Which axes have a length of their own is the model's to say, by what it refuses.
    """
    shapes = [array.shape for array in example]
    for seed, axes in ((LARGER, behind_channels(shapes)), (LONGER, series(schema, shapes))):
        if axes:
            yield _far(schema, example, axes, seed, usual)
    for axes in others(schema, shapes):
        one_more = _draw(schema, example, longer(shapes, axes, more=1), LONGER, usual, differentiate=False)
        yield [one_more, *_far(schema, example, axes, LONGER, usual)]


def _far(schema: Schema, example: Sequence[Array], axes: Axes, seed: int, usual: Assignment) -> list[Case]:
    shapes = [array.shape for array in example]
    drawn = (
        _draw(schema, example, longer(shapes, axes, times), seed, usual, differentiate=False)
        for times in length_factors(schema, shapes, axes)
    )
    return [replace(case, inputs=tuple(array[:EXAMPLES] for array in case.inputs)) for case in drawn]


def _counts(schema: Schema, example: Sequence[Array], usual: Assignment) -> Iterator[Case]:
    """One example alone, and many: a model may decide by how many there are; outputs alone, and not of the largest models."""
    if schema.num_values > MANY:
        return
    shapes = [array.shape for array in example]
    for count in (1, many_examples(schema, shapes)):
        plain = _draw(schema, example, shapes, KINDS, usual, differentiate=False)
        if count:
            several = (np.concatenate([array] * -(-count // BATCH))[:count] for array in plain.inputs)
            word = ONE if count == 1 else f"{count} examples"
            yield replace(plain, label=f"{plain.label}, {word}", inputs=tuple(several))


def _redrawn(schema: Schema, first: Case, usual: Assignment) -> Iterator[Case]:
    """Draws of small weights where an epsilon may stand, and of halves where something is rounded; outputs alone."""
    shapes = [array.shape for array in first.inputs]

    def case(how: Redrawn, assignment: Assignment) -> Case:
        label = ", ".join(filter(None, (f"draw {KINDS}, {sizes_of(shapes)}", words(assignment), str(how))))
        inputs = draw_inputs(schema, shapes, KINDS, assignment=assignment, like=first.inputs)
        return Case(label, KINDS, inputs, differentiate=False, step=False, redrawn=how)

    if divides(schema):
        yield case(Redrawn.SMALL_LAYERS, usual)
        if schema.num_values <= MANY:
            yield case(Redrawn.SMALL, usual)
    if rounds_exact_sums(schema):
        # Whole numbers times halves: every other sum is a half.
        yield case(Redrawn.HALVES, (Distribution.LARGE,) * len(schema.inputs))


def every_index(schema: Schema, example: Sequence[Array], usual: Assignment) -> Iterator[Case]:
    """One draw in which every row of the tables is read that are read with inputs, where these are not too many.

    Every row of a layer's table is drawn; what one of constants holds in a row that no draw reads may be anything.
    """
    rows = {
        name: count
        for name, count in vocabularies(schema, {k: len(a) for k, a in lookups_of(schema).items()}).items()
        if not next(port for port in schema.inputs if port.name == name).padded
    }
    lengths = {
        port.name: array[:1].size for port, array in zip(schema.inputs, example, strict=True) if array.size
    }
    if not rows.keys() <= lengths.keys() or not rows:
        return
    count = max(BATCH, *(-(-rows[name] // lengths[name]) for name in rows))
    if count * max(lengths.values()) * schema.num_values > _WORK:
        return
    plain = draw_inputs(schema, [a.shape for a in example], KINDS, assignment=usual, like=example)
    generator = np.random.Generator(np.random.Philox(key=[KINDS, 9]))
    inputs = []
    for port, array in zip(schema.inputs, plain, strict=True):
        several = np.concatenate([array] * -(-count // len(array)))[:count]
        if port.name in rows:
            every = generator.permutation(several.size).reshape(several.shape)
            several = (every % rows[port.name]).astype(array.dtype)
        inputs.append(several)
    label = f"draw {KINDS}, {sizes_of([a.shape for a in example])}, {EVERY_INDEX}"
    yield Case(label, KINDS, tuple(inputs), differentiate=False, step=False)


def quieter(case: Case) -> Case:
    """A probe by shape with weights an eighth as large."""
    return replace(case, label=f"{case.label}, quiet", quiet=True)


def by_shape_cases(schema: Schema, example: Sequence[Array]) -> Iterator[Case]:
    """Probes that need no map and nothing from the reference: normal data, every other kind, and the example."""
    shapes = [array.shape for array in example]
    for assignment in _others(schema):
        inputs = draw_inputs(schema, shapes, _BY_SHAPE, assignment=assignment, like=example)
        yield Case(f"{BY_SHAPE}, {words(assignment)}", _BY_SHAPE, inputs, step=False, by_shape=True)
    yield Case(f"{BY_SHAPE}, {EXAMPLE}", _BY_SHAPE, repeated(example), step=False, by_shape=True)


def further(schema: Schema, example: Sequence[Array]) -> Iterator[tuple[Case, Case]]:
    """Draws for parameters that no other draw sees, each with its twin by shape: the example first, then other kinds of data."""
    own = repeated(example)
    yield (
        Case(f"draw {_FURTHER}, {EXAMPLE}", _FURTHER, own, step=False),
        Case(f"{BY_SHAPE}, {EXAMPLE}", _FURTHER, own, step=False, by_shape=True),
    )
    if schema.num_values > MANY and vocabularies(schema).keys() >= {port.name for port in schema.inputs}:
        # Ids are ids, whatever kind of number others are: these draws would differ in their seed alone.
        return
    shapes = [array.shape for array in example]
    kinds = list(assignments(schema))
    alike = sum(len(set(kind)) == 1 for kind in kinds)
    kinds[alike:alike] = far(schema)
    seeds = {kind: _FURTHER + 2 * place for place, kind in enumerate(kinds, start=1)}
    # Behind the seeds of the others, and tried before what is rarer.
    images = list(structured(schema))
    seeds |= {kind: _FURTHER + 2 * place for place, kind in enumerate(images, start=len(kinds) + 1)}
    kinds[alike:alike] = images
    for assignment in kinds:
        seed = seeds[assignment]
        case = _draw(schema, example, shapes, seed, assignment)
        label = f"{BY_SHAPE}, {words(assignment)}"
        yield case, Case(label, seed, case.inputs, step=False, by_shape=True)


def usual_data(schema: Schema, case: Case, assignment: Assignment) -> tuple[Array, ...]:
    """Data of the usual kind with the sizes of a case: running statistics are fitted to it where the case's own has no variance."""
    shapes = [array.shape for array in case.inputs]
    return draw_inputs(schema, shapes, case.seed, assignment=assignment, like=case.inputs)


def repeated(example: Sequence[Array]) -> tuple[Array, ...]:
    """The example as a batch of the probes' size."""
    return tuple(np.concatenate([array] * BATCH)[:BATCH] for array in example)


def _draw(
    schema: Schema,
    example: Sequence[Array],
    shapes: Sequence[tuple[int, ...]],
    seed: int,
    assignment: Assignment,
    *,
    differentiate: bool = True,
    step: bool = True,
    reserve: bool = False,
    rounding: bool = False,
) -> Case:
    kind = words(assignment)
    label = f"draw {seed}, {sizes_of(shapes)}" + (f", {kind}" if kind else "")
    inputs = draw_inputs(schema, shapes, seed, assignment=assignment, like=example)
    return Case(label, seed, inputs, differentiate, step and differentiate, reserve, rounding=rounding)


def _others(schema: Schema) -> Iterator[Assignment]:
    """Normal everywhere, every other kind everywhere, masks (one input of zeros and ones, or of ones), wide numbers, patterns, and marked and blank values."""
    yield (Distribution.NORMAL,) * len(schema.inputs)
    free = len(schema.inputs) - len(vocabularies(schema))
    for assignment in assignments(schema):
        changed = [kind for kind in assignment if kind is not Distribution.NORMAL]
        alike = len(set(changed)) == 1 and len(changed) == free and changed[0] is not Distribution.HUGE
        if alike or (len(changed) == 1 and changed[0] in {Distribution.BINARY, Distribution.ONES}):
            yield assignment
    if any(port.dtype.startswith("float") and not port.binary for port in schema.inputs):
        yield from ((kind,) * len(schema.inputs) for kind in WIDE)
    yield from structured(schema)
    yield from markers(schema)
    if rounds(schema):
        yield (Distribution.HALVES,) * len(schema.inputs)


def _smaller(shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    # Long sums of nearly equal numbers round the most; what a network does to an image shows in a smaller one.
    if len(shape) < 4:
        return shape
    return (*shape[:2], *(n if n <= 32 else max(16, -(-n // times)) for n in shape[2:]))


def sizes_of(shapes: Sequence[tuple[int, ...]]) -> str:
    """The sizes of inputs for people, the number of examples aside."""
    return " and ".join("×".join(map(str, shape[1:])) or "scalar" for shape in shapes)
