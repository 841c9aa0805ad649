"""How TensorFlow moves values: shapes, slices, what is picked, turned round or repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackend_fl.canonical.graph import axes_ops, logic, picking, windows
from xbackend_fl.canonical.graph.embedding import lookup
from xbackend_fl.canonical.graph.operands import Operand, native_shape
from xbackend_fl.canonical.layout import Step
from xbfl_tensorflow.graph import Context, Operation, node_name, require, static_shape


def _number(operand: Operand) -> int:
    return int(np.asarray(operand).item())


def _reshape(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    shape = static_shape(node.outputs[0])
    return axes_ops.reshape(context.builder, node_name(context, node), arguments[0], shape)


def _transpose(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    del node
    return axes_ops.transpose(context.builder, arguments[0], [int(axis) for axis in np.asarray(arguments[1])])


def _concat(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    *parts, axis = arguments
    return axes_ops.concat(context.builder, node_name(context, node), parts, _number(axis))


def _pack(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    return axes_ops.stack(context.builder, node_name(context, node), arguments, node.get_attr("axis"))


def _unpack(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    name, axis = node_name(context, node), node.get_attr("axis")
    return [
        axes_ops.pick(context.builder, name, arguments[0], axis, index) for index in range(len(node.outputs))
    ]


def _split(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    value, axis = (arguments[1], arguments[0]) if node.type == "Split" else (arguments[0], arguments[2])
    place, start, parts = _number(axis), 0, []
    for tensor in node.outputs:
        stop = start + static_shape(tensor)[place]
        parts.append(axes_ops.cut(context.builder, node_name(context, node), value, place, start, stop))
        start = stop
    return parts


def _slice(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, begin, _ = arguments
    for axis, (start, length) in enumerate(
        zip(np.asarray(begin), static_shape(node.outputs[0]), strict=True)
    ):
        value = axes_ops.cut(
            context.builder, node_name(context, node), value, axis, int(start), int(start) + length
        )
    return value


def _strided_slice(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, begin, end, strides = arguments
    bounds = list(zip(np.asarray(begin), np.asarray(end), np.asarray(strides), strict=True))
    masks = {
        word: node.get_attr(f"{word}_mask")
        for word in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    rank, axis, name = len(static_shape(node.inputs[0])), 0, node_name(context, node)
    named = sum(not masks["new_axis"] >> i & 1 and not masks["ellipsis"] >> i & 1 for i in range(len(bounds)))
    for place, (start, stop, step) in enumerate(bounds):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            axis += rank - named
        elif masks["new_axis"] & bit:
            value = _grown(context, name, value, axis)
            axis += 1
        elif masks["shrink_axis"] & bit:
            value = axes_ops.pick(context.builder, name, value, axis, int(start))
        else:
            low = None if masks["begin"] & bit else int(start)
            high = None if masks["end"] & bit else int(stop)
            length = native_shape(value)[axis]
            places = range(length)[slice(low, high, int(step))]
            if places.step > 0:
                first = places.start
                value = axes_ops.cut(
                    context.builder, name, value, axis, first, max(first, places.stop), places.step
                )
            else:
                value = picking.gather_constant(context.builder, name, value, axis, np.array(places))
            axis += 1
    return value


def _grown(context: Context, name: str, value: Operand, axis: int) -> Operand:
    shape = native_shape(value)
    return axes_ops.reshape(context.builder, name, value, (*shape[:axis], 1, *shape[axis:]))


def gather(context: Context, node: Any, table: Operand, indices: Operand) -> Operand:
    """Rows of a table: an embedding, or positions of data."""
    name = node_name(context, node)
    if isinstance(table, Step) and len(table.shape) == 2:
        return lookup(context.builder, name, table, indices)
    return picking.gather(context.builder, name, table, 0, indices)


def _gather(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    table, indices, axis = arguments
    name, place = node_name(context, node), _number(axis)
    batch_dims = int(node.get_attr("batch_dims"))
    if isinstance(table, Step) and place == 0 and not batch_dims:
        return gather(context, node, table, indices)
    return picking.gather(context.builder, name, table, place, indices, batch_dims)


def _gather_nd(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """Constant positions along the leading axes, or rows that data pick for every example."""
    value, indices = arguments
    name = node_name(context, node)
    require(isinstance(indices, np.ndarray), name, "picks by data along several axes")
    places = np.moveaxis(np.asarray(indices), -1, 0)
    return picking.index(context.builder, name, value, list(places))


def _reverse(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    axes = [int(axis) for axis in np.asarray(arguments[1]).reshape(-1)]
    return picking.flip(context.builder, node_name(context, node), arguments[0], axes)


def _roll(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, shifts, axes = arguments
    pairs = [[int(n) for n in np.asarray(item).reshape(-1)] for item in (shifts, axes)]
    return picking.roll(context.builder, node_name(context, node), value, *pairs)


def _tile(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    times = [int(n) for n in np.asarray(arguments[1]).reshape(-1)]
    return picking.tile(context.builder, node_name(context, node), arguments[0], times)


def _broadcast(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    shape = static_shape(node.outputs[0])
    return axes_ops.broadcast_to(context.builder, node_name(context, node), arguments[0], shape)


def _one_hot(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    indices, depth, on, off = arguments
    name, axis = node_name(context, node), node.get_attr("axis")
    made = picking.one_hot(
        context.builder, name, indices, _number(depth), *(float(np.asarray(n).item()) for n in (on, off))
    )
    rank = len(made.shape)
    if axis in {-1, rank - 1}:
        return made
    order = [*range(rank - 1)]
    order.insert(axis, rank - 1)
    return axes_ops.transpose(context.builder, made, order)


def _depth(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name, size = node_name(context, node), int(node.get_attr("block_size"))
    channel = 1 if node.get_attr("data_format").startswith(b"NC") else -1
    function = windows.depth_to_space if node.type == "DepthToSpace" else windows.space_to_depth
    value = context.data(arguments[0])
    return function(context.builder, name, value, channel, size, blocks_first=True)


def _diagonal(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name = node_name(context, node)
    if node.type == "MatrixDiagPartV3":
        require(
            isinstance(arguments[1], np.ndarray) and np.asarray(arguments[1]).size == 1,
            name,
            "several diagonals",
        )
        return picking.diagonal(context.builder, name, arguments[0], _number(arguments[1]), -2, -1)
    return picking.diagonal(context.builder, name, arguments[0], 0, -2, -1)


def _on_diagonal(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """A square of zeros with data on its diagonal."""
    name, shape = node_name(context, node), static_shape(node.outputs[0])
    plain = [np.asarray(item).reshape(-1).tolist() for item in arguments[1:] if isinstance(item, np.ndarray)]
    usual = len(arguments) == 1 or (len(plain) == 4 and plain[0] == [0] and plain[3] == [0])
    require(usual and shape[-1] == shape[-2], name, "a diagonal elsewhere than in the middle")
    row = axes_ops.reshape(context.builder, name, arguments[0], (*shape[:-2], 1, shape[-1]))
    return logic.where(context.builder, name, np.eye(shape[-1], dtype=bool), row, 0.0)


def _counted(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """How often every whole number stands in a row; with ``binary_output`` whether it does."""
    builder, name = context.builder, node_name(context, node)
    value, _, weights = arguments
    shape, depth = static_shape(node.inputs[0]), static_shape(node.outputs[0])[-1]
    weighted = not isinstance(weights, np.ndarray) or weights.size > 0
    require(not weighted, name, "counts that weigh")
    hits = picking.one_hot(builder, name, value, depth)
    kind = "ReduceMax" if node.get_attr("binary_output") else "ReduceSum"
    return builder.reduce(kind, name, hits, [len(shape) - 1], keepdims=False)


def _same(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    del context, node
    return arguments[0]


def _each(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    del context, node
    return arguments


OPERATIONS: Mapping[str, Operation] = {
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze"), _reshape),
    "Transpose": _transpose,
    "ConcatV2": _concat,
    "Pack": _pack,
    "Unpack": _unpack,
    **dict.fromkeys(("Split", "SplitV"), _split),
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "GatherV2": _gather,
    "GatherNd": _gather_nd,
    "ReverseV2": _reverse,
    "Roll": _roll,
    "Tile": _tile,
    "BroadcastTo": _broadcast,
    "OneHot": _one_hot,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth),
    **dict.fromkeys(("MatrixDiagPart", "MatrixDiagPartV3"), _diagonal),
    **dict.fromkeys(("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3"), _on_diagonal),
    "DenseBincount": _counted,
    "IdentityN": _each,
    **dict.fromkeys(
        (
            "Identity",
            "StopGradient",
            "PreventGradient",
            "EnsureShape",
            "Snapshot",
            # Raises or yields what it reads.
            "CheckNumerics",
            "CheckNumericsV2",
        ),
        _same,
    ),
}
"""Type of a graph operation to its handler."""
