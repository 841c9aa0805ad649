"""Truth values as TensorFlow computes them: comparisons, logic, choices and casts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackend_fl.adapter import walk
from xbackend_fl.canonical.graph import logic
from xbackend_fl.canonical.graph.operands import Operand
from xbfl_tensorflow.graph import Context, Operation, node_name, operand_handler, require, static_shape


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
    return logic.keep_where(context.builder, name, value, kept)


def _any(*, every: bool) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        axes = [int(axis) for axis in np.asarray(arguments[1]).reshape(-1)]
        name, keep = node_name(context, node), bool(node.get_attr("keep_dims"))
        return logic.any_along(context.builder, name, arguments[0], axes, keepdims=keep, every=every)

    return handle


def _select_first(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """``tf.compat.v1.where``: a mask of rank one picks whole rows."""
    mask, chosen, other = arguments
    shape, full = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if len(shape) == 1 != len(full):
        value = context.data(mask)
        mask = context.builder.reshape(node_name(context, node), value, (*shape, *(1,) * (len(full) - 1)))
    return logic.where(context.builder, node_name(context, node), mask, chosen, other)


OPERATIONS: Mapping[str, Operation] = {
    "Equal": operand_handler(walk.compare("eq")),
    "NotEqual": operand_handler(walk.compare("ne")),
    "Less": operand_handler(walk.compare("lt")),
    "LessEqual": operand_handler(walk.compare("le")),
    "Greater": operand_handler(walk.compare("gt")),
    "GreaterEqual": operand_handler(walk.compare("ge")),
    "LogicalAnd": operand_handler(walk.logical("And")),
    "LogicalOr": operand_handler(walk.logical("Or")),
    "LogicalNot": operand_handler(logic.negate),
    "SelectV2": operand_handler(logic.where),
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
