"""The movement of values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from xbackend_fl.canonical.graph import axes_ops, picking, windows
from xbackend_fl.canonical.graph.operands import Operand, native_shape, scalar
from xbfl_onnx.graph import Context, Handler, attributes, numbers, present, require


def _first(context: Context, node: onnx.NodeProto) -> Operand:
    (operand, *_) = context.inputs(node)
    assert operand is not None
    return operand


def _reshape(context: Context, node: onnx.NodeProto) -> Operand:
    shape = context.shape(node.output[0])
    return axes_ops.reshape(context.builder, node.name, _first(context, node), shape)


def _transpose(context: Context, node: onnx.NodeProto) -> Operand:
    operand = _first(context, node)
    rank = len(native_shape(operand))
    return axes_ops.transpose(context.builder, operand, attributes(node).get("perm", range(rank)[::-1]))


def _concat(context: Context, node: onnx.NodeProto) -> Operand:
    parts = [item for item in context.inputs(node) if item is not None]
    return axes_ops.concat(context.builder, node.name, parts, attributes(node)["axis"])


def _split(context: Context, node: onnx.NodeProto) -> list[Operand]:
    operand, axis, start = _first(context, node), attributes(node).get("axis", 0), 0
    parts: list[Operand] = []
    for name in node.output:
        stop = start + context.shape(name)[axis]
        parts.append(axes_ops.cut(context.builder, node.name, operand, axis, start, stop))
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
        parts.append(axes_ops.cut(context.builder, node.name, operand, axis, start, start + length))
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
        if step > 0:
            operand = axes_ops.cut(context.builder, node.name, operand, axis, start, end, step)
        else:
            places = range(native_shape(operand)[axis])[slice(start, end, step)]
            operand = picking.gather_constant(context.builder, node.name, operand, axis, np.array(places))
    return operand


def _pad(context: Context, node: onnx.NodeProto) -> Operand:
    value, sizes, fill, axes = (*context.inputs(node), None, None)[:4]
    data, pads = context.needed(value, node), numbers(sizes, node)
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
    given, value = attributes(node), context.data(_first(context, node))
    mode, rule = given.get("mode", "nearest"), given.get("coordinate_transformation_mode", "half_pixel")
    before, after = value.native_shape, context.shape(node.output[0])
    require(before[:2] == after[:2], node, "a resized batch or channel axis")
    nearest = given.get("nearest_mode", "round_prefer_floor")
    floor = nearest == "floor" and rule == "asymmetric"
    exact = rule == "half_pixel" and nearest in {"round_prefer_floor", "round_prefer_ceil"}
    fits = (mode == "nearest" and (floor or exact)) or (
        mode == "linear" and rule in {"half_pixel", "align_corners", "pytorch_half_pixel"}
    )
    require(fits, node, f"mode={mode} with coordinates {rule}")
    require(not given.get("antialias"), node, "antialias=1")
    scales = (*context.inputs(node), None, None)[2]
    factors = np.asarray(scales)[2:].tolist() if isinstance(scales, np.ndarray) and scales.size else None
    return windows.resize(
        context.builder,
        node.name,
        value,
        1,
        after,
        mode,
        corners=rule == "align_corners",
        exact=exact and mode == "nearest",
        factors=factors,
    )


def _depth(context: Context, node: onnx.NodeProto) -> Operand:
    given, value = attributes(node), context.data(_first(context, node))
    first = given.get("mode", "DCR") == "DCR"
    function = windows.depth_to_space if node.op_type == "DepthToSpace" else windows.space_to_depth
    return function(context.builder, node.name, value, 1, given["blocksize"], blocks_first=first)


def _expand(context: Context, node: onnx.NodeProto) -> Operand:
    shape = context.shape(node.output[0])
    return axes_ops.broadcast_to(context.builder, node.name, _first(context, node), shape)


def _tile(context: Context, node: onnx.NodeProto) -> Operand:
    operand, times = present(context, node)
    return picking.tile(context.builder, node.name, operand, numbers(times, node))


def _gather_elements(context: Context, node: onnx.NodeProto) -> Operand:
    operand, indices = present(context, node)
    axis = attributes(node).get("axis", 0)
    return picking.gather_elements(context.builder, node.name, operand, axis, indices)


def _gather_nd(context: Context, node: onnx.NodeProto) -> Operand:
    operand, indices = present(context, node)
    batch = attributes(node).get("batch_dims", 0)
    if isinstance(indices, np.ndarray) and not batch:
        return picking.index(context.builder, node.name, operand, list(np.moveaxis(indices, -1, 0)))
    shape = native_shape(indices)
    require(batch == 1 and shape[-1] == 1, node, "picks by data along several axes")
    short = axes_ops.reshape(context.builder, node.name, indices, shape[:-1])
    return picking.gather(context.builder, node.name, operand, 1, short, batch_dims=1)


def _same(context: Context, node: onnx.NodeProto) -> Operand:
    return _first(context, node)


def _dropout(context: Context, node: onnx.NodeProto) -> Operand:
    mode = context.inputs(node)[2] if len(node.input) > 2 else None
    drops = isinstance(mode, np.ndarray) and bool(mode.any())
    require(not drops, node, "draws random numbers in evaluation too: its training_mode is true")
    return _first(context, node)


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "SplitToSequence": _sequence,
    "SequenceAt": _sequence_at,
    "Pad": _pad,
    "Resize": _resize,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth),
    "Expand": _expand,
    "Tile": _tile,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _same,
    "Dropout": _dropout,
}
"""Operator of a node to its handler."""
