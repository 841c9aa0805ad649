"""Weights of a draw made over for one question: is an epsilon the same, and is a half rounded alike?

With weights of the usual size whatever is normalised has a variance near one, beside which an epsilon of 1e-5 is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Node, Port, Property, Schema, has
from xbackend_fl.mapping.probe.draw import under_roots

Array = NDArray[Any]


class Redrawn(StrEnum):
    """What becomes of the weights of a draw, or of its data."""

    SMALL_LAYERS = "small layers"
    SMALL = "small weights"
    HALVES = "weights of halves"
    MISSING = "missing values"
    INFINITE = "infinite values"


BROKEN = {Redrawn.MISSING: (np.nan,), Redrawn.INFINITE: (np.inf, -np.inf)}
"""What stands in data instead of a number, an example each."""

_SMALL = 1 / 64
"""A power of two, so that nothing is rounded: features have a variance near 5e-4, of which an epsilon of 1e-6 is a thousandth."""


def divides(schema: Schema) -> bool:
    """Whether a graph divides by what depends on its data, takes roots or logarithms, or may: an epsilon may stand there."""
    return any(map(_divides, schema.nodes))


def _divides(node: Node) -> bool:
    power = node.attributes.get("constant")
    negative = node.operator == "Pow" and isinstance(power, int | float) and (power < 0 or power % 1 != 0)
    return "epsilon" in node.attributes or has(node.operator, Property.DIVIDES) or negative


def rounds(schema: Schema) -> bool:
    """Whether a graph rounds to whole numbers."""
    return any(has(node.operator, Property.ROUNDS) for node in schema.nodes)


def rounds_exact_sums(schema: Schema) -> bool:
    """Whether everything that a graph rounds is made of its data by layers and sums alone: halves are then exact, whoever computes them."""
    exact = {port.name for port in schema.inputs if port.dtype.startswith("float")}
    rounded = False
    for node in schema.nodes:
        own = has(node.operator, Property.EXACT | Property.SHAPE_ONLY)
        if own and exact.issuperset(node.inputs):
            exact.update(node.outputs)
        elif has(node.operator, Property.ROUNDS):
            if not exact.issuperset(node.inputs):
                return False
            rounded = True
    return rounded


def redrawn(schema: Schema, weights: Mapping[str, Array], how: Redrawn) -> dict[str, Array]:
    """The weights of a draw, running statistics aside, made over.

    Args:
        schema: The model.
        weights: By canonical name.
        how: Small where layers make features, small everywhere, or multiples of a half; as they are where data is changed.
    """
    if how in BROKEN:
        return dict(weights)
    kept = under_roots(schema)
    made: dict[str, Array] = {}
    for parameter in schema.parameters:
        array = weights[parameter.name]
        if parameter.name in kept or parameter.role in {"mean", "variance"} or array.dtype.kind != "f":
            made[parameter.name] = array
        elif how is Redrawn.HALVES:
            made[parameter.name] = _halves(array)
        elif how is Redrawn.SMALL or parameter.role == "bias" or sum(n > 1 for n in parameter.shape) > 1:
            made[parameter.name] = array * array.dtype.type(_SMALL)
        else:
            made[parameter.name] = array
    return made


def _halves(array: Array) -> Array:
    """Halves and ones of the same signs, both about as often."""
    size = np.where(np.abs(array) > np.median(np.abs(array)), 1.0, 0.5)
    return np.where(array < 0, -size, size).astype(array.dtype)


def may_miss(schema: Schema) -> bool:
    """Whether some input may be a table or a series of numbers, in which a value may be missing."""
    return any(map(_may_miss, schema.inputs))


def _may_miss(port: Port) -> bool:
    return port.dtype.startswith("float") and not port.binary and len(port.shape) in {2, 3}


def with_broken(schema: Schema, inputs: Sequence[Array], how: Redrawn) -> tuple[Array, ...]:
    """Data in which the first number of the second example, and of the third, is none, in every input that :func:`may_miss` means.

    Args:
        schema: The model.
        inputs: Several examples, in ONNX layout.
        how: What stands there.
    """
    found = []
    for port, array in zip(schema.inputs, inputs, strict=True):
        if _may_miss(port):
            broken = array.copy()
            for place, value in enumerate(BROKEN[how], start=1):
                broken[place, ..., 0] = value
            found.append(broken)
        else:
            found.append(array)
    return tuple(found)
