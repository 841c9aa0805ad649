"""Functions of single elements, arithmetic of two, and reductions over axes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from xbackend_fl.adapter import walk
from xbackend_fl.canonical.graph import activations, contractions, reductions
from xbackend_fl.canonical.graph.operands import Operand, combine, scalar, unary
from xbackend_fl.canonical.value import Value
from xbfl_onnx.graph import Context, Handler, attributes, numbers, operand_handler, present, require

_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Celu": {"alpha": 1.0},
    "ThresholdedRelu": {"alpha": 1.0},
    "Shrink": {"lambd": 0.5, "bias": 0.0},
    "Selu": activations.SELU,
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Swish")


def _unary(context: Context, node: onnx.NodeProto) -> Operand:
    given = {**_DEFAULTS.get(node.op_type, {}), **attributes(node)}
    require(node.op_type != "Swish" or given.pop("alpha", 1.0) == 1.0, node, "a steeper Swish")
    extra = {name: float(f"{value:.7g}") for name, value in given.items()}
    return unary(context.builder, node.op_type, node.name, present(context, node)[0], **extra)


def _gelu(context: Context, node: onnx.NodeProto) -> Operand:
    value = context.needed(context.inputs(node)[0], node)
    mode = attributes(node).get("approximate", "none")
    return context.builder.elementwise("Gelu", node.name, value, approximate=mode)


def _clip(context: Context, node: onnx.NodeProto) -> Operand:
    value, low, high = (*context.inputs(node), None, None)[:3]
    given = attributes(node)
    bounds = [
        given.get(word) if item is None else scalar(item) for word, item in (("min", low), ("max", high))
    ]
    missing = any(item is not None and bound is None for item, bound in zip((low, high), bounds, strict=True))
    require(not missing, node, "bounds that depend on the data")
    return activations.clip(context.builder, node.name, context.needed(value, node), *bounds)


def _along(context: Context, node: onnx.NodeProto) -> Operand:
    value = context.needed(context.inputs(node)[0], node)
    return context.builder.along(node.op_type, node.name, value, attributes(node).get("axis", -1))


def _lp_normalization(context: Context, node: onnx.NodeProto) -> Operand:
    given, value = attributes(node), context.needed(context.inputs(node)[0], node)
    axis = given.get("axis", -1)
    if given.get("p", 2) == 2:
        return context.builder.along("LpNormalization", node.name, value, axis)
    norm = reductions.norm(context.builder, node.name, value, [axis], keepdims=True, order=1.0)
    return context.builder.binary("Div", node.name, value, norm)


def _mean(context: Context, node: onnx.NodeProto) -> Operand:
    total = walk.binary("Add")(context.builder, node.name, *present(context, node))
    return combine(context.builder, "Mul", node.name, total, 1.0 / len(node.input))


def _mod(context: Context, node: onnx.NodeProto) -> Operand:
    require(not attributes(node).get("fmod"), node, "fmod: the remainder with the sign of the dividend")
    left, right = present(context, node)
    return combine(context.builder, "Mod", node.name, left, right)


def _axes(context: Context, node: onnx.NodeProto, value: Value) -> list[int]:
    given, operands = attributes(node), context.inputs(node)
    told = given.get("axes")
    if told is None and len(operands) > 1 and operands[1] is not None:
        told = numbers(operands[1], node)
    return reductions.every_axis(told, len(value.shape))


def _reduce(context: Context, node: onnx.NodeProto) -> Operand:
    value = context.needed(context.inputs(node)[0], node)
    keep, kind = bool(attributes(node).get("keepdims", 1)), node.op_type
    axes, builder = _axes(context, node, value), context.builder
    if kind in {"ReduceL1", "ReduceL2"}:
        order = float(kind[-1])
        return reductions.norm(builder, node.name, value, axes, keepdims=keep, order=order)
    if kind == "ReduceSumSquare":
        value = builder.elementwise("Pow", node.name, value, constant=2.0)
    operator = "ReduceSum" if kind in {"ReduceSumSquare", "ReduceLogSum"} else kind
    made = builder.reduce(operator, node.name, value, axes, keepdims=keep)
    return builder.elementwise("Log", node.name, made) if kind == "ReduceLogSum" else made


def _arg_max(context: Context, node: onnx.NodeProto) -> Operand:
    given = attributes(node)
    require(not given.get("select_last_index"), node, "the last of equal ones")
    return reductions.arg_max(
        context.builder,
        node.name,
        present(context, node)[0],
        given.get("axis", 0),
        keepdims=bool(given.get("keepdims", 1)),
        least=node.op_type == "ArgMin",
    )


def _top_k(context: Context, node: onnx.NodeProto) -> list[Operand]:
    value, count = present(context, node)
    given = attributes(node)
    require(bool(given.get("largest", 1) and given.get("sorted", 1)), node, "the least, or in no order")
    data = context.needed(value, node)
    k = numbers(count, node)[0]
    return list(reductions.top_k(context.builder, node.name, data, given.get("axis", -1), k))


def _cum_sum(context: Context, node: onnx.NodeProto) -> Operand:
    value, axis = present(context, node)
    words = {word: int(attributes(node).get(word, 0)) for word in ("exclusive", "reverse")}
    data = context.needed(value, node)
    return context.builder.along("CumSum", node.name, data, numbers(axis, node)[0], **words)


def _rms_norm(context: Context, node: onnx.NodeProto) -> Operand:
    value, weight = present(context, node)
    given = attributes(node)
    rank = len(context.needed(value, node).shape)
    axes = list(range(given.get("axis", -1) % rank, rank))
    epsilon = float(f"{given.get('epsilon', 1e-5):.6g}")
    return reductions.rms_norm(context.builder, node.name, value, axes, weight, epsilon)


def _einsum(context: Context, node: onnx.NodeProto) -> Operand:
    equation = str(attributes(node)["equation"])
    return contractions.einsum(context.builder, node.name, equation, present(context, node))


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys((*walk.NAMED_FUNCTIONS, *_ACTIVATIONS, *_DEFAULTS), _unary),
    "Gelu": _gelu,
    "Clip": _clip,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _along),
    "LpNormalization": _lp_normalization,
    **{name: operand_handler(walk.binary(name)) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    "Sum": operand_handler(walk.binary("Add")),
    "Mean": _mean,
    "Pow": operand_handler(activations.power),
    "Mod": _mod,
    **dict.fromkeys(
        (
            *("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceProd", "ReduceLogSumExp"),
            *("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"),
        ),
        _reduce,
    ),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg_max),
    "TopK": _top_k,
    "CumSum": _cum_sum,
    "RMSNormalization": _rms_norm,
    "Einsum": _einsum,
}
"""Operator of a node to its handler."""
