"""Reductions over native axes that are several nodes: variance, norms, and what is normalised by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand, as_value, combine
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.value import Value, without


def every_axis(axes: int | Sequence[int] | None, rank: int) -> list[int]:
    """Axes as a list of positions; ``None`` and an empty list are all of them."""
    if isinstance(axes, int):
        axes = [axes]
    return [axis % rank for axis in axes] if axes else list(range(rank))


def variance(
    builder: GraphBuilder,
    name: str,
    operand: Operand,
    axes: Sequence[int],
    *,
    keepdims: bool,
    correction: float,
) -> Value:
    """The mean square of what deviates from the mean; ``correction`` 1 divides by one less."""
    value = as_value(builder, operand)
    mean = builder.reduce("ReduceMean", name, value, axes, keepdims=True)
    centred = builder.binary("Sub", name, value, mean)
    squares = builder.elementwise("Pow", name, centred, constant=2.0)
    found = builder.reduce("ReduceMean", name, squares, axes, keepdims=keepdims)
    if not correction:
        return found
    count = math.prod(value.native_shape[axis] for axis in axes)
    return builder.elementwise("Mul", name, found, constant=count / (count - correction))


def deviation(
    builder: GraphBuilder,
    name: str,
    operand: Operand,
    axes: Sequence[int],
    *,
    keepdims: bool,
    correction: float,
) -> Value:
    """The square root of the variance."""
    found = variance(builder, name, operand, axes, keepdims=keepdims, correction=correction)
    return builder.elementwise("Sqrt", name, found)


def norm(
    builder: GraphBuilder, name: str, operand: Operand, axes: Sequence[int], *, keepdims: bool, order: float
) -> Value:
    """The vector norm: Euclidean, of absolute values, the largest, or of any order."""
    value = as_value(builder, operand)
    if order == 2:
        squares = builder.elementwise("Pow", name, value, constant=2.0)
        return builder.elementwise(
            "Sqrt", name, builder.reduce("ReduceSum", name, squares, axes, keepdims=keepdims)
        )
    sizes = builder.elementwise("Abs", name, value)
    if order == math.inf:
        return builder.reduce("ReduceMax", name, sizes, axes, keepdims=keepdims)
    if order == 1:
        return builder.reduce("ReduceSum", name, sizes, axes, keepdims=keepdims)
    powers = builder.elementwise("Pow", name, sizes, constant=float(order))
    total = builder.reduce("ReduceSum", name, powers, axes, keepdims=keepdims)
    return builder.elementwise("Pow", name, total, constant=1.0 / order)


def rms_norm(
    builder: GraphBuilder,
    name: str,
    operand: Operand,
    axes: Sequence[int],
    weight: Operand | None,
    epsilon: float,
) -> Operand:
    """``x / sqrt(mean(x²) + epsilon)``, times a weight."""
    value = as_value(builder, operand)
    squares = builder.elementwise("Pow", name, value, constant=2.0)
    mean = builder.reduce("ReduceMean", name, squares, axes, keepdims=True)
    root = builder.elementwise(
        "Pow", name, builder.elementwise("Add", name, mean, constant=epsilon), constant=-0.5
    )
    normal: Operand = builder.binary("Mul", name, value, root)
    return normal if weight is None else combine(builder, "Mul", name, normal, weight)


def arg_max(
    builder: GraphBuilder, name: str, operand: Operand, axis: int, *, keepdims: bool, least: bool = False
) -> Value:
    """Position of the largest along a native axis, or of the least; whole numbers."""
    value = as_value(builder, operand)
    if least:
        value = builder.elementwise("Mul", name, value, constant=-1.0)
    rank = len(value.shape)
    place = value.perm[axis % rank]
    shape = tuple(1 if i == place else n for i, n in enumerate(value.shape) if keepdims or i != place)
    (out,) = builder.add(
        "ArgMax", name, [value], [shape], attributes={"axis": place - rank, "keepdims": keepdims}
    )
    return Value(out, shape, value.perm if keepdims else without(value.perm, [place]))


def top_k(builder: GraphBuilder, name: str, value: Value, axis: int, count: int) -> tuple[Value, Value]:
    """The largest along a native axis in falling order, and their positions, which are whole numbers."""
    rank = len(value.shape)
    place = value.perm[axis % rank]
    shape = (*value.shape[:place], count, *value.shape[place + 1 :])
    attributes: dict[str, AttributeValue] = {"axis": place - rank, "k": count}
    values, places = builder.add("TopK", name, [value], [shape, shape], attributes=attributes)
    return Value(values, shape, value.perm), Value(places, shape, value.perm)
