"""Reductions over axes, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.fx import Node

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import reductions
from xbackend_fl.canonical.graph.operands import Operand, combine
from xbackend_fl.canonical.graph.reductions import every_axis
from xbfl_torch.graph import Context, Handler, native_shape, require


def _axes(a: Mapping[str, Any], value: Value) -> list[int]:
    return every_axis(a.get("dim"), len(value.shape))


def _reduce(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        value = context.data(a["self"])
        value = _numbers(context, node, value)
        return context.builder.reduce(
            operator, context.name(node), value, _axes(a, value), keepdims=bool(a.get("keepdim", False))
        )

    return handle


def _numbers(context: Context, node: Node, value: Value) -> Value:
    """Truth values, and whole numbers whose mean is a float, as the numbers that PyTorch makes of them."""
    found = node.meta["val"]
    made = str((found[0] if isinstance(found, tuple | list) else found).dtype).removeprefix("torch.")
    if context.builder.recorder.dtype(value.name) == made:
        return value
    return context.builder.elementwise("Cast", context.name(node), value, to=made)


def _extreme(operator: str) -> Handler:
    """``max`` and ``min``: over an axis with positions, over everything, or of two tensors."""
    least = operator == "ReduceMin"

    def handle(context: Context, node: Node) -> Any:
        a = context.arguments(node)
        name, builder = context.name(node), context.builder
        if "other" in a:
            return combine(builder, "Min" if least else "Max", name, a["self"], a["other"])
        value = context.data(a["self"])
        keep = bool(a.get("keepdim", False))
        found = builder.reduce(operator, name, value, _axes(a, value), keepdims=keep)
        if a.get("dim") is None:
            return found
        return found, reductions.arg_max(builder, name, value, a["dim"], keepdims=keep, least=least)

    return handle


def _arg_max(*, least: bool) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        a = context.arguments(node)
        value, name = context.data(a["self"]), context.name(node)
        require(a["dim"] is not None, name, "the position in the flattened whole")
        return reductions.arg_max(context.builder, name, value, a["dim"], keepdims=a["keepdim"], least=least)

    return handle


def _spread(*, root: bool) -> Handler:
    function = reductions.deviation if root else reductions.variance

    def handle(context: Context, node: Node) -> Any:
        a = context.arguments(node)
        value, name = context.data(a["self"]), context.name(node)
        axes, keep = _axes(a, value), bool(a.get("keepdim", False))
        correction = a.get("correction", 1 if a.get("unbiased", True) else 0)
        correction = 1 if correction is None else correction
        found = function(context.builder, name, value, axes, keepdims=keep, correction=float(correction))
        if "mean" not in str(node.target):
            return found
        return found, context.builder.reduce("ReduceMean", name, value, axes, keepdims=keep)

    return handle


def _norm(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    value = context.data(a["self"])
    order = a.get("ord", a.get("p", 2))
    return reductions.norm(
        context.builder,
        context.name(node),
        value,
        _axes(a, value),
        keepdims=bool(a.get("keepdim", False)),
        order=2.0 if order is None else float(order),
    )


def _cum_sum(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    value = _numbers(context, node, context.data(a["self"]))
    return context.builder.along("CumSum", context.name(node), value, a["dim"], exclusive=0, reverse=0)


def _softmax(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        return context.builder.along(operator, context.name(node), context.data(a["self"]), a["dim"])

    return handle


def _rms_norm(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, weight = context.name(node, a["weight"]), a["weight"]
    rank, count = len(native_shape(node)), len(a["normalized_shape"])
    epsilon = 1.1920928955078125e-07 if a["eps"] is None else float(a["eps"])
    axes = list(range(rank - count, rank))
    return reductions.rms_norm(context.builder, name, a["input"], axes, weight, epsilon)


def _top_k(context: Context, node: Node) -> tuple[Value, Value]:
    a = context.arguments(node)
    value, name = context.data(a["self"]), context.name(node)
    require(a["largest"] and a["sorted"] is not False, name, "topk of the least, or in no order")
    return reductions.top_k(context.builder, name, value, a["dim"], a["k"])


def _sort(context: Context, node: Node) -> tuple[Value, Value]:
    a = context.arguments(node)
    value, name = context.data(a["self"]), context.name(node)
    require(a["descending"], name, "sort in rising order", "torch: sort(descending=True), then flip")
    return reductions.top_k(context.builder, name, value, a["dim"], value.native_shape[a["dim"]])


HANDLERS: Mapping[str, Handler] = {
    "mean": _reduce("ReduceMean"),
    "sum": _reduce("ReduceSum"),
    "prod": _reduce("ReduceProd"),
    "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"),
    "logsumexp": _reduce("ReduceLogSumExp"),
    "max": _extreme("ReduceMax"),
    "min": _extreme("ReduceMin"),
    "maximum": _extreme("ReduceMax"),
    "minimum": _extreme("ReduceMin"),
    "argmax": _arg_max(least=False),
    "argmin": _arg_max(least=True),
    **dict.fromkeys(("var", "var_mean"), _spread(root=False)),
    **dict.fromkeys(("std", "std_mean"), _spread(root=True)),
    **dict.fromkeys(("linalg_vector_norm", "norm", "linalg_norm"), _norm),
    "cumsum": _cum_sum,
    **dict.fromkeys(("softmax", "_softmax", "special_softmax"), _softmax("Softmax")),
    **dict.fromkeys(("log_softmax", "_log_softmax", "special_log_softmax"), _softmax("LogSoftmax")),
    "rms_norm": _rms_norm,
    "topk": _top_k,
    "sort": _sort,
}
"""Names of operations, without their overloads, to their handlers."""
