"""What is picked, turned round, repeated or spread: along axes, by constants and by data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch.fx import Node

from xbackend_fl.canonical.graph import axes_ops, picking, windows
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.graph.operands import native_shape as operand_shape
from xbfl_torch.graph import Context, Handler, native_shape, require


def _flip(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    axes = a.get("dims", [1 if "lr" in str(node.target) else 0])
    return picking.flip(context.builder, context.name(node), a["self"], axes)


def _roll(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name = context.name(node)
    require(bool(a["dims"]), name, "roll of the flattened whole", "torch: roll(shifts, dims)")
    return picking.roll(context.builder, name, a["self"], a["shifts"], a["dims"])


def _repeat(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return picking.tile(
        context.builder, context.name(node), a["self"], a["repeats" if "repeats" in a else "dims"]
    )


def _repeat_interleave(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, times, axis = context.name(node), a["repeats"], a.get("dim")
    operand = a["self"]
    if isinstance(times, np.ndarray) and times.size == 1:
        times = int(times.reshape(()))
    if axis is None:
        operand = axes_ops.reshape(context.builder, name, operand, (int(np.prod(operand_shape(operand))),))
        axis = 0
    if isinstance(times, np.ndarray):
        indices = np.repeat(np.arange(operand_shape(operand)[axis]), times)
        return picking.gather_constant(context.builder, name, operand, axis, indices)
    require(isinstance(times, int), name, "repeats that depend on the data")
    return picking.repeat(context.builder, name, operand, axis, times)


def _index(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return picking.index(context.builder, context.name(node), a["self"], a["indices"])


def _index_select(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return picking.gather(context.builder, context.name(node), a["self"], a["dim"], a["index"])


def _gather(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, axis = context.name(node), a["dim"]
    indices = a["index" if "index" in a else "indices"]
    require(axis is not None, name, "picks from the flattened whole")
    return picking.gather_elements(context.builder, name, a["self"], axis, indices)


def _one_hot(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    made = picking.one_hot(context.builder, context.name(node), a["self"], native_shape(node)[-1])
    return context.builder.elementwise("Cast", context.name(node), made, to="int64")


def _diagonal(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return picking.diagonal(context.builder, context.name(node), a["self"], a["offset"], a["dim1"], a["dim2"])


def _shuffle(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, builder = context.name(node), context.builder
    value = context.data(a["self"])
    if "channel" in str(node.target):
        return windows.shuffle_channels(builder, name, value, 1, a["groups"])
    if "unshuffle" in str(node.target):
        return windows.space_to_depth(builder, name, value, 1, a["downscale_factor"], blocks_first=False)
    return windows.depth_to_space(builder, name, value, 1, a["upscale_factor"], blocks_first=False)


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(("flip", "fliplr", "flipud"), _flip),
    "roll": _roll,
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "repeat_interleave": _repeat_interleave,
    "index": _index,
    "index_select": _index_select,
    **dict.fromkeys(("gather", "take_along_dim"), _gather),
    "one_hot": _one_hot,
    **dict.fromkeys(("diagonal", "linalg_diagonal"), _diagonal),
    **dict.fromkeys(
        ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"), _shuffle
    ),
}
"""Names of operations, without their overloads, to their handlers."""
