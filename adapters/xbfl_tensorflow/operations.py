"""Raw TensorFlow operations: what a model computes outside the layers that Keras defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xbackend_fl.adapter.walk import handler_of, table
from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import axes_ops, contractions
from xbackend_fl.canonical.graph.operands import Operand
from xbfl_tensorflow import arithmetic, masks, moving, windows
from xbfl_tensorflow.graph import Context, Operation, node_name, static_shape


def operation(context: Context, node: Any, arguments: Sequence[Operand]) -> list[Operand]:
    """What the outputs of a graph operation stand for.

    Raises:
        UnsupportedError: It has no canonical form.
    """
    what = f"tensorflow operation {node.type} at {context.prefix + node.name!r}"
    made = handler_of(OPERATIONS, node.type, what)(context, node, list(arguments))
    return made if isinstance(made, list) else [made]


def function(
    context: Context, name: str, outputs: Any, arguments: Sequence[Operand], options: Mapping[str, Any]
) -> Value:
    """A marked function of ``tf.nn``."""
    value = context.data(arguments[0])
    where = context.prefix + str(outputs.op.name)
    if name == "gelu":
        given = [*arguments[1:], False]
        mode = "tanh" if options.get("approximate", given[0]) else "none"
        return context.builder.elementwise("Gelu", where, value, approximate=mode)
    return context.builder.elementwise("Swish", where, value)


def _matmul(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    words = ("transpose_a", "transpose_b") if node.type == "MatMul" else ("adj_x", "adj_y")
    for index, word in enumerate(words):
        if node.get_attr(word):
            rank = len(static_shape(node.inputs[index]))
            swap = (*range(rank - 2), rank - 1, rank - 2)
            arguments[index] = axes_ops.transpose(context.builder, arguments[index], swap)
    left, right = arguments
    return contractions.matmul(context.builder, node_name(context, node), left, right)


def _einsum(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    equation = node.get_attr("equation").decode()
    return contractions.einsum(context.builder, node_name(context, node), equation, arguments)


_PRODUCTS: Mapping[str, Operation] = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _matmul),
    "Einsum": _einsum,
}

OPERATIONS: Mapping[str, Operation] = table(
    masks.OPERATIONS, arithmetic.OPERATIONS, moving.OPERATIONS, windows.OPERATIONS, _PRODUCTS
)
"""Type of a graph operation to its handler; a family a module."""
