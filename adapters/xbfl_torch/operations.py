"""Elementwise operations, reductions and the movement of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.fx import Node

from xbackend_fl.canonical import Value, movement, training
from xbackend_fl.canonical.operands import Operand, combine, expand, is_causal_mask, unary
from xbfl_torch.graph import Context, Handler, native_shape, require


def _unary(operator: str, **attributes: float) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        return unary(context.builder, operator, context.name(node), context.get(node.args[0]), **attributes)

    return handle


def _power(exponent: float) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        operand = context.get(node.args[0])
        return unary(context.builder, "Pow", context.name(node), operand, constant=exponent)

    return handle


def _renamed(operator: str, **names: str) -> Handler:
    """An activation whose arguments become attributes under ONNX's names."""

    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        given = {ours: a[theirs] for ours, theirs in names.items() if a[theirs] is not None}
        attributes = {key: v if isinstance(v, str) else float(v) for key, v in given.items()}
        return context.builder.elementwise(
            operator, context.name(node), context.data(a["self"]), **attributes
        )

    return handle


def _elu(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    require(a["scale"] == 1 and a["input_scale"] == 1, context.name(node), "scaled ELU")
    return context.builder.elementwise(
        "Elu", context.name(node), context.data(a["self"]), alpha=float(a["alpha"])
    )


def _softplus(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    require(a["beta"] == 1, context.name(node), "softplus with beta other than 1")
    return unary(context.builder, "Softplus", context.name(node), a["self"])


def _softmax(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        return context.builder.along(operator, context.name(node), context.data(a["self"]), a["dim"])

    return handle


def _promoted(context: Context, node: Node, argument: Any) -> Operand:
    """An argument in the type of numbers of what the node yields: PyTorch makes floats of whole numbers beside them."""
    operand: Operand = context.get(argument)
    there = node.meta["val"].dtype
    if not isinstance(argument, Node) or argument.meta["val"].dtype == there or not there.is_floating_point:
        return operand
    dtype = str(there).removeprefix("torch.")
    if isinstance(operand, np.ndarray):
        return operand.astype(dtype)
    if isinstance(operand, Value) and not argument.meta["val"].dtype.is_floating_point:
        return context.builder.elementwise("Cast", context.name(node), operand, to=dtype)
    return operand


def _binary(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        left, right = (_promoted(context, node, argument) for argument in node.args[:2])
        name, builder = context.name(node, left, right), context.builder
        require(bool(node.kwargs.get("alpha", 1) == 1), name, "alpha other than 1")
        require(node.kwargs.get("rounding_mode") is None, name, "a rounding division")
        return combine(builder, operator, name, left, right)

    return handle


def _turned(context: Context, node: Node) -> Operand:
    """``rsub``: what comes second, less what comes first."""
    left, right = (_promoted(context, node, argument) for argument in (node.args[1], node.args[0]))
    name = context.name(node, left, right)
    require(bool(node.kwargs.get("alpha", 1) == 1), name, "alpha other than 1")
    return combine(context.builder, "Sub", name, left, right)


def _reduce(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        axes = a.get("dim")
        value = context.data(a["self"])
        axes = list(range(len(value.shape))) if axes is None or axes == [] else axes
        axes = [axes] if isinstance(axes, int) else axes
        return context.builder.reduce(
            operator, context.name(node), value, axes, keepdims=a.get("keepdim", False)
        )

    return handle


def _reshape(context: Context, node: Node) -> Operand:
    operand = context.get(node.args[0])
    return movement.reshape(context.builder, context.name(node), operand, native_shape(node))


def _transpose(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    axes = list(range(len(native_shape(node))))
    first, second = a.get("dim0", 0), a.get("dim1", 1)
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    return movement.transpose(context.builder, a["self"], axes)


def _permute(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return movement.transpose(context.builder, a["self"], a["dims"])


def _expand(context: Context, node: Node) -> Operand:
    operand = context.get(node.args[0])
    shape = native_shape(node)
    if isinstance(operand, np.ndarray):
        return np.broadcast_to(operand, shape)
    return expand(context.builder, context.name(node), context.data(operand), shape)


def _chunks(context: Context, node: Node) -> list[Operand]:
    a = context.arguments(node)
    axis = a["dim"]
    sizes = [tuple(part.shape)[axis] for part in node.meta["val"]]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        movement.cut(context.builder, context.name(node), a["self"], axis, start, start + size)
        for start, size in zip(starts, sizes, strict=True)
    ]


def _masked_fill(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, mask = context.name(node), a["mask"]
    hidden = isinstance(mask, np.ndarray) and mask.dtype == bool and is_causal_mask(~mask)
    require(hidden and float(a["value"]) <= -1e4, name, "a mask other than the causal one")
    return context.builder.elementwise("CausalMask", name, context.data(a["self"]))


def _pad(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    value = context.data(a["self"])
    pads = a["pad"]
    rank = len(value.shape)
    pairs = {rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)}
    mode = {"replicate": "edge", "circular": "wrap"}.get(a.get("mode", "constant"), a.get("mode", "constant"))
    fill = float(a.get("value") or 0.0)
    return context.builder.pad(context.name(node), value, pairs, fill, mode)


def _upsample(mode: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        value = context.data(a["input"])
        name = context.name(node)
        before, after = value.native_shape[2:], native_shape(node)[2:]
        require(all(n % m == 0 for n, m in zip(after, before, strict=True)), name, "a fractional scale")
        scales = tuple(n // m for n, m in zip(after, before, strict=True))
        corners = int(bool(a.get("align_corners")))
        return context.builder.window(
            "Resize", name, value, 1, native_shape(node), scales=scales, mode=mode, align_corners=corners
        )

    return handle


def _dropout(context: Context, node: Node) -> Value:
    spatial = "feature" in str(node.target)
    value = context.data(context.get(node.args[0]))
    rate, place = context.drop(node, "feature_dropout" if spatial else "dropout")
    shared = range(2, len(value.shape)) if spatial else ()
    return training.dropout(context.builder, context.name(node), value, rate, shared, place)


def pass_by(context: Context, node: Node) -> None:
    """Count an operation that reaches no output: its call drops all the same, and takes its turn in the rehearsal."""
    if HANDLERS.get(str(node.target).removeprefix("aten.")) is _dropout:
        context.drop(node, "feature_dropout" if "feature" in str(node.target) else "dropout")


def _rrelu(context: Context, node: Node) -> Value:
    """In evaluation the mean of its slopes; the rehearsal says that it draws them in training."""
    a = context.arguments(node)
    slope = (float(a["lower"]) + float(a["upper"])) / 2
    return context.builder.elementwise("LeakyRelu", context.name(node), context.data(a["self"]), alpha=slope)


def _same(context: Context, node: Node) -> Any:
    return context.get(node.args[0])


def _cast(context: Context, node: Node) -> Operand:
    value: Operand = context.get(node.args[0])
    dtype = str(node.meta["val"].dtype).removeprefix("torch.")
    source = node.args[0]
    assert isinstance(source, Node)
    if node.meta["val"].dtype == source.meta["val"].dtype:
        return value
    return context.builder.elementwise("Cast", context.name(node), context.data(value), to=dtype)


HANDLERS: Mapping[str, Handler] = {
    **{f"{name}.default": _unary("Relu") for name in ("relu", "relu_")},
    **{f"{name}.default": _unary("Clip", min=0.0, max=6.0) for name in ("relu6", "relu6_")},
    **{
        f"{name}.default": _renamed("Clip", min="min_val", max="max_val")
        for name in ("hardtanh", "hardtanh_")
    },
    "clamp.default": _renamed("Clip", min="min", max="max"),
    "clamp_min.default": _renamed("Clip", min="min"),
    **{
        f"{name}.default": _renamed("LeakyRelu", alpha="negative_slope")
        for name in ("leaky_relu", "leaky_relu_")
    },
    **{f"{name}.default": _elu for name in ("elu", "elu_")},
    **{
        f"{name}.default": _unary("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805)
        for name in ("selu", "selu_")
    },
    **{f"{name}.default": _unary("Swish") for name in ("silu", "silu_")},
    **{f"{name}.default": _unary("Mish") for name in ("mish", "mish_")},
    **{f"{name}.default": _unary("HardSwish") for name in ("hardswish", "hardswish_")},
    **{
        f"{name}.default": _unary("HardSigmoid", alpha=1 / 6, beta=0.5)
        for name in ("hardsigmoid", "hardsigmoid_")
    },
    "gelu.default": _renamed("Gelu", approximate="approximate"),
    "softplus.default": _softplus,
    "sigmoid.default": _unary("Sigmoid"),
    "tanh.default": _unary("Tanh"),
    "exp.default": _unary("Exp"),
    "log.default": _unary("Log"),
    "sqrt.default": _unary("Sqrt"),
    "neg.default": _unary("Neg"),
    "abs.default": _unary("Abs"),
    "reciprocal.default": _unary("Reciprocal"),
    "erf.default": _unary("Erf"),
    "softmax.int": _softmax("Softmax"),
    "log_softmax.int": _softmax("LogSoftmax"),
    **{
        f"{name}{mark}.{overload}": _binary(kind)
        for name, kind in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"))
        for mark in ("", "_")
        for overload in ("Tensor", "Scalar")
    },
    **dict.fromkeys(("rsub.Scalar", "rsub.Tensor"), _turned),
    "pow.Tensor_Scalar": _binary("Pow"),
    "maximum.default": _binary("Max"),
    "minimum.default": _binary("Min"),
    "mean.dim": _reduce("ReduceMean"),
    "mean.default": _reduce("ReduceMean"),
    "sum.dim_IntList": _reduce("ReduceSum"),
    "sum.default": _reduce("ReduceSum"),
    "amax.default": _reduce("ReduceMax"),
    **dict.fromkeys(
        (
            "flatten.using_ints",
            "view.default",
            "view_as.default",
            "reshape.default",
            "unflatten.int",
            "_unsafe_view.default",
        ),
        _reshape,
    ),
    **dict.fromkeys(("transpose.int", "t.default", "numpy_T.default"), _transpose),
    **dict.fromkeys(("expand.default", "broadcast_to.default"), _expand),
    **dict.fromkeys(("masked_fill.Scalar", "masked_fill.Tensor"), _masked_fill),
    "sin.default": _unary("Sin"),
    "cos.default": _unary("Cos"),
    "rsqrt.default": _power(-0.5),
    "square.default": _power(2.0),
    "permute.default": _permute,
    "chunk.default": _chunks,
    **dict.fromkeys(("split.Tensor", "split.sizes", "split_with_sizes.default"), _chunks),
    "pad.default": _pad,
    "constant_pad_nd.default": _pad,
    **{f"upsample_nearest{n}d.vec": _upsample("nearest") for n in (1, 2, 3)},
    "upsample_bilinear2d.vec": _upsample("linear"),
    **{f"{name}{mark}.default": _dropout for name in ("dropout", "feature_dropout") for mark in ("", "_")},
    **{
        f"{name}{mark}.default": _same
        for name in ("alpha_dropout", "feature_alpha_dropout")
        for mark in ("", "_")
    },
    **dict.fromkeys(("rrelu.default", "rrelu_.default"), _rrelu),
    **dict.fromkeys(("contiguous.default", "clone.default", "alias.default", "detach.default"), _same),
    **dict.fromkeys(("to.dtype", "_to_copy.default", "to.dtype_layout"), _cast),
}
