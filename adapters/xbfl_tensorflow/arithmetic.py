"""Functions of single elements, arithmetic of two, and reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xbackend_fl.canonical import GraphBuilder
from xbackend_fl.canonical.graph import activations, axes_ops, reductions
from xbackend_fl.canonical.graph.operands import Operand, as_value, combine, scalar, unary
from xbfl_tensorflow.graph import Context, Operation, node_name, require, static_shape


def _unary(operator: str, **attributes: float) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        return unary(context.builder, operator, node_name(context, node), arguments[0], **attributes)

    return handle


def _of_operand(function: Callable[[GraphBuilder, str, Operand], Operand]) -> Operation:
    return lambda context, node, arguments: function(context.builder, node_name(context, node), arguments[0])


def _activation(word: str) -> Operation:
    made = activations.PLAIN[word]
    return lambda context, node, arguments: made(
        context.builder, node_name(context, node), as_value(context.builder, arguments[0])
    )


def _leaky(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value = as_value(context.builder, arguments[0])
    slope = round(float(node.get_attr("alpha")), 7)
    return context.builder.elementwise("LeakyRelu", node_name(context, node), value, alpha=slope)


def _binary(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        left, right = arguments
        return combine(context.builder, operator, node_name(context, node), left, right)

    return handle


def _power(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    return activations.power(context.builder, node_name(context, node), arguments[0], arguments[1])


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
    difference = as_value(context.builder, combine(context.builder, "Sub", name, *arguments))
    return context.builder.elementwise("Pow", name, difference, constant=2.0)


def _add_all(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    total, *rest = arguments
    for operand in rest:
        total = combine(context.builder, "Add", node_name(context, node), total, operand)
    return total


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
        return activations.clip(context.builder, name, as_value(context.builder, value), *bounds)
    bounded = combine(context.builder, "Min", name, value, high)
    return combine(context.builder, "Max", name, bounded, low)


def _axes(arguments: list[Operand]) -> list[int]:
    return [int(axis) for axis in np.asarray(arguments[1]).reshape(-1)]


def _reduce(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value = as_value(context.builder, arguments[0])
        keep, axes = bool(node.get_attr("keep_dims")), _axes(arguments)
        if not axes:
            return value
        return context.builder.reduce(operator, node_name(context, node), value, axes, keepdims=keep)

    return handle


def _norm(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, keep = as_value(context.builder, arguments[0]), bool(node.get_attr("keep_dims"))
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
    value = as_value(context.builder, arguments[0])
    return context.builder.along("CumSum", node_name(context, node), value, axis, **words)


def _top_k(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    value = as_value(context.builder, arguments[0])
    count = int(np.asarray(arguments[1]).item())
    return list(reductions.top_k(context.builder, node_name(context, node), value, -1, count))


def _softmax(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value = as_value(context.builder, arguments[0])
        return context.builder.along(operator, node_name(context, node), value, -1)

    return handle


_ONE_TO_ONE = (
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Exp", "Log", "Sqrt", "Neg", "Abs"),
    *("Reciprocal", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh"),
    *("Atanh", "Sign", "Floor", "Ceil"),
)

OPERATIONS: Mapping[str, Operation] = {
    **{name: _unary(name) for name in _ONE_TO_ONE},
    **dict.fromkeys(("Round", "Rint"), _unary("Round")),
    "Inv": _unary("Reciprocal"),
    "Rsqrt": _unary("Pow", constant=-0.5),
    "Square": _unary("Pow", constant=2.0),
    "Expm1": _of_operand(activations.expm1),
    "Log1p": _of_operand(activations.log1p),
    **{name: _activation(word) for name, word in (("Relu6", "relu6"), ("Elu", "elu"), ("Selu", "selu"))},
    "LeakyRelu": _leaky,
    "Softmax": _softmax("Softmax"),
    "LogSoftmax": _softmax("LogSoftmax"),
    **dict.fromkeys(("Add", "AddV2"), _binary("Add")),
    "AddN": _add_all,
    "Sub": _binary("Sub"),
    **dict.fromkeys(("Mul", "MulNoNan"), _binary("Mul")),
    **dict.fromkeys(("RealDiv", "Div"), _binary("Div")),
    "DivNoNan": _guarded,
    "FloorDiv": _floor_div,
    "FloorMod": _binary("Mod"),
    "Pow": _power,
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
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
