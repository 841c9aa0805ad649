"""Truth values: comparisons, logic, choices, casts, and tensors that are made of shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.fx import Node

from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import logic
from xbackend_fl.canonical.graph.operands import Operand
from xbfl_torch.graph import Context, Handler, native_shape, require


def dtype_name(dtype: torch.dtype) -> str:
    """NumPy's name of a dtype."""
    return str(dtype).removeprefix("torch.")


def _compare(word: str) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        left, right = context.get(node.args[0]), context.get(node.args[1])
        left, right = _widened(context, node, left, right)
        return logic.compare(context.builder, word, context.name(node), left, right)

    return handle


def _widened(context: Context, node: Node, *operands: Operand) -> list[Operand]:
    """Whole numbers beside floats as floats: PyTorch compares them so."""
    dtypes = [
        item.meta["val"].dtype if isinstance(item, Node) else None for item in node.args[: len(operands)]
    ]
    if not any(dtype is not None and dtype.is_floating_point for dtype in dtypes):
        return list(operands)
    name = context.name(node)
    return [
        logic.cast(context.builder, name, item, "float32")
        if dtype is not None and not dtype.is_floating_point
        else item
        for item, dtype in zip(operands, dtypes, strict=True)
    ]


def _logical(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Operand:
        whole = node.meta["val"].dtype != torch.bool
        name = context.name(node)
        require(not whole, name, "arithmetic on the bits of whole numbers")
        left, right = context.get(node.args[0]), context.get(node.args[1])
        return logic.logical(context.builder, operator, name, left, right)

    return handle


def _not(context: Context, node: Node) -> Operand:
    name = context.name(node)
    require(node.meta["val"].dtype == torch.bool, name, "arithmetic on the bits of whole numbers")
    return logic.negate(context.builder, name, context.get(node.args[0]))


def _where(context: Context, node: Node) -> Operand:
    mask, chosen, other = (context.get(item) for item in node.args[:3])
    made = node.meta["val"].dtype
    parts = [
        logic.cast(context.builder, context.name(node), item, dtype_name(made))
        if isinstance(item, Value)
        else item
        for item in (chosen, other)
    ]
    return logic.where(context.builder, context.name(node), mask, *parts)


def _masked_fill(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, value, fill = context.name(node), a["self"], a["value"]
    shape = native_shape(node)
    if isinstance(value, np.ndarray):
        value = np.broadcast_to(value, shape)
    return logic.where(context.builder, name, a["mask"], fill, value)


def _cast(context: Context, node: Node) -> Operand:
    value: Operand = context.get(node.args[0])
    source = node.args[0]
    assert isinstance(source, Node)
    if node.meta["val"].dtype == source.meta["val"].dtype:
        return value
    return logic.cast(context.builder, context.name(node), value, dtype_name(node.meta["val"].dtype))


def _constant(*, truth: bool) -> Handler:
    """Whether numbers are finite, or none: a model is compared where they are."""

    def handle(context: Context, node: Node) -> Array:
        del context
        return np.full(native_shape(node), truth)

    return handle


def _filled(number: float | None = None) -> Handler:
    """A tensor of one number, made in the shape of another."""

    def handle(context: Context, node: Node) -> Array:
        fill = context.arguments(node).get("fill_value") if number is None else number
        if isinstance(fill, np.ndarray):
            fill = fill.item()
        require(isinstance(fill, int | float), context.name(node), "a fill that depends on the data")
        return np.full(native_shape(node), fill, dtype_name(node.meta["val"].dtype))

    return handle


def _triangle(*, upper: bool) -> Handler:
    """Data above or below a diagonal, with zeros elsewhere."""

    def handle(context: Context, node: Node) -> Operand:
        a = context.arguments(node)
        shape = native_shape(node)[-2:]
        kept = (np.triu if upper else np.tril)(np.ones(shape, bool), a["diagonal"])
        return logic.keep_where(context.builder, context.name(node), a["self"], kept)

    return handle


def _any(*, every: bool) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        axes, keep = a.get("dim"), bool(a.get("keepdim"))
        axes = [axes] if isinstance(axes, int) else axes
        return logic.any_along(
            context.builder, context.name(node), a["self"], axes, keepdims=keep, every=every
        )

    return handle


HANDLERS: Mapping[str, Handler] = {
    **{word: _compare(word) for word in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{
        alias: _compare(word)
        for word, alias in (
            ("eq", "equal"),
            ("ne", "not_equal"),
            ("lt", "less"),
            ("le", "less_equal"),
            ("gt", "greater"),
            ("ge", "greater_equal"),
        )
    },
    **{
        f"{start}{word}{end}": _logical(word.capitalize())
        for word in ("and", "or", "xor")
        for start, end in (("logical_", ""), ("bitwise_", ""), ("__", "__"))
    },
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    "isfinite": _constant(truth=True),
    **dict.fromkeys(("isnan", "isinf", "isneginf", "isposinf"), _constant(truth=False)),
    "where": _where,
    "masked_fill": _masked_fill,
    **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
    **dict.fromkeys(("zeros_like", "new_zeros"), _filled(0.0)),
    **dict.fromkeys(("ones_like", "new_ones"), _filled(1.0)),
    **dict.fromkeys(("full_like", "new_full"), _filled()),
    "tril": _triangle(upper=False),
    "triu": _triangle(upper=True),
    "any": _any(every=False),
    "all": _any(every=True),
}
"""Names of operations, without their overloads, to their handlers."""
