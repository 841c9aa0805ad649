"""Movement of operands of any kind: data goes through the builder, parameters become views, constants are folded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xbackend_fl.canonical import views
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.expressions import ComputedParameter, Scaled
from xbackend_fl.canonical.graph.operands import Operand, as_value, expand, native_shape
from xbackend_fl.canonical.layout import Join, Shape, Step
from xbackend_fl.canonical.value import Value


def transpose(builder: GraphBuilder, operand: Operand, perm: Sequence[int]) -> Operand:
    """Native axis ``i`` of the result is native axis ``perm[i]``."""
    perm = tuple(axis % len(perm) for axis in perm)
    if isinstance(operand, np.ndarray):
        return operand.transpose(perm)
    if isinstance(operand, Step):
        return views.transposed(operand, perm)
    return builder.transpose(as_value(builder, operand), perm)


def reshape(builder: GraphBuilder, name: str, operand: Operand, shape: Shape) -> Operand:
    """Row-major reshape to the native ``shape``."""
    if isinstance(operand, np.ndarray):
        return operand.reshape(shape)
    if isinstance(operand, Step):
        return views.reshaped(operand, shape)
    return builder.reshape(name, as_value(builder, operand), shape)


def pick(builder: GraphBuilder, name: str, operand: Operand, axis: int, index: int) -> Operand:
    """One index of a native axis, which disappears."""
    axis %= len(native_shape(operand))
    if isinstance(operand, np.ndarray):
        return np.asarray(np.take(operand, index, axis=axis))
    if isinstance(operand, Step):
        return views.index(operand, axis, index)
    return builder.pick(name, as_value(builder, operand), axis, index)


def cut(
    builder: GraphBuilder, name: str, operand: Operand, axis: int, start: int, stop: int, step: int = 1
) -> Operand:
    """A range of a native axis; bounds follow Python's rules for slices."""
    shape = native_shape(operand)
    axis %= len(shape)
    start, stop, step = slice(start, stop, step).indices(shape[axis])
    if (start, stop, step) == (0, shape[axis], 1):
        return operand
    if isinstance(operand, np.ndarray):
        return operand[(*(slice(None) for _ in range(axis)), slice(start, stop, step))]
    if isinstance(operand, Step) and step == 1:
        return views.slice_axis(operand, axis, start, stop)
    return builder.slice(name, as_value(builder, operand), axis, start, stop, step)


def concat(builder: GraphBuilder, name: str, operands: Sequence[Operand], axis: int) -> Operand:
    """Operands one behind the other along a native axis; what holds no number adds nothing."""
    operands = [operand for operand in operands if math.prod(native_shape(operand))] or operands
    axis %= len(native_shape(operands[0]))
    if all(isinstance(operand, np.ndarray) for operand in operands):
        return np.concatenate([np.asarray(operand) for operand in operands], axis)
    steps = [operand for operand in operands if isinstance(operand, Step)]
    if len(steps) == len(operands) and len(set(steps)) == len(steps):
        # A parameter beside itself is no layout: two parts of it would hold one tensor.
        return steps[0] if len(steps) == 1 else Join(tuple(steps), axis)
    if not any(isinstance(operand, Value) for operand in operands):
        shape = list(native_shape(operands[0]))
        shape[axis] = sum(native_shape(operand)[axis] for operand in operands)
        parts = tuple(item for item in operands if not isinstance(item, Value | Scaled))
        return ComputedParameter("Concat", parts, tuple(shape), float(axis))
    values = [as_value(builder, operand) for operand in operands]
    return values[0] if len(values) == 1 else builder.concat(name, values, axis)


def stack(builder: GraphBuilder, name: str, operands: Sequence[Operand], axis: int) -> Operand:
    """Operands along a new native axis; along the last but one it is a concatenation of features."""
    shape = native_shape(operands[0])
    axis %= len(shape) + 1
    if axis == len(shape) - 1 and axis > 0 and all(isinstance(operand, Value) for operand in operands):
        joined = concat(builder, name, operands, -1)
        return reshape(builder, name, joined, (*shape[:-1], len(operands), shape[-1]))
    grown = (*shape[:axis], 1, *shape[axis:])
    return concat(builder, name, [reshape(builder, name, operand, grown) for operand in operands], axis)


def broadcast_to(builder: GraphBuilder, name: str, operand: Operand, shape: Shape) -> Operand:
    """An operand as often as the native ``shape`` has it, by NumPy's rules."""
    if native_shape(operand) == shape:
        return operand
    if isinstance(operand, np.ndarray):
        return np.broadcast_to(operand, shape)
    return expand(builder, name, as_value(builder, operand), shape)
