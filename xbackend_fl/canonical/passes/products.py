"""A product of matrices of which one is a single row or column is a sum of products of elements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbackend_fl.canonical.draft import Draft, Graph, free_sizes
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.passes.edit import Edit


def sum_products(graph: Graph) -> tuple[Draft, ...]:
    """``ReduceSum`` of a ``Mul`` in place of a ``MatMul`` with a row or a column."""
    edit = Edit(graph)
    for draft in graph.drafts:
        edit.keep(_summed(edit, draft) if draft.operator == "MatMul" else draft)
    return tuple(edit.drafts)


def _summed(edit: Edit, product: Draft) -> Draft:
    left, right = product.inputs
    one, two = edit.shape(left), edit.shape(right)
    if min(len(one), len(two)) < 2 or (one[-2] != 1 and two[-1] != 1):
        return product
    rank = len(product.shape)
    if two[-1] == 1:
        # [.., m, k] times the column [.., k, 1] as the row [.., 1, k], summed over k.
        other, axis = _swapped(edit, product, right), rank - 1
        factors = [left, other]
    else:
        # The row [.., 1, k] as the column [.., k, 1], times [.., k, n], summed over k.
        other, axis = _swapped(edit, product, left), rank - 2
        factors = [other, right]
    shape = np.broadcast_shapes(*(edit.shape(item) for item in factors))
    multiplied = edit.make(product, "Mul", factors, shape)
    attributes: dict[str, AttributeValue] = {"axes": (axis,), "keepdims": True}
    return replace(product, operator="ReduceSum", inputs=(multiplied,), attributes=attributes)


def _swapped(edit: Edit, near: Draft, value: str) -> str:
    """The last two axes of a value, of which one has length one, in the other order."""
    shape = edit.shape(value)
    turned = (*shape[:-2], shape[-1], shape[-2])
    if turned == shape:
        return value
    return edit.make(near, "Reshape", [value], turned, {"shape": free_sizes(shape, turned)})
