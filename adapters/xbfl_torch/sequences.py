"""Recurrent layers with the final states they return, and multi-head attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from xbackend_fl.canonical import Value, movement, training
from xbackend_fl.canonical.attention import attention as dot_product_attention
from xbackend_fl.canonical.attention import join_heads, split_heads
from xbackend_fl.canonical.layout import Blocks, Join, Layout, Native, Stack, Step, Sum
from xbackend_fl.canonical.operands import Operand, is_causal_mask
from xbackend_fl.canonical.operands import native_shape as operand_shape
from xbfl_torch.graph import (
    Context,
    Handler,
    State,
    module_path,
    native_shape,
    require,
)

_LSTM_GATES = (0, 3, 1, 2)  # torch i, f, g, o -> ONNX i, o, f, c
_GRU_GATES = (1, 0, 2)  # torch r, z, n -> ONNX z, r, h


def _recurrent(operator: str, activation: str | None = None) -> Handler:
    gates = {"LSTM": _LSTM_GATES, "GRU": _GRU_GATES, "RNN": (0,)}[operator]

    def direction(tensors: Sequence[Layout], has_biases: bool) -> dict[str, Layout]:  # noqa: FBT001
        ordered: list[Layout] = [Blocks(tensor, 0, gates) for tensor in tensors]
        layouts = {"weight": ordered[0], "recurrent_weight": ordered[1]}
        if has_biases:
            pair = (ordered[2], ordered[3])
            layouts["bias"] = Join(pair, 0) if operator == "GRU" else Sum(pair)
        return layouts

    def handle(context: Context, node: Node) -> tuple[Any, ...]:
        a = context.arguments(node)
        tensors: list[Layout] = a["params"]
        name = context.name(node, tensors[0])
        initial = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
        require(all(_is_zero(item) for item in initial), name, "expected a zero initial state")
        value = context.data(a["input"])
        order = (0, 1, 2) if a["batch_first"] else (1, 0, 2)
        value = context.builder.arrange(value, order)
        directions, per = (2 if a["bidirectional"] else 1), (4 if a["has_biases"] else 2)
        hidden = tensors[1].shape[1]
        require(tensors[0].shape[0] == len(gates) * hidden, name, "proj_size is not ONNX's")
        module = context.modules[module_path(node)]
        rows: list[tuple[Value, int]] = []
        for layer in range(a["num_layers"]):
            first = layer * directions * per
            parts = [
                direction(tensors[first + d * per : first + (d + 1) * per], a["has_biases"])
                for d in range(directions)
            ]
            attributes: dict[str, Any] = {
                "hidden_size": hidden,
                "direction": "bidirectional" if directions == 2 else "forward",
            }
            if operator == "GRU":
                attributes["linear_before_reset"] = 1
            if activation:
                attributes["activation"] = activation
            width = directions * hidden
            shape = (*value.shape[:2], width)
            sequence, final = context.builder.add(
                operator,
                name if a["num_layers"] == 1 else f"{name}.{layer}",
                [value],
                [shape, (shape[0], width)],
                layouts={role: Stack(tuple(part[role] for part in parts)) for role in parts[0]},
                attributes=attributes,
                origin=name,
            )
            value = Value(sequence, shape, order)
            state = Value(final, (shape[0], width), (0, 1))
            if directions == 1:
                context.sequences[sequence] = state
            rows.extend((state, d) for d in range(directions))
            if layer + 1 < a["num_layers"]:
                # One rate for all places between its layers: they have one origin.
                place = f"{name}.{layer}.dropout"
                value = training.dropout(
                    context.builder, place, value, context.rate(module), (), module_path(node) or name
                )
                value = context.builder.arrange(value, order)
        states = State(tuple(rows), hidden)
        return (value, states, None) if operator == "LSTM" else (value, states)

    return handle


def _is_zero(node: Any) -> bool:
    return isinstance(node, Node) and str(node.target).startswith(("aten.zeros", "aten.new_zeros"))


def _state_row(context: Context, states: State, index: int) -> Value:
    """One row of ``h_n``; the rows of one bidirectional layer may be joined again."""
    final, direction = states.rows[index]
    width = states.hidden
    start = direction * width
    row = context.builder.slice(f"{final.name}.state", final, 1, start, start + width)
    context.rows[row.name] = (final, direction)
    return row


def _select(context: Context, node: Node) -> Any:
    a = context.arguments(node)
    value = a["self"]
    if isinstance(value, State):
        require(a["dim"] == 0, context.name(node), "h_n may only be indexed by layer")
        return _state_row(context, value, a["index"] % len(value.rows))
    if isinstance(value, Value):
        axis = value.perm[a["dim"] % len(value.shape)]
        last = a["index"] in {-1, value.shape[axis] - 1}
        if axis == 1 and last and value.name in context.sequences:
            return context.sequences[value.name]
    return movement.pick(context.builder, context.name(node), value, a["dim"], a["index"])


def _cat(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    items = a["tensors"]
    rows = [context.rows.get(item.name) for item in items if isinstance(item, Value)]
    if len(rows) == len(items) and rows[0] is not None and a["dim"] in {1, -1}:
        whole = rows[0][0]
        if len(rows) == whole.shape[1] // items[0].shape[1] and rows == [
            (whole, i) for i in range(len(rows))
        ]:
            return whole
    values = [_operand(item) for item in items]
    return movement.concat(context.builder, context.name(node), values, a["dim"])


def _stack(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    values = [_operand(item) for item in a["tensors"]]
    return movement.stack(context.builder, context.name(node), values, a["dim"])


def _operand(item: Any) -> Operand:
    if isinstance(item, State):
        require(len(item.rows) == 1, "h_n", "expected one layer and one direction, or an index")
        return item.rows[0][0]
    operand: Operand = item
    return operand


def _squeeze(context: Context, node: Node) -> Operand:
    item = context.get(node.args[0])
    if isinstance(item, State):
        return _operand(item)
    operand = _operand(item)
    return movement.reshape(context.builder, context.name(node), operand, native_shape(node))


def _slice(context: Context, node: Node) -> Any:
    a = context.arguments(node)
    if isinstance(a["self"], State):
        indices = range(len(a["self"].rows))[a["start"] : a["end"] : a["step"]]
        return State(tuple(a["self"].rows[i] for i in indices), a["self"].hidden)
    axis = a["dim"] % len(native_shape(node))
    length = operand_shape(a["self"])[axis]
    start, stop = a["start"] or 0, length if a["end"] is None else a["end"]
    return movement.cut(
        context.builder, context.name(node), a["self"], axis, start, min(stop, length), a["step"]
    )


def _unbind(context: Context, node: Node) -> list[Operand]:
    a = context.arguments(node)
    length = operand_shape(a["self"])[a["dim"]]
    name = context.name(node)
    return [movement.pick(context.builder, name, a["self"], a["dim"], index) for index in range(length)]


def _dot_product_attention(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name = context.name(node)
    query, key, value = (context.data(a[part]) for part in ("query", "key", "value"))
    mask = a.get("attn_mask")
    require(mask is None or is_causal_mask(mask), name, "an attention mask other than the causal one")
    require(not a.get("enable_gqa"), name, "grouped queries (enable_gqa)")
    size = query.native_shape[-1]
    rate, place = context.drop(node, "attention")
    return dot_product_attention(
        context.builder,
        name,
        query,
        key,
        value,
        scale=float(a["scale"] or 1.0 / math.sqrt(size)),
        causal=bool(a["is_causal"]) or mask is not None,
        dropout=rate,
        origin=place,
    )


def attention(context: Context, node: Node) -> bool:
    """Handle all nodes of an ``nn.MultiheadAttention`` at once; false if ``node`` belongs to none."""
    path = next(
        (
            str(entry[0])
            for entry in (node.meta.get("nn_module_stack") or {}).values()
            if isinstance(context.modules.get(str(entry[0])), torch.nn.MultiheadAttention)
        ),
        None,
    )
    if path is None:
        return False
    module = context.modules[path]
    assert isinstance(module, torch.nn.MultiheadAttention)
    group = [n for n in node.graph.nodes if n.op == "call_function" and _inside(n, path)]
    members = set(group)
    require(module.bias_k is None and not module.add_zero_attn, path, "bias_k and add_zero_attn")
    products = [n for n in group if str(n.target) == "aten.linear.default"]
    sources = [_source(product, members) for product in products[:-1]]
    require(1 <= len(sources) <= 3, path, "attention of an unknown form")
    query = sources[0]
    key = sources[1] if len(sources) > 1 else query
    content = sources[2] if len(sources) > 2 else key
    outside = {m for n in group for m in n.all_input_nodes if m not in members}
    others = [context.values.get(m) for m in outside - {query, key, content}]
    masks = [item for item in others if not isinstance(item, Step)]
    require(all(map(is_causal_mask, masks)), path, "an attention mask other than the causal one")
    causal = bool(masks) or any(n.kwargs.get("is_causal") or (len(n.args) > 5 and n.args[5]) for n in group)
    results = [n for n in group if any(user not in members for user in n.users)]
    require(
        len(results) == 1,
        path,
        "the attention weights are used; only the first output is canonical",
        "torch: call it with need_weights=False, and return its first output",
    )
    order = (0, 1, 2) if module.batch_first else (1, 0, 2)
    values = [context.data(context.values[m]) for m in (query, key, content)]
    layouts = _attention_layouts(path, module)
    projected = []
    for part, value in zip(("query", "key", "value"), values, strict=True):
        by_batch = context.builder.transpose(context.builder.arrange(value, order), order)
        linear = context.builder.linear(
            f"{path}.{part}", by_batch, layouts[f"{part}.weight"], layouts.get(f"{part}.bias")
        )
        projected.append(split_heads(context.builder, f"{path}.heads", linear, module.num_heads))
    mixed = dot_product_attention(
        context.builder,
        path,
        *projected,
        scale=1.0 / math.sqrt(module.head_dim),
        causal=causal,
        dropout=context.rate(module),
        origin=path,
    )
    joined = join_heads(context.builder, f"{path}.heads", mixed)
    made = context.builder.linear(
        f"{path}.output", joined, layouts["output.weight"], layouts.get("output.bias")
    )
    for member in group:
        context.values[member] = None
    context.values[results[0]] = context.builder.transpose(made, order)
    for user in results[0].users:
        if user in members:
            context.values[user] = None
    return True


def _inside(node: Node, path: str) -> bool:
    inner = module_path(node)
    return inner == path or inner.startswith(f"{path}.")


def _source(node: Node, members: set[Node]) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    while source in members:
        source = source.all_input_nodes[0]
    return source


def _attention_layouts(path: str, module: torch.nn.MultiheadAttention) -> dict[str, Layout]:
    size = module.embed_dim
    layouts: dict[str, Layout] = {}
    for index, part in enumerate(("query", "key", "value")):
        rows = ((0, index * size, (index + 1) * size),)
        packed: torch.Tensor | None = module.in_proj_weight
        if packed is not None:
            layouts[f"{part}.weight"] = Native(f"{path}.in_proj_weight", (3 * size, size), rows)
        else:
            separate = getattr(module, f"{part[0]}_proj_weight")
            layouts[f"{part}.weight"] = Native(f"{path}.{part[0]}_proj_weight", tuple(separate.shape))
        if module.in_proj_bias is not None:
            layouts[f"{part}.bias"] = Native(f"{path}.in_proj_bias", (3 * size,), rows)
    layouts["output.weight"] = Native(f"{path}.out_proj.weight", (size, size))
    if module.out_proj.bias is not None:
        layouts["output.bias"] = Native(f"{path}.out_proj.bias", (size,))
    return layouts


HANDLERS: Mapping[str, Handler] = {
    "lstm.input": _recurrent("LSTM"),
    "gru.input": _recurrent("GRU"),
    "rnn_tanh.input": _recurrent("RNN", "Tanh"),
    "rnn_relu.input": _recurrent("RNN", "Relu"),
    "select.int": _select,
    "slice.Tensor": _slice,
    "cat.default": _cat,
    "stack.default": _stack,
    "unbind.int": _unbind,
    "scaled_dot_product_attention.default": _dot_product_attention,
    **dict.fromkeys(("squeeze.dim", "squeeze.dims", "squeeze.default", "unsqueeze.default"), _squeeze),
}
