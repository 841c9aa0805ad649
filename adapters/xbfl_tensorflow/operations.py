"""Raw TensorFlow operations: what a model computes outside the layers that Keras defines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from xbackend_fl.canonical import Value, movement
from xbackend_fl.canonical.layout import Step
from xbackend_fl.canonical.operands import (
    Operand,
    as_value,
    combine,
    einsum,
    expand,
    is_causal_mask,
    matmul,
    native_shape,
    unary,
)
from xbackend_fl.canonical.tables import lookup
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow import windows
from xbfl_tensorflow.graph import Context, require, static_shape

Operation: TypeAlias = Callable[[Context, Any, list[Operand]], "Operand | list[Operand]"]
"""A graph operation with what its inputs stand for, resources aside."""


def operation(context: Context, node: Any, arguments: Sequence[Operand]) -> list[Operand]:
    """What the outputs of a graph operation stand for.

    Raises:
        UnsupportedError: It has no canonical form.
    """
    handler = OPERATIONS.get(node.type) or windows.OPERATIONS.get(node.type)
    if handler is None:
        raise UnsupportedError(
            f"tensorflow operation {node.type} at {context.prefix + node.name!r} has no canonical form",
            hint="express it with the operators that `xbfl adapters --operators` lists; layers of your own are "
            "walked inside",
        )
    made = handler(context, node, list(arguments))
    return made if isinstance(made, list) else [made]


def function(
    context: Context, name: str, outputs: Any, arguments: Sequence[Operand], options: Mapping[str, Any]
) -> Value:
    """A marked function of ``tf.nn``."""
    value = as_value(context.builder, arguments[0])
    where = context.prefix + str(outputs.op.name)
    if name == "gelu":
        given = [*arguments[1:], False]
        mode = "tanh" if options.get("approximate", given[0]) else "none"
        return context.builder.elementwise("Gelu", where, value, approximate=mode)
    return context.builder.elementwise("Swish", where, value)


def gather(context: Context, node: Any, table: Operand, indices: Operand) -> Operand:
    """Rows of a table: an embedding, or positions of data."""
    name = _name(context, node)
    if isinstance(table, Step):
        return lookup(context.builder, name, table, indices)
    require(isinstance(indices, np.ndarray), name, "data is picked by data")
    return _take(context, name, table, np.asarray(indices), 0)


def _name(context: Context, node: Any) -> str:
    return context.prefix + str(node.name)


def _gather(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    table, indices, axis = arguments
    name = _name(context, node)
    require(not node.get_attr("batch_dims"), name, "a gather with batch dimensions")
    place = int(np.asarray(axis).item())
    if isinstance(table, Step) and place == 0:
        return gather(context, node, table, indices)
    require(isinstance(indices, np.ndarray), name, "data is picked by data")
    return _take(context, name, table, np.asarray(indices), place)


def _take(context: Context, name: str, table: Operand, indices: np.ndarray[Any, Any], axis: int) -> Operand:
    if indices.ndim == 0:
        return movement.pick(context.builder, name, table, axis, int(indices))
    steps = set(np.diff(indices.reshape(-1)).tolist())
    require(indices.ndim == 1 and len(steps) <= 1 and 0 not in steps, name, "an uneven choice of positions")
    step = steps.pop() if steps else 1
    require(step > 0, name, "a choice of positions in reverse")
    start, stop = int(indices[0]), int(indices[-1]) + 1
    return movement.cut(context.builder, name, table, axis, start, stop, step)


def _unary(operator: str, **attributes: float) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        return unary(context.builder, operator, _name(context, node), arguments[0], **attributes)

    return handle


def _attributed(operator: str, **names: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value = as_value(context.builder, arguments[0])
        attributes = {ours: float(node.get_attr(theirs)) for ours, theirs in names.items()}
        return context.builder.elementwise(operator, _name(context, node), value, **attributes)

    return handle


def _binary(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        left, right = arguments
        return combine(context.builder, operator, _name(context, node), left, right)

    return handle


def _squared_difference(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name = _name(context, node)
    difference = as_value(context.builder, combine(context.builder, "Sub", name, *arguments))
    return context.builder.elementwise("Pow", name, difference, constant=2.0)


def _bias_add(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, bias = arguments
    if node.get_attr("data_format") == b"NCHW":
        rank = len(static_shape(node.outputs[0]))
        bias = movement.reshape(context.builder, node.name, bias, (-1, *(1,) * (rank - 2)))
    return combine(context.builder, "Add", _name(context, node), value, bias)


def _matmul(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    left, right = arguments
    words = ("transpose_a", "transpose_b") if node.type == "MatMul" else ("adj_x", "adj_y")
    for index, word in enumerate(words):
        if node.get_attr(word):
            rank = len(static_shape(node.inputs[index]))
            swap = (*range(rank - 2), rank - 1, rank - 2)
            arguments[index] = movement.transpose(context.builder, arguments[index], swap)
    left, right = arguments
    return matmul(context.builder, _name(context, node), left, right)


def _einsum(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name = _name(context, node)
    equation = node.get_attr("equation").decode()
    require(len(arguments) == 2, name, "einsum of other than two operands")
    return einsum(context.builder, name, equation, *arguments)


def _reduce(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value, axes = as_value(context.builder, arguments[0]), np.asarray(arguments[1])
        return context.builder.reduce(
            operator,
            _name(context, node),
            value,
            [int(axis) for axis in axes.reshape(-1)],
            keepdims=node.get_attr("keep_dims"),
        )

    return handle


def _reshape(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    shape = static_shape(node.outputs[0])
    return movement.reshape(context.builder, _name(context, node), arguments[0], shape)


def _transpose(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    del node
    return movement.transpose(context.builder, arguments[0], [int(axis) for axis in np.asarray(arguments[1])])


def _concat(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    *parts, axis = arguments
    return movement.concat(context.builder, _name(context, node), parts, int(np.asarray(axis).item()))


def _pack(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    return movement.stack(context.builder, _name(context, node), arguments, node.get_attr("axis"))


def _unpack(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    name, axis = _name(context, node), node.get_attr("axis")
    return [
        movement.pick(context.builder, name, arguments[0], axis, index) for index in range(len(node.outputs))
    ]


def _split(context: Context, node: Any, arguments: list[Operand]) -> list[Operand]:
    value, axis = (arguments[1], arguments[0]) if node.type == "Split" else (arguments[0], arguments[2])
    place, start, parts = int(np.asarray(axis).item()), 0, []
    for tensor in node.outputs:
        stop = start + static_shape(tensor)[place]
        parts.append(movement.cut(context.builder, _name(context, node), value, place, start, stop))
        start = stop
    return parts


def _slice(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, begin, _ = arguments
    for axis, (start, length) in enumerate(
        zip(np.asarray(begin), static_shape(node.outputs[0]), strict=True)
    ):
        value = movement.cut(
            context.builder, _name(context, node), value, axis, int(start), int(start) + length
        )
    return value


def _strided_slice(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, begin, end, strides = arguments
    bounds = list(zip(np.asarray(begin), np.asarray(end), np.asarray(strides), strict=True))
    masks = {
        word: node.get_attr(f"{word}_mask")
        for word in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    rank, axis, name = len(static_shape(node.inputs[0])), 0, _name(context, node)
    named = sum(not masks["new_axis"] >> i & 1 and not masks["ellipsis"] >> i & 1 for i in range(len(bounds)))
    for place, (start, stop, step) in enumerate(bounds):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            axis += rank - named
        elif masks["new_axis"] & bit:
            value = _grown(context, name, value, axis)
            axis += 1
        elif masks["shrink_axis"] & bit:
            value = movement.pick(context.builder, name, value, axis, int(start))
        else:
            low = None if masks["begin"] & bit else int(start)
            high = None if masks["end"] & bit else int(stop)
            length = native_shape(value)[axis]
            first, last, stride = slice(low, high, int(step)).indices(length)
            require(stride > 0, name, "a slice in reverse")
            value = movement.cut(context.builder, name, value, axis, first, max(first, last), stride)
            axis += 1
    return value


def _grown(context: Context, name: str, value: Operand, axis: int) -> Operand:
    shape = native_shape(value)
    return movement.reshape(context.builder, name, value, (*shape[:axis], 1, *shape[axis:]))


def _expand(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    shape = static_shape(node.outputs[0])
    name, source = _name(context, node), static_shape(node.inputs[0])
    broadcast = len(source) <= len(shape) and all(
        n in (1, m) for n, m in zip(source[::-1], shape[::-1], strict=False)
    )
    require(broadcast, name, "repeats data")
    return expand(context.builder, name, as_value(context.builder, arguments[0]), shape)


def _same(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    del context, node
    return arguments[0]


def _cast(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    if node.inputs[0].dtype == node.outputs[0].dtype:
        return arguments[0]
    value = as_value(context.builder, arguments[0])
    return context.builder.elementwise("Cast", _name(context, node), value, to=node.outputs[0].dtype.name)


def _softmax(operator: str) -> Operation:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value = as_value(context.builder, arguments[0])
        return context.builder.along(operator, _name(context, node), value, -1)

    return handle


def _clip(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, low, high = arguments
    name = _name(context, node)
    bounded = combine(context.builder, "Min", name, value, high)
    return combine(context.builder, "Max", name, bounded, low)


def _select(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    """``where(mask, scores, minus infinity)``: the causal mask."""
    mask, shown, hidden = arguments
    name = _name(context, node)
    number = np.asarray(hidden) if isinstance(hidden, np.ndarray | float | int) else None
    causal = is_causal_mask(mask) and number is not None and bool((number <= -1e4).all())
    require(causal, name, "a choice by a mask other than the causal one")
    return context.builder.elementwise("CausalMask", name, as_value(context.builder, shown))


_ONE_TO_ONE = (
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Exp", "Log", "Sqrt", "Neg", "Abs"),
    *("Reciprocal", "Erf", "Sin", "Cos"),
)

OPERATIONS: Mapping[str, Operation] = {
    **{name: _unary(name) for name in _ONE_TO_ONE},
    "Inv": _unary("Reciprocal"),
    "Rsqrt": _unary("Pow", constant=-0.5),
    "Square": _unary("Pow", constant=2.0),
    "Relu6": _unary("Clip", min=0.0, max=6.0),
    "Elu": _unary("Elu", alpha=1.0),
    "Selu": _unary("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "LeakyRelu": _attributed("LeakyRelu", alpha="alpha"),
    "Softmax": _softmax("Softmax"),
    "LogSoftmax": _softmax("LogSoftmax"),
    **dict.fromkeys(("Add", "AddV2"), _binary("Add")),
    "Sub": _binary("Sub"),
    "Mul": _binary("Mul"),
    "RealDiv": _binary("Div"),
    "Pow": _binary("Pow"),
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "SquaredDifference": _squared_difference,
    "BiasAdd": _bias_add,
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _matmul),
    "Einsum": _einsum,
    "Mean": _reduce("ReduceMean"),
    "Max": _reduce("ReduceMax"),
    "Sum": _reduce("ReduceSum"),
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze"), _reshape),
    "Transpose": _transpose,
    "ConcatV2": _concat,
    "Pack": _pack,
    "Unpack": _unpack,
    **dict.fromkeys(("Split", "SplitV"), _split),
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "GatherV2": _gather,
    **dict.fromkeys(("Tile", "BroadcastTo"), _expand),
    **dict.fromkeys(
        (
            "Identity",
            "StopGradient",
            "PreventGradient",
            "EnsureShape",
            "IdentityN",
            # Raises or yields what it reads.
            "CheckNumerics",
            "CheckNumericsV2",
        ),
        _same,
    ),
    "Cast": _cast,
    "ClipByValue": _clip,
    "SelectV2": _select,
}
"""Type of a graph operation to its handler."""
