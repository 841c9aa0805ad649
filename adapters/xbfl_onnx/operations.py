"""Elementwise operations, reductions and the movement of values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from xbackend_fl.canonical import movement
from xbackend_fl.canonical.operands import Operand, combine, expand, native_shape, scalar, unary
from xbfl_onnx.graph import Context, Handler, attributes, numbers, require

_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
_ONE_TO_ONE = (
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Exp", "Log", "Sqrt", "Neg"),
    *("Abs", "Reciprocal", "Erf", "Sin", "Cos"),
)


def _first(context: Context, node: onnx.NodeProto) -> Operand:
    (operand, *_) = context.inputs(node)
    assert operand is not None
    return operand


def _unary(context: Context, node: onnx.NodeProto) -> Operand:
    given = {**_DEFAULTS.get(node.op_type, {}), **attributes(node)}
    extra = {name: float(f"{value:.7g}") for name, value in given.items()}
    return unary(context.builder, node.op_type, node.name, _first(context, node), **extra)


def _gelu(context: Context, node: onnx.NodeProto) -> Operand:
    value = context.data(_first(context, node), node)
    mode = attributes(node).get("approximate", "none")
    return context.builder.elementwise("Gelu", node.name, value, approximate=mode)


def _clip(context: Context, node: onnx.NodeProto) -> Operand:
    value, low, high = (*context.inputs(node), None, None)[:3]
    bounds = {"min": low, "max": high}
    given = {name: scalar(item) for name, item in bounds.items() if item is not None}
    require(all(number is not None for number in given.values()), node, "bounds that depend on the data")
    kept = {name: number for name, number in given.items() if number is not None}
    return context.builder.elementwise("Clip", node.name, context.data(value, node), **kept)


def _along(context: Context, node: onnx.NodeProto) -> Operand:
    value = context.data(_first(context, node), node)
    return context.builder.along(node.op_type, node.name, value, attributes(node).get("axis", -1))


def _binary(operator: str) -> Handler:
    def handle(context: Context, node: onnx.NodeProto) -> Operand:
        total = _first(context, node)
        for operand in context.inputs(node)[1:]:
            assert operand is not None
            total = combine(context.builder, operator, node.name, total, operand)
        return total

    return handle


def _reduce(context: Context, node: onnx.NodeProto) -> Operand:
    given, operands = attributes(node), context.inputs(node)
    value = context.data(operands[0], node)
    axes = given.get("axes") or (numbers(operands[1], node) if len(operands) > 1 else range(len(value.shape)))
    keep = bool(given.get("keepdims", 1))
    return context.builder.reduce(node.op_type, node.name, value, list(axes), keepdims=keep)


def _reshape(context: Context, node: onnx.NodeProto) -> Operand:
    shape = context.shape(node.output[0])
    return movement.reshape(context.builder, node.name, _first(context, node), shape)


def _transpose(context: Context, node: onnx.NodeProto) -> Operand:
    operand = _first(context, node)
    rank = len(native_shape(operand))
    return movement.transpose(context.builder, operand, attributes(node).get("perm", range(rank)[::-1]))


def _concat(context: Context, node: onnx.NodeProto) -> Operand:
    parts = [item for item in context.inputs(node) if item is not None]
    return movement.concat(context.builder, node.name, parts, attributes(node)["axis"])


def _split(context: Context, node: onnx.NodeProto) -> list[Operand]:
    operand, axis, start = _first(context, node), attributes(node).get("axis", 0), 0
    parts: list[Operand] = []
    for name in node.output:
        stop = start + context.shape(name)[axis]
        parts.append(movement.cut(context.builder, node.name, operand, axis, start, stop))
        start = stop
    return parts


def _sequence(context: Context, node: onnx.NodeProto) -> Operand:
    """A list of parts, from which SequenceAt picks one."""
    operand, sizes = (*context.inputs(node), None)[:2]
    assert operand is not None
    given, shape = attributes(node), native_shape(operand)
    axis = given.get("axis", 0) % len(shape)
    lengths = [1] * shape[axis] if sizes is None else numbers(sizes, node)
    if sizes is not None and np.ndim(np.asarray(sizes)) == 0:
        lengths = [min(lengths[0], shape[axis] - i) for i in range(0, shape[axis], lengths[0])]
    parts: list[Operand] = []
    for index, length in enumerate(lengths):
        start = sum(lengths[:index])
        parts.append(movement.cut(context.builder, node.name, operand, axis, start, start + length))
    context.sequences[node.output[0]] = parts
    return operand


def _sequence_at(context: Context, node: onnx.NodeProto) -> Operand:
    index = np.asarray(context.inputs(node)[1])
    return context.sequences[node.input[0]][int(index)]


def _slice(context: Context, node: onnx.NodeProto) -> Operand:
    operand, *rest = context.inputs(node)
    assert operand is not None
    starts, ends, *more = (numbers(item, node) for item in rest)
    axes = more[0] if more else list(range(len(starts)))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        require(step > 0, node, "a slice in reverse")
        operand = movement.cut(context.builder, node.name, operand, axis, start, end, step)
    return operand


def _pad(context: Context, node: onnx.NodeProto) -> Operand:
    value, sizes, fill, axes = (*context.inputs(node), None, None)[:4]
    data, pads = context.data(value, node), numbers(sizes, node)
    places = numbers(axes, node) if axes is not None else list(range(len(data.shape)))
    half = len(pads) // 2
    pairs = {
        a % len(data.shape): (pads[i], pads[i + half])
        for i, a in enumerate(places)
        if pads[i] or pads[i + half]
    }
    number = 0.0 if fill is None else scalar(fill)
    require(number is not None, node, "a fill that depends on the data")
    mode = attributes(node).get("mode", "constant")
    return context.builder.pad(node.name, data, pairs, number or 0.0, mode)


def _resize(context: Context, node: onnx.NodeProto) -> Operand:
    given, value = attributes(node), context.data(_first(context, node), node)
    mode, rule = given.get("mode", "nearest"), given.get("coordinate_transformation_mode", "half_pixel")
    before, after = value.native_shape, context.shape(node.output[0])
    whole = before[:2] == after[:2] and all(n % m == 0 for n, m in zip(after[2:], before[2:], strict=True))
    require(whole, node, "a fractional scale")
    floor = given.get("nearest_mode", "round_prefer_floor") == "floor" and rule == "asymmetric"
    fits = (mode == "nearest" and floor) or (
        mode == "linear" and rule in {"half_pixel", "align_corners", "pytorch_half_pixel"}
    )
    require(fits, node, f"mode={mode} with coordinates {rule}")
    scales = tuple(n // m for n, m in zip(after[2:], before[2:], strict=True))
    corners = int(rule == "align_corners")
    return context.builder.window(
        "Resize", node.name, value, 1, after, scales=scales, mode=mode, align_corners=corners
    )


def _expand(context: Context, node: onnx.NodeProto) -> Operand:
    operand, shape = _first(context, node), context.shape(node.output[0])
    if isinstance(operand, np.ndarray):
        return np.broadcast_to(operand, shape)
    return expand(context.builder, node.name, context.data(operand, node), shape)


def _same(context: Context, node: onnx.NodeProto) -> Operand:
    return _first(context, node)


def _dropout(context: Context, node: onnx.NodeProto) -> Operand:
    mode = context.inputs(node)[2] if len(node.input) > 2 else None
    drops = isinstance(mode, np.ndarray) and bool(mode.any())
    require(not drops, node, "draws random numbers in evaluation too: its training_mode is true")
    return _first(context, node)


def _cast(context: Context, node: onnx.NodeProto) -> Operand:
    value = context.data(_first(context, node), node)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
    return context.builder.elementwise("Cast", node.name, value, to=str(dtype))


def _cast_like(context: Context, node: onnx.NodeProto) -> Operand:
    """Data and parameters are float32; a constant beside them becomes so."""
    operand = _first(context, node)
    return operand.astype(np.float32) if isinstance(operand, np.ndarray) else operand


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys((*_ONE_TO_ONE, *_DEFAULTS), _unary),
    "Gelu": _gelu,
    "Clip": _clip,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _along),
    **{name: _binary(name) for name in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")},
    "Sum": _binary("Add"),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceSum"), _reduce),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "SplitToSequence": _sequence,
    "SequenceAt": _sequence_at,
    "Pad": _pad,
    "Resize": _resize,
    "Expand": _expand,
    "Identity": _same,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast_like,
}
