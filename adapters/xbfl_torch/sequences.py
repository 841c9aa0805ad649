"""Recurrent layers with the final states they return, and multi-head attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import axes_ops, training
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.graph.operands import native_shape as operand_shape
from xbackend_fl.canonical.graph.recurrent import recurrent
from xbackend_fl.canonical.layout import Blocks, Join, Layout, Sum
from xbfl_torch.graph import Context, Handler, module_path, native_shape, require
from xbfl_torch.packed import packed
from xbfl_torch.states import State, state_row, whole_state

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

    def handle(context: Context, node: Node) -> Sequence[Any]:
        a = context.arguments(node)
        if "batch_sizes" in a:
            return packed(context, node, operator, len(gates))
        tensors: list[Layout] = a["params"]
        name = context.name(node, tensors[0])
        given = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
        begun = [context.stored(item) for item in given]
        directions, per = (2 if a["bidirectional"] else 1), (4 if a["has_biases"] else 2)
        hidden = tensors[1].shape[1]
        require(tensors[0].shape[0] == len(gates) * hidden, name, "proj_size is not ONNX's")
        order = (0, 1, 2) if a["batch_first"] else (1, 0, 2)
        value = context.builder.transpose(context.data(a["input"]), order)
        module = context.modules[module_path(node)]
        rows: list[list[tuple[Value, int]]] = [[] for _ in given]
        attributes: dict[str, Any] = {"linear_before_reset": 1} if operator == "GRU" else {}
        if activation:
            attributes["activation"] = activation
        for layer in range(a["num_layers"]):
            first = layer * directions
            parts = [
                direction(tensors[place * per : (place + 1) * per], a["has_biases"])
                for place in range(first, first + directions)
            ]
            made = recurrent(
                context.builder,
                operator,
                name if a["num_layers"] == 1 else f"{name}.{layer}",
                value,
                parts,
                initial=[_first(context, name, item, first, directions) for item in begun],
                origin=name,
                **attributes,
            )
            value = made.sequence
            for found, state in zip(rows, made.states, strict=True):
                found.extend((state, d) for d in range(directions))
            if layer + 1 < a["num_layers"]:
                # One rate for all places between its layers: they have one origin.
                place = f"{name}.{layer}.dropout"
                value = training.dropout(
                    context.builder, place, value, context.rate(module), (), module_path(node) or name
                )
        return context.builder.transpose(value, order), *(State(tuple(found), hidden) for found in rows)

    return handle


def _first(context: Context, name: str, begun: Any, first: int, directions: int) -> Operand:
    """The first states of one layer, ``[N, directions · hidden]``, of those of all its rows, ``[rows, N, hidden]``."""
    if isinstance(begun, State):
        whole = whole_state(begun.rows[first : first + directions], begun.hidden)
        parts: list[Operand] = [_state_row(context, begun, first + d) for d in range(directions)]
        return whole or _joined(context, name, parts)
    rows, *rest = operand_shape(begun)
    if rows == 1:
        return axes_ops.reshape(context.builder, name, begun, tuple(rest))
    picked = [axes_ops.pick(context.builder, name, begun, 0, first + d) for d in range(directions)]
    return _joined(context, name, picked)


def _joined(context: Context, name: str, parts: list[Operand]) -> Operand:
    return parts[0] if len(parts) == 1 else axes_ops.concat(context.builder, name, parts, 1)


def _state_row(context: Context, states: State, index: int) -> Value:
    """One row of ``h_n``; the rows of one bidirectional layer may be joined again."""
    row = state_row(context.builder, states, index)
    context.rows[row.name] = states.rows[index]
    return row


def _select(context: Context, node: Node) -> Any:
    a = context.arguments(node)
    held = context.stored(node.args[0])
    if isinstance(held, State) and a["dim"] in {0, -3}:
        return _state_row(context, held, a["index"] % len(held.rows))
    return axes_ops.pick(context.builder, context.name(node), a["self"], a["dim"], a["index"])


def _cat(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    items: list[Operand] = [item for item in a["tensors"] if operand_shape(item) != (0,)] or a["tensors"]
    if a["dim"] in {1, -1} and len(operand_shape(items[0])) == 2:
        rows = [context.rows.get(item.name) if isinstance(item, Value) else None for item in items]
        if (whole := whole_state(rows, operand_shape(items[0])[1])) is not None:
            return whole
    return axes_ops.concat(context.builder, context.name(node), items, a["dim"])


def _stack(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    return axes_ops.stack(context.builder, context.name(node), a["tensors"], a["dim"])


def _squeeze(context: Context, node: Node) -> Operand:
    held = context.stored(node.args[0])
    if isinstance(held, State) and len(held.rows) == 1:
        operand: Operand = _state_row(context, held, 0)
    else:
        operand = context.get(node.args[0])
    return axes_ops.reshape(context.builder, context.name(node), operand, native_shape(node))


def _slice(context: Context, node: Node) -> Any:
    a, held = context.arguments(node), context.stored(node.args[0])
    axis = a["dim"] % len(native_shape(node))
    length = operand_shape(a["self"])[axis]
    start = a["start"] or 0
    if "length" in a:
        start = start % length
        stop = start + a["length"]
    else:
        stop = length if a["end"] is None else a["end"]
    if isinstance(held, State) and axis == 0:
        return State(held.rows[start : stop : a.get("step", 1)], held.hidden)
    return axes_ops.cut(
        context.builder, context.name(node), a["self"], axis, start, min(stop, length), a.get("step", 1)
    )


def _unbind(context: Context, node: Node) -> list[Operand]:
    a, held = context.arguments(node), context.stored(node.args[0])
    if isinstance(held, State) and a["dim"] in {0, -3}:
        return [_state_row(context, held, index) for index in range(len(held.rows))]
    length = operand_shape(a["self"])[a["dim"]]
    name = context.name(node)
    return [axes_ops.pick(context.builder, name, a["self"], a["dim"], index) for index in range(length)]


HANDLERS: Mapping[str, Handler] = {
    "lstm": _recurrent("LSTM"),
    "gru": _recurrent("GRU"),
    "rnn_tanh": _recurrent("RNN", "Tanh"),
    "rnn_relu": _recurrent("RNN", "Relu"),
    **dict.fromkeys(("select", "select_copy"), _select),
    **dict.fromkeys(("slice", "narrow", "slice_copy"), _slice),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    **dict.fromkeys(("unbind", "unbind_copy"), _unbind),
    **dict.fromkeys(("squeeze", "unsqueeze"), _squeeze),
}
"""Names of operations, without their overloads, to their handlers."""
