"""Recurrent nodes and attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from xbackend_fl.canonical import views
from xbackend_fl.canonical.graph import axes_ops
from xbackend_fl.canonical.graph.attention import attention as dot_product_attention
from xbackend_fl.canonical.graph.attention import join_heads, split_heads
from xbackend_fl.canonical.graph.expressions import ComputedParameter
from xbackend_fl.canonical.graph.operands import Operand, is_causal_mask, native_shape
from xbackend_fl.canonical.graph.recurrent import recurrent as run
from xbackend_fl.canonical.layout import Layout, Native, Stack, Sum
from xbfl_onnx.graph import Context, Handler, attributes, layout, require

_WIDTH = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(context: Context, node: onnx.NodeProto) -> list[Operand]:
    """LSTM, GRU and RNN: ``[T, N, F]`` in, ``[T, directions, N, hidden]`` and ``[directions, N, hidden]`` out."""
    given, operands = attributes(node), (*context.inputs(node), *[None] * 5)
    value, weight, recurrent, bias = operands[:4]
    require(given.get("layout", 0) == 0, node, "layout=1")
    direction = given.get("direction", "forward")
    require(operands[4] is None or isinstance(operands[4], np.ndarray), node, "sequence lengths that vary")
    require(len(operands) < 8 or operands[7] is None or _is_zero(operands[7]), node, "peepholes")
    names = [name.decode() if isinstance(name, bytes) else name for name in given.get("activations", ())]
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}.get(node.op_type)
    directions = 2 if direction == "bidirectional" else 1
    require(not names or usual is None or names == usual * directions, node, f"activations {names}")
    hidden = given["hidden_size"]
    more: dict[str, Any] = {}
    if node.op_type == "GRU":
        more["linear_before_reset"] = given.get("linear_before_reset", 0)
    if node.op_type == "RNN":
        more["activation"] = names[0] if names else "Tanh"
    layouts = {"weight": _parameter(weight, node), "recurrent_weight": _parameter(recurrent, node)}
    if isinstance(bias, ComputedParameter) and bias.operator == "Concat" and _is_zero(bias.operands[-1]):
        # One bias, filled up with zeros where ONNX has a second one.
        layouts["bias"] = _parameter(bias.operands[0], node)
    elif (held := layout(bias, node)) is not None:
        layouts["bias"] = _bias(held, _WIDTH[node.op_type] * hidden, bool(more.get("linear_before_reset")))
    builder = context.builder
    made = run(
        builder,
        node.op_type,
        node.name,
        builder.transpose(context.needed(value, node), (1, 0, 2)),
        [{role: views.index(held, 0, d) for role, held in layouts.items()} for d in range(directions)],
        initial=_initial(context, node, operands[5:7]),
        backwards=direction == "reverse",
        **more,
    )
    # ONNX's own order: [T, directions, N, hidden] and [directions, N, hidden].
    batch, steps, _ = made.sequence.native_shape
    every = builder.reshape(f"{node.name}.Y", made.sequence, (batch, steps, directions, hidden))
    ends = [builder.reshape(f"{node.name}.Y_h", item, (batch, directions, hidden)) for item in made.states]
    return [builder.transpose(every, (1, 2, 0, 3)), *(builder.transpose(item, (1, 0, 2)) for item in ends)]


def _parameter(operand: Operand | None, node: onnx.NodeProto) -> Layout:
    found = layout(operand, node)
    require(found is not None, node, "a weight is missing")
    assert found is not None
    return found


def _initial(context: Context, node: onnx.NodeProto, given: Sequence[Operand | None]) -> list[Operand]:
    """First states ``[directions, N, hidden]`` as ``[N, directions · hidden]``; zeros are left out."""
    if all(_is_zero(item) or (isinstance(item, Native) and item.tensor in context.zeros) for item in given):
        return []
    found: list[Operand] = []
    for item in given if node.op_type == "LSTM" else given[:1]:
        if item is None:
            found.append(np.zeros((1, 1), np.float32))
            continue
        by_batch = axes_ops.transpose(context.builder, item, (1, 0, 2))
        batch, directions, hidden = native_shape(by_batch)
        found.append(axes_ops.reshape(context.builder, node.name, by_batch, (batch, directions * hidden)))
    return found


def _bias(held: Layout, rows: int, both: bool) -> Layout:  # noqa: FBT001  one caller
    """The canonical bias of ``[directions, Wb and Rb]``: both, or their sum."""
    if both:
        return held
    parts = [views.index(held, 0, direction) for direction in range(held.shape[0])]
    return Stack(
        tuple(Sum((views.slice_axis(p, 0, 0, rows), views.slice_axis(p, 0, rows, 2 * rows))) for p in parts)
    )


def _is_zero(item: Operand | None) -> bool:
    return item is None or (isinstance(item, np.ndarray) and not item.any())


def _attention(context: Context, node: onnx.NodeProto) -> Operand:
    """ONNX Attention (opset 23) of ``[N, heads, T, size]`` or ``[N, T, heads · size]``."""
    given, operands = attributes(node), (*context.inputs(node), None, None)
    query, key, value = (context.needed(item, node) for item in operands[:3])
    mask = operands[3]
    require(mask is None or is_causal_mask(mask), node, "an attention mask other than the causal one")
    builder = context.builder
    joined = len(query.shape) == 3
    if joined:
        heads = given["q_num_heads"]
        require(given.get("kv_num_heads", heads) == heads, node, "grouped queries")
        query, key, value = (split_heads(builder, node.name, item, heads) for item in (query, key, value))
    made = dot_product_attention(
        builder,
        node.name,
        query,
        key,
        value,
        scale=float(given.get("scale", 1.0 / math.sqrt(query.native_shape[-1]))),
        causal=bool(given.get("is_causal", 0)) or mask is not None,
        dropout=None,
    )
    return join_heads(builder, node.name, made) if joined else made


HANDLERS: Mapping[str, Handler] = {**dict.fromkeys(_WIDTH, _recurrent), "Attention": _attention}
