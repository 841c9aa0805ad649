"""Arithmetic, and the movement of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import activations, axes_ops, logic, training, windows
from xbackend_fl.canonical.graph.operands import Operand, combine, unary
from xbfl_torch.graph import Context, Handler, base_name, native_shape, require


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
        alpha: Any = node.kwargs.get("alpha", 1)
        if alpha != 1:
            right = combine(builder, "Mul", name, right, float(alpha))
        mode = node.kwargs.get("rounding_mode") or ("floor" if base_name(node) == "floor_divide" else None)
        if operator == "Pow":
            return activations.power(builder, name, left, right)
        if (truths := _of_truths(context, node, operator)) is not None:
            return truths
        # Of negative whole numbers ONNX's division is another one.
        require(mode is None or node.meta["val"].dtype.is_floating_point, name, "a division of whole numbers")
        made = combine(builder, operator, name, left, right)
        if mode is None:
            return made
        require(mode == "floor", name, "a division that rounds to zero")
        return unary(builder, "Floor", name, made)

    return handle


def _of_truths(context: Context, node: Node, operator: str) -> Operand | None:
    """A sum or product of truth values, which PyTorch calls one."""
    if node.meta["val"].dtype != torch.bool:
        return None
    word = {"Add": "Or", "Mul": "And"}.get(operator)
    require(word is not None, context.name(node), f"{operator} of truth values")
    left, right = (context.get(item) for item in node.args[:2])
    return logic.logical(context.builder, str(word), context.name(node), left, right)


def _remainder(context: Context, node: Node) -> Operand:
    left, right = (_promoted(context, node, argument) for argument in node.args[:2])
    name = context.name(node, left, right)
    require("fmod" not in str(node.target), name, "fmod: the remainder with the sign of the dividend")
    return combine(context.builder, "Mod", name, left, right)


def _turned(context: Context, node: Node) -> Operand:
    """``rsub``: what comes second, less what comes first."""
    left, right = (_promoted(context, node, argument) for argument in (node.args[1], node.args[0]))
    name = context.name(node, left, right)
    alpha = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
    require(bool(alpha == 1), name, "alpha other than 1")
    return combine(context.builder, "Sub", name, left, right)


def _reshape(context: Context, node: Node) -> Operand:
    operand = context.get(node.args[0])
    return axes_ops.reshape(context.builder, context.name(node), operand, native_shape(node))


def _transpose(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    axes = list(range(len(native_shape(node))))
    default = (-2, -1) if base_name(node) in {"mT", "adjoint"} else (0, 1)
    first, second = (int(a.get(f"dim{i}", a.get(f"axis{i}", usual))) for i, usual in enumerate(default))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    return axes_ops.transpose(context.builder, a["self"], axes)


def _moved(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    sources, places = ([item] if isinstance(item, int) else item for item in (a["source"], a["destination"]))
    rank = len(native_shape(node))
    order = dict(zip((p % rank for p in places), (s % rank for s in sources), strict=True))
    rest = iter(axis for axis in range(rank) if axis not in order.values())
    perm = [order[axis] if axis in order else next(rest) for axis in range(rank)]
    return axes_ops.transpose(context.builder, a["self"], perm)


def _permute(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return axes_ops.transpose(context.builder, a["self"], a["dims"])


def _expand(context: Context, node: Node) -> Operand:
    return axes_ops.broadcast_to(
        context.builder, context.name(node), context.get(node.args[0]), native_shape(node)
    )


def _chunks(context: Context, node: Node) -> list[Operand]:
    a = context.arguments(node)
    axis = a.get("dim", 0)
    sizes = [tuple(part.shape)[axis] for part in node.meta["val"]]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        axes_ops.cut(context.builder, context.name(node), a["self"], axis, start, start + size)
        for start, size in zip(starts, sizes, strict=True)
    ]


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
        name, value = context.name(node), context.data(a["input"] if "input" in a else a["self"])
        corners = bool(a.get("align_corners"))
        factors = a.get("scale_factors")
        return windows.resize(
            context.builder, name, value, 1, native_shape(node), mode, corners=corners, factors=factors
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
    if HANDLERS.get(base_name(node)) is _dropout:
        context.drop(node, "feature_dropout" if "feature" in str(node.target) else "dropout")


def _same(context: Context, node: Node) -> Any:
    return context.get(node.args[0])


HANDLERS: Mapping[str, Handler] = {
    **{
        name: _binary(kind)
        for name, kind in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"), ("pow", "Pow"))
    },
    **{
        alias: _binary(kind)
        for alias, kind in (
            ("subtract", "Sub"),
            ("multiply", "Mul"),
            ("divide", "Div"),
            ("true_divide", "Div"),
            ("float_power", "Pow"),
        )
    },
    "rsub": _turned,
    **dict.fromkeys(("remainder", "fmod"), _remainder),
    "floor_divide": _binary("Div"),
    **dict.fromkeys(
        ("flatten", "view", "view_as", "reshape", "reshape_as", "unflatten", "_unsafe_view", "ravel"),
        _reshape,
    ),
    **dict.fromkeys(("transpose", "t", "numpy_T", "mT", "swapaxes", "swapdims", "adjoint"), _transpose),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    "permute": _permute,
    "movedim": _moved,
    **dict.fromkeys(
        ("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"), _chunks
    ),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{f"upsample_nearest{n}d": _upsample("nearest") for n in (1, 2, 3)},
    "upsample_linear1d": _upsample("linear"),
    "upsample_bilinear2d": _upsample("linear"),
    "upsample_trilinear3d": _upsample("linear"),
    **dict.fromkeys(("dropout", "feature_dropout"), _dropout),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), _same),
    **dict.fromkeys(
        (
            "contiguous",
            "clone",
            "alias",
            "detach",
            "lift_fresh_copy",
            "lift_fresh",
            "conj",
            "resolve_conj",
            "positive",
        ),
        _same,
    ),
}
"""Names of operations, without their overloads, to their handlers."""
