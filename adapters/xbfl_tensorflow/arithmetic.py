"""Functions of single elements, arithmetic of two, and reductions over axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackend_fl.adapter import walk
from xbackend_fl.canonical.graph import activations, axes_ops, reductions
from xbackend_fl.canonical.graph.operands import Operand, combine, scalar, unary
from xbfl_tensorflow.graph import Context, Operation, node_name, operand_handler, require, static_shape


def _leaky(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value = context.data(arguments[0])
    slope = round(float(node.get_attr("alpha")), 7)
    return context.builder.elementwise("LeakyRelu", node_name(context, node), value, alpha=slope)


def _floor_div(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name = node_name(context, node)
    require(node.outputs[0].dtype.is_floating, name, "a division of whole numbers")
    return unary(context.builder, "Floor", name, combine(context.builder, "Div", name, *arguments))


def _guarded(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """``DivNoNan`` by what is never zero: a number."""
    name = node_name(context, node)
    number = scalar(arguments[1])
    require(bool(number), name, "a division that yields zero where the divisor is zero")
    return combine(context.builder, "Div", name, *arguments)


def _squared_difference(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name = node_name(context, node)
    difference = context.data(combine(context.builder, "Sub", name, *arguments))
    return context.builder.elementwise("Pow", name, difference, constant=2.0)


def _bias_add(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, bias = arguments
    if node.get_attr("data_format") == b"NCHW":
        _, channels, *space = static_shape(node.outputs[0])
        bias = axes_ops.reshape(context.builder, node.name, bias, (channels, *(1,) * len(space)))
    return combine(context.builder, "Add", node_name(context, node), value, bias)


def _clip(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, low, high = arguments
    name = node_name(context, node)
    bounds = scalar(low), scalar(high)
    if None not in bounds and not isinstance(value, np.ndarray):
        return activations.clip(context.builder, name, context.data(value), *bounds)
    bounded = combine(context.builder, "Min", name, value, high)
    return combine(context.builder, "Max", name, bounded, low)


def _axes(arguments: list[Operand]) -> list[int]:
    return [int(axis) for axis in np.asarray(arguments[1]).reshape(-1)]


def _reduce(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value = context.data(arguments[0])
        keep, axes = bool(node.get_attr("keep_dims")), _axes(arguments)
        if not axes:
            return value
        return context.builder.reduce(operator, node_name(context, node), value, axes, keepdims=keep)

    return handle


def _norm(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, keep = context.data(arguments[0]), bool(node.get_attr("keep_dims"))
    name, axes = node_name(context, node), _axes(arguments)
    return reductions.norm(context.builder, name, value, axes, keepdims=keep, order=2.0)


def _arg_max(*, least: bool) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        axis = int(np.asarray(arguments[1]).item())
        name = node_name(context, node)
        return reductions.arg_max(context.builder, name, arguments[0], axis, keepdims=False, least=least)

    return handle


def _cum_sum(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    axis = int(np.asarray(arguments[1]).item())
    words = {word: int(bool(node.get_attr(word))) for word in ("exclusive", "reverse")}
    value = context.data(arguments[0])
    return context.builder.along("CumSum", node_name(context, node), value, axis, **words)


def _top_k(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    value = context.data(arguments[0])
    count = int(np.asarray(arguments[1]).item())
    return list(reductions.top_k(context.builder, node_name(context, node), value, -1, count))


_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign")

OPERATIONS: Mapping[str, Operation] = {
    **{name: operand_handler(walk.unary(name)) for name in (*walk.NAMED_FUNCTIONS, *_ACTIVATIONS)},
    "Rint": operand_handler(walk.unary("Round")),
    "Inv": operand_handler(walk.unary("Reciprocal")),
    "Rsqrt": operand_handler(walk.unary("Pow", constant=-0.5)),
    "Square": operand_handler(walk.unary("Pow", constant=2.0)),
    "Expm1": operand_handler(activations.expm1),
    "Log1p": operand_handler(activations.log1p),
    **{
        name: operand_handler(walk.activation(word))
        for name, word in (("Relu6", "relu6"), ("Elu", "elu"), ("Selu", "selu"))
    },
    "LeakyRelu": _leaky,
    "Softmax": operand_handler(walk.along("Softmax", -1)),
    "LogSoftmax": operand_handler(walk.along("LogSoftmax", -1)),
    **dict.fromkeys(("Add", "AddV2", "AddN"), operand_handler(walk.binary("Add"))),
    "Sub": operand_handler(walk.binary("Sub")),
    **dict.fromkeys(("Mul", "MulNoNan"), operand_handler(walk.binary("Mul"))),
    **dict.fromkeys(("RealDiv", "Div"), operand_handler(walk.binary("Div"))),
    "DivNoNan": _guarded,
    "FloorDiv": _floor_div,
    "FloorMod": operand_handler(walk.binary("Mod")),
    "Pow": operand_handler(activations.power),
    "Maximum": operand_handler(walk.binary("Max")),
    "Minimum": operand_handler(walk.binary("Min")),
    "SquaredDifference": _squared_difference,
    "BiasAdd": _bias_add,
    "ClipByValue": _clip,
    "Mean": _reduce("ReduceMean"),
    "Max": _reduce("ReduceMax"),
    "Min": _reduce("ReduceMin"),
    "Sum": _reduce("ReduceSum"),
    "Prod": _reduce("ReduceProd"),
    "EuclideanNorm": _norm,
    "ArgMax": _arg_max(least=False),
    "ArgMin": _arg_max(least=True),
    "Cumsum": _cum_sum,
    "TopKV2": _top_k,
}
"""Type of a graph operation to its handler."""
