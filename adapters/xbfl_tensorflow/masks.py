"""Truth values as TensorFlow computes them: comparisons, logic, choices and casts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackend_fl.canonical.graph import logic
from xbackend_fl.canonical.graph.operands import Operand, as_value, combine
from xbfl_tensorflow.graph import Context, Operation, node_name, require, static_shape


def _compare(word: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        left, right = arguments
        return logic.compare(context.builder, word, node_name(context, node), left, right)

    return handle


def _logical(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        left, right = arguments
        return logic.logical(context.builder, operator, node_name(context, node), left, right)

    return handle


def _not(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    return logic.negate(context.builder, node_name(context, node), arguments[0])


def _where(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    mask, chosen, other = arguments
    return logic.where(context.builder, node_name(context, node), mask, chosen, other)


def _cast(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    if node.inputs[0].dtype == node.outputs[0].dtype:
        return arguments[0]
    return logic.cast(
        context.builder, node_name(context, node), arguments[0], str(node.outputs[0].dtype.name)
    )


def _constant(*, truth: bool) -> Operation:
    """Whether numbers are finite, or none: a model is compared where they are."""

    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        del context, arguments
        return np.full(static_shape(node.outputs[0]), truth)

    return handle


def _filled(number: float) -> Operation:
    """A tensor of one number, made in the shape of another."""

    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        del context, arguments
        return np.full(static_shape(node.outputs[0]), number, node.outputs[0].dtype.as_numpy_dtype)

    return handle


def _fill(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name = node_name(context, node)
    require(isinstance(arguments[1], np.ndarray), name, "a fill that depends on the data")
    return np.full(static_shape(node.outputs[0]), np.asarray(arguments[1]))


def _band(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """A band of the last two axes of data, with zeros elsewhere."""
    value, low, high = arguments
    name = node_name(context, node)
    require(
        all(isinstance(item, np.ndarray) for item in (low, high)), name, "a band that depends on the data"
    )
    below, above = int(np.asarray(low)), int(np.asarray(high))
    rows, columns = np.indices(static_shape(node.outputs[0])[-2:])
    kept = ((below < 0) | (rows - columns <= below)) & ((above < 0) | (columns - rows <= above))
    if logic.is_truth(context.builder, value):
        return logic.logical(context.builder, "And", name, value, kept)
    return combine(context.builder, "Mul", name, value, kept.astype(np.float32))


def _any(*, every: bool) -> Operation:
    """Whether any, or every, element along some axes is true."""

    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        name, builder = node_name(context, node), context.builder
        truth = logic.truth(builder, name, arguments[0])
        axes = [int(axis) for axis in np.asarray(arguments[1]).reshape(-1)]
        numbers = builder.elementwise("Cast", name, truth, to="float32")
        keep = bool(node.get_attr("keep_dims"))
        found = builder.reduce("ReduceMin" if every else "ReduceMax", name, numbers, axes, keepdims=keep)
        return builder.elementwise("Greater", name, found, constant=0.5)

    return handle


def _select_first(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """``tf.compat.v1.where``: a mask of rank one picks whole rows."""
    mask, chosen, other = arguments
    shape, full = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if len(shape) == 1 != len(full):
        value = as_value(context.builder, mask)
        mask = context.builder.reshape(node_name(context, node), value, (*shape, *(1,) * (len(full) - 1)))
    return logic.where(context.builder, node_name(context, node), mask, chosen, other)


OPERATIONS: Mapping[str, Operation] = {
    "Equal": _compare("eq"),
    "NotEqual": _compare("ne"),
    "Less": _compare("lt"),
    "LessEqual": _compare("le"),
    "Greater": _compare("gt"),
    "GreaterEqual": _compare("ge"),
    "LogicalAnd": _logical("And"),
    "LogicalOr": _logical("Or"),
    "LogicalNot": _not,
    "SelectV2": _where,
    "Select": _select_first,
    "Cast": _cast,
    "IsFinite": _constant(truth=True),
    **dict.fromkeys(("IsNan", "IsInf"), _constant(truth=False)),
    "ZerosLike": _filled(0),
    "OnesLike": _filled(1),
    "Fill": _fill,
    "MatrixBandPart": _band,
    "Any": _any(every=False),
    "All": _any(every=True),
}
"""Type of a graph operation to its handler."""
