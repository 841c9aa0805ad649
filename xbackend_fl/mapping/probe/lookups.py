"""Constants of which two models have each their own: the same values, or a few others?

A probe reads some rows of a table, and an entry that none reads may be any number. Where both models have the values, they are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Node, Property, Schema, has
from xbackend_fl.canonical.row import OPAQUE

Array = NDArray[Any]

_LEAST = 8
"""Values of a constant that is a table."""

_SAME = 1e-4
"""Values are equal up to this part of the largest: one is computed in float64, and one in float32."""

_ALIKE_INTEGERS, _ALIKE_FLOATS = 0.9, 0.5
"""Parts of two tables that are equal, from which on the rest is meant to be equal too. Where fewer are, probes read others."""

_AXES = 4
"""Axes of a table in any order, at most."""


@dataclass(frozen=True)
class Twin:
    """What two models have for one table.

    Attributes:
        name: Of the node that holds the candidate's.
        values: The candidate's values, with the axes of the reference's.
        apart: The first place at which they differ; ``None`` if they are equal.
    """

    name: str
    values: Array
    apart: tuple[int, ...] | None


def constants_of(schema: Schema) -> dict[str, Array]:
    """Every constant that is large enough for a table, by the name of its node."""
    found = {}
    for node in schema.nodes:
        if node.operator == "Constant":
            array = _array(node)
            if array is not None and array.size >= _LEAST:
                found[node.name] = array
    return found


def lookups_of(schema: Schema) -> dict[str, Array]:
    """The constants of a graph of which places are read, by the name of the node that holds one."""
    constants = constants_of(schema)
    origins = {value: node.name for node in schema.nodes for value in node.outputs if node.name in constants}
    found: dict[str, Array] = {}
    for node in schema.nodes:
        if node.operator == OPAQUE:
            # Whatever it is: whole numbers in it are codes, rows or places.
            held = [origins[value] for value in node.inputs if value in origins]
            found |= {name: constants[name] for name in held if constants[name].dtype.kind in "iu"}
        origin = origins.get(node.inputs[0]) if node.inputs else None
        if origin is None:
            continue
        if has(node.operator, Property.LOOKS_UP):
            found[origin] = constants[origin]
        elif has(node.operator, Property.SHAPE_ONLY):
            origins |= dict.fromkeys(node.outputs, origin)
    return found


def _array(node: Node) -> Array | None:
    shape, values = node.attributes.get("shape"), node.attributes.get("value")
    if not (isinstance(shape, tuple) and isinstance(values, tuple)):
        return None
    array = np.asarray(values)
    lengths = tuple(map(int, shape))
    return array.reshape(lengths) if array.size == np.prod(lengths) else None


def twin_of(array: Array, others: Mapping[str, Array]) -> Twin | None:
    """The table of another model that is equal to one, or else equal but for a few entries; ``None`` if there is none.

    Args:
        array: The reference's.
        others: The candidate's, by name; axes may be in another order.
    """
    almost: Twin | None = None
    for name, values in _as_in(array, others):
        equal = _equal(array, values)
        if equal.all():
            return Twin(name, values, None)
        least = _ALIKE_INTEGERS if array.dtype.kind in "iub" else _ALIKE_FLOATS
        if almost is None and equal.mean() >= least:
            place = np.unravel_index(int((~equal).argmax()), equal.shape)
            almost = Twin(name, values, tuple(map(int, place)))
    return almost


def _as_in(array: Array, others: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Tables with the lengths of ``array``, in every order of axes that makes them so."""
    for name, other in others.items():
        if other.size != array.size or (other.dtype.kind == "f") != (array.dtype.kind == "f"):
            continue
        lengths = [n for n in array.shape if n > 1]
        plain = other.reshape([n for n in other.shape if n > 1])
        if plain.ndim != len(lengths) or plain.ndim > _AXES:
            continue
        for order in permutations(range(plain.ndim)):
            turned = plain.transpose(order)
            if list(turned.shape) == lengths:
                yield name, turned.reshape(array.shape)


def _equal(one: Array, two: Array) -> Array:
    if one.dtype.kind != "f":
        return np.equal(one, two)
    finite = np.abs(one[np.isfinite(one)])
    size = float(finite.max(initial=0.0))
    found: Array = np.isclose(two, one, rtol=0.0, atol=_SAME * size, equal_nan=True)
    return found


def unlike(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Iterator[tuple[str, Twin]]:
    """Tables of a reference that a candidate has with a few other values, and the candidate's; each is paired once, equal ones first.

    Args:
        ours: The reference's, by name.
        theirs: The candidate's.
    """
    left = dict(theirs)
    apart: list[str] = []
    for name, array in ours.items():
        twin = twin_of(array, left)
        if twin is None:
            continue
        if twin.apart is None:
            del left[twin.name]
        else:
            apart.append(name)
    for name in apart:
        twin = twin_of(ours[name], left)
        if twin is not None and twin.apart is not None:
            del left[twin.name]
            yield name, twin
