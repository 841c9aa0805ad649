"""Scaled dot-product attention, with a mask of data too: its products, mask and softmax are nodes of their own then.

The ``Attention`` node hides the future or nothing. Everything else that is hidden, or added, stands in front of the softmax, where
models write it in many ways; there the graph's own rewrites bring it into one form.
"""

from __future__ import annotations

import numpy as np

from xbackend_fl.canonical.graph import logic, picking, training
from xbackend_fl.canonical.graph.attention import attention, product
from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.graph.operands import Operand, as_value, combine, is_causal_mask
from xbackend_fl.canonical.value import Value


def attended(
    builder: GraphBuilder,
    name: str,
    query: Value,
    key: Value,
    value: Value,
    mask: Operand | None,
    *,
    scale: float,
    causal: bool,
    dropout: float | None,
    origin: str,
) -> Value:
    """``softmax(scale · q · kᵀ, masked) · v`` over the last two native axes: one node, or with a mask of data several.

    Args:
        builder: Receives the nodes.
        name: Wanted name.
        query: ``[..., T, size]``.
        key: ``[..., S, size]``.
        value: ``[..., S, size]``.
        mask: Truth values, true where a position is seen, or numbers that are added to the scores; broadcast to them;
            ``None`` without one.
        scale: Of the scores.
        causal: Whether position t sees positions up to t alone.
        dropout: Rate of the weights; ``None`` where the model cannot be given one.
        origin: Native place that drops.
    """
    if mask is None or is_causal_mask(mask):
        hides = causal or mask is not None
        return attention(
            builder, name, query, key, value, scale=scale, causal=hides, dropout=dropout, origin=origin
        )
    mask = builder.plain(mask) if isinstance(mask, Value) else mask
    rank = len(key.shape)
    swap = (*range(rank - 2), rank - 1, rank - 2)
    scores = product(builder, f"{name}.scores", query, builder.transpose(key, swap))
    scores = builder.elementwise("Mul", f"{name}.scale", scores, constant=scale)
    if logic.is_truth(builder, mask):
        hidden = ~mask if isinstance(mask, np.ndarray) else logic.negate(builder, f"{name}.mask", mask)
        masked: Operand = logic.fill_where(builder, f"{name}.mask", scores, hidden, -1e9)
    else:
        masked = combine(builder, "Add", f"{name}.mask", scores, mask)
    scores = as_value(builder, masked)
    if causal:
        scores = builder.elementwise("CausalMask", f"{name}.causal", scores)
    weights = builder.along("Softmax", f"{name}.softmax", scores, -1)
    if dropout is not None:
        weights = training.dropout(builder, f"{name}.dropout", weights, dropout, (), origin)
    return product(builder, name, weights, value)


def repeat_heads(builder: GraphBuilder, name: str, value: Value, heads: int) -> Value:
    """Keys or values ``[N, groups, S, size]`` as often as there are heads: each group serves several in a row."""
    groups = value.native_shape[1]
    if groups == heads:
        return value
    return as_value(builder, picking.repeat(builder, f"{name}.groups", value, 1, heads // groups))
