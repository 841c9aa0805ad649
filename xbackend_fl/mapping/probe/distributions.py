"""Kinds of data that a model may be given: what one kind hides, another shows.

A mask of normal numbers times 1e9 makes a softmax pick one position, and no gradient reaches what the scores are made of;
a mask of zeros and ones shows it. Images of bytes look like noise of size one to no layer that divides by 255. All noise has one
mean and one variance: what a layer normalises by them and then averages is the same for all of it, and not for images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import combinations, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Node, Property, Schema, has
from xbackend_fl.mapping.probe.markers import (
    blank,
    blank_indices,
    blank_mask,
    halves,
    marked,
    marked_indices,
    marked_mask,
)

Array = NDArray[Any]


class Distribution(StrEnum):
    """What the values of one input look like."""

    NORMAL = "normal"
    BINARY = "0 and 1"
    ONES = "ones"
    LARGE = "0 to 255"
    SMALL = "small"
    HUGE = "0 to 65535"
    TENS = "tens"
    THOUSANDS = "thousands"
    UNIT = "between 0 and 1"
    TINY = "millionths"
    VAST = "millions"
    GIANT = "billions"
    PATTERNS = "patterns"
    BYTE_PATTERNS = "patterns of 0 to 255"
    MARKED = "padded and marked"
    BLANK = "blank examples"
    HALVES = "halves"


WIDE = {Distribution.TENS: 30.0, Distribution.THOUSANDS: 1e3}
"""Factors of normal numbers whose signs and sizes are those of decibels and of X-rays: bounds lie there that noise never reaches."""

FAR = {Distribution.TINY: 1e-6, Distribution.VAST: 1e6, Distribution.GIANT: 1e9}
"""Factors of normal numbers, for models that answer no other kind with something finite that differs."""

_FACTORS = {Distribution.SMALL: 1e-3} | WIDE | FAR

STRUCTURED = (Distribution.PATTERNS, Distribution.BYTE_PATTERNS)
"""Images and sequences with edges, ramps, blobs and stripes, for inputs with channels or positions."""

MARKERS = (Distribution.MARKED, Distribution.BLANK)
"""Zeros, -1, halves and what the graph compares data with: in single values and tails, and in whole examples."""

Assignment: TypeAlias = tuple[Distribution, ...]
"""A distribution for every input."""


def sample(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    distribution: Distribution,
    generator: np.random.Generator,
    vocabulary: int | None,
    marks: Sequence[float] = (),
) -> Array:
    """Data of one input.

    Args:
        shape: Its shape, batch first.
        dtype: Its dtype.
        distribution: What floats look like; integers and booleans that are no indices are 0 and 1 unless it says otherwise.
        generator: Draws.
        vocabulary: Number of valid indices, if a table is read with them; ``None`` for values.
        marks: What the model compares the input with.
    """
    if distribution in MARKERS:
        return _with_markers(shape, dtype, distribution, generator, vocabulary, marks)
    if vocabulary is not None:
        return generator.integers(0, vocabulary, shape).astype(dtype)
    match distribution:
        case Distribution.ONES:
            return np.ones(shape, dtype)
        case Distribution.LARGE if dtype.kind != "b":
            return np.clip(np.rint(127.5 + 40.0 * signal(shape, generator)), 0, 255).astype(dtype)
        case Distribution.HUGE if dtype.kind != "b" and dtype.itemsize > 1:
            return np.clip(np.rint(32767.5 + 10000.0 * signal(shape, generator)), 0, 65535).astype(dtype)
        case Distribution.NORMAL if dtype.kind == "f":
            return signal(shape, generator).astype(dtype)
        case Distribution.HALVES if dtype.kind == "f":
            return halves(signal(shape, generator), generator).astype(dtype)
        case Distribution.UNIT if dtype.kind == "f":
            return generator.uniform(0.02, 0.98, shape).astype(dtype)
        case kind if dtype.kind == "f" and kind in _FACTORS:
            return (_FACTORS[kind] * signal(shape, generator)).astype(dtype)
        case Distribution.PATTERNS if dtype.kind == "f":
            return patterns(shape, generator).astype(dtype)
        case Distribution.BYTE_PATTERNS if dtype.kind != "b":
            return np.clip(np.rint(127.5 + 40.0 * patterns(shape, generator)), 0, 255).astype(dtype)
        case _:
            return _mask(shape, generator).astype(dtype)


def _with_markers(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    distribution: Distribution,
    generator: np.random.Generator,
    vocabulary: int | None,
    marks: Sequence[float],
) -> Array:
    """Indices, numbers or a mask of which some values stand for something else."""
    blanks = distribution is Distribution.BLANK
    if vocabulary is not None:
        plain = generator.integers(0, vocabulary, shape).astype(dtype)
        return blank_indices(plain) if blanks else marked_indices(plain, vocabulary, marks, generator)
    if dtype.kind != "f":
        return hidden(_mask(shape, generator).astype(dtype), distribution)
    plain = signal(shape, generator).astype(dtype)
    return blank(plain, marks) if blanks else marked(plain, marks, generator)


def hidden(mask: Array, distribution: Distribution) -> Array:
    """A mask that hides tails, or a whole example, where that is what data looks like."""
    if distribution is Distribution.MARKED:
        return marked_mask(mask)
    return blank_mask(mask) if distribution is Distribution.BLANK else mask


def _mask(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Zeros and ones, both in every row: what hides a whole row leaves it to rounding, or to nothing at all."""
    drawn = generator.integers(0, 2, shape)
    if len(shape) < 2 or shape[-1] < 2:
        return drawn
    first = generator.integers(0, shape[-1], (*shape[:-1], 1))
    second = (first + generator.integers(1, shape[-1], first.shape)) % shape[-1]
    np.put_along_axis(drawn, first, 0, -1)
    np.put_along_axis(drawn, second, 1, -1)
    return drawn


def signal(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Normal numbers; every example and channel has a mean of its own, or pooled noise would be the same for all examples."""
    noise = generator.standard_normal(shape)
    if len(shape) < 3:
        return noise
    return noise + generator.standard_normal((*shape[:2], *(1 for _ in shape[2:])))


def patterns(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Numbers of size one with another structure in every example and channel, and a tenth of noise, or values would tie.

    Along every axis behind the channels lies a ramp, an edge, a blob or a stripe, and the product of these in one place. Where
    there is one such axis, nobody knows which of both holds the positions, and each has patterns along the other.
    """
    noise = generator.standard_normal(shape)
    if len(shape) < 3:
        return noise
    found = _patterns(shape, generator)
    if len(shape) == 3:
        found = found + _patterns((shape[0], shape[2], shape[1]), generator).swapaxes(1, 2)
    return found + 0.1 * noise


def _patterns(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    height = generator.standard_normal((*shape[:2], *(1 for _ in shape[2:])))
    found = generator.choice([-1.5, 1.5], height.shape)
    for axis in range(2, len(shape)):
        along = [1] * len(shape)
        along[axis] = shape[axis]
        place = np.linspace(-1.0, 1.0, shape[axis]).reshape(along)
        centre, width = generator.uniform(-0.7, 0.7, height.shape), generator.uniform(0.1, 0.6, height.shape)
        turns = generator.uniform(0.5, max(0.75, shape[axis] / 5), height.shape)
        kinds = [
            place - centre,
            np.sign(place - centre),
            2.0 * np.exp(-(((place - centre) / width) ** 2)),
            np.sin(np.pi * turns * (place - centre)),
        ]
        found = found * np.choose(
            generator.integers(0, len(kinds), height.shape), np.broadcast_arrays(*kinds)
        )
    return found + height


def vocabularies(schema: Schema, tables: Mapping[str, int] | None = None) -> Mapping[str, int]:
    """How many rows the smallest table has that is read with an input as its indices, by the input's name.

    Args:
        schema: The model.
        tables: Rows of constants that are tables as well, by the name of the node that holds one.
    """
    constants = {
        v: (tables or {})[n.name] for n in schema.nodes if n.name in (tables or {}) for v in n.outputs
    }
    origins: dict[str, frozenset[str]] = {port.name: frozenset({port.name}) for port in schema.inputs}
    found: dict[str, list[int]] = defaultdict(list)
    negative: set[str] = set()
    for node in schema.nodes:
        if node.operator == "Gather":
            rows = schema.by_name[node.parameters["weight"]].shape[0]
            for name in origins.get(node.inputs[0], ()):
                found[name].append(rows)
        elif node.operator == "GatherND" and node.inputs[0] in constants:
            for name in origins.get(node.inputs[1], ()):
                found[name].append(constants[node.inputs[0]])
        elif has(node.operator, Property.SHAPE_ONLY) or _passes_on(node):
            origin = frozenset().union(*(origins.get(value, frozenset()) for value in node.inputs))
            origins |= dict.fromkeys(node.outputs, origin)
        elif node.operator == "Where" and node.inputs[0] in negative:
            # Keras counts a negative index from the end.
            origins |= dict.fromkeys(node.outputs, origins.get(node.inputs[-1], frozenset()))
        elif node.operator == "Less" and node.attributes.get("constant") == 0.0:
            negative.update(node.outputs)
    return {name: min(rows) for name, rows in found.items()}


def _passes_on(node: Node) -> bool:
    """Whether what is too large for a table in front of a node is too large behind it."""
    return has(node.operator, Property.KEEPS_INDICES) or (
        node.operator == "Clip" and "max" not in node.attributes
    )


def assignments(schema: Schema) -> Iterator[Assignment]:
    """What else than normal numbers the inputs may be: all alike first, then one input, then two that differ."""
    indices = vocabularies(schema)
    free = [i for i, port in enumerate(schema.inputs) if port.name not in indices]
    others = [
        k
        for k in Distribution
        if k
        not in {
            Distribution.NORMAL,
            Distribution.UNIT,
            *FAR,
            *WIDE,
            *STRUCTURED,
            *MARKERS,
            Distribution.HALVES,
        }
    ]
    plain = (Distribution.NORMAL,) * len(schema.inputs)
    seen: dict[Assignment, None] = {}
    for kind in others:
        seen[_with(plain, dict.fromkeys(free, kind))] = None
    for place, kind in product(free, others):
        seen[_with(plain, {place: kind})] = None
    for (one, two), (first, second) in product(combinations(free, 2), product(others, others)):
        seen[_with(plain, {one: first, two: second})] = None
    seen.pop(plain, None)
    yield from seen


def far(schema: Schema) -> Iterator[Assignment]:
    """Kinds of another order of magnitude, and chances, the same for all inputs."""
    yield from ((kind,) * len(schema.inputs) for kind in (*FAR, Distribution.UNIT))


def structured(schema: Schema) -> Iterator[Assignment]:
    """Patterns in all inputs, where some input that is neither mask nor index has channels or positions for them."""
    indices = vocabularies(schema)
    wide = [p for p in schema.inputs if len(p.shape) >= 3 and not p.binary and p.name not in indices]
    for kind in STRUCTURED:
        if any(
            port.dtype.startswith("float") or (kind is Distribution.BYTE_PATTERNS and port.dtype != "bool")
            for port in wide
        ):
            yield (kind,) * len(schema.inputs)


def markers(schema: Schema) -> Iterator[Assignment]:
    """Data in which some values stand for something else, the same kind for all inputs."""
    yield from ((kind,) * len(schema.inputs) for kind in MARKERS)


def _with(plain: Assignment, changed: Mapping[int, Distribution]) -> Assignment:
    return tuple(changed.get(i, kind) for i, kind in enumerate(plain))


def words(assignment: Sequence[Distribution]) -> str:
    """For a label: empty for normal numbers everywhere, one word if all inputs are alike."""
    different = set(assignment)
    if different <= {Distribution.NORMAL}:
        return ""
    return str(assignment[0]) if len(different) == 1 else " and ".join(f"[{kind}]" for kind in assignment)
