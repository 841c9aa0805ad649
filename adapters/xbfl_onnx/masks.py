"""Truth values: comparisons, logic, choices and casts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from xbackend_fl.adapter import walk
from xbackend_fl.canonical.graph import axes_ops, logic, picking
from xbackend_fl.canonical.graph.operands import Operand
from xbfl_onnx.graph import Context, Handler, attributes, numbers, operand_handler, present, require


def _cast(context: Context, node: onnx.NodeProto) -> Operand:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
    return logic.cast(context.builder, node.name, present(context, node)[0], str(dtype))


def _cast_like(context: Context, node: onnx.NodeProto) -> Operand:
    """Data and parameters are float32; a constant beside them becomes so."""
    operand = present(context, node)[0]
    return operand.astype(np.float32) if isinstance(operand, np.ndarray) else operand


def _triangle(context: Context, node: onnx.NodeProto) -> Operand:
    value, diagonal = (*context.inputs(node), None)[:2]
    data = context.needed(value, node)
    offset = 0 if diagonal is None else numbers(diagonal, node)[0]
    ones = np.ones(data.native_shape[-2:], bool)
    kept = np.triu(ones, offset) if attributes(node).get("upper", 1) else np.tril(ones, offset)
    return logic.keep_where(context.builder, node.name, data, kept)


def _one_hot(context: Context, node: onnx.NodeProto) -> Operand:
    indices, depth, values = present(context, node)
    require(
        isinstance(depth, np.ndarray) and isinstance(values, np.ndarray),
        node,
        "a depth that depends on the data",
    )
    off, on = (float(n) for n in np.asarray(values).reshape(-1))
    made = picking.one_hot(context.builder, node.name, indices, numbers(depth, node)[0], on, off)
    rank = len(made.shape)
    order = [*range(rank - 1)]
    order.insert(attributes(node).get("axis", -1) % rank, rank - 1)
    return axes_ops.transpose(context.builder, made, order)


HANDLERS: Mapping[str, Handler] = {
    "Equal": operand_handler(walk.compare("eq")),
    "Less": operand_handler(walk.compare("lt")),
    "LessOrEqual": operand_handler(walk.compare("le")),
    "Greater": operand_handler(walk.compare("gt")),
    "GreaterOrEqual": operand_handler(walk.compare("ge")),
    **{name: operand_handler(walk.logical(name)) for name in ("And", "Or", "Xor")},
    "Not": operand_handler(logic.negate),
    "Where": operand_handler(logic.where),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Trilu": _triangle,
    "OneHot": _one_hot,
}
"""Operator of a node to its handler."""
