"""Recurrent layers with the final states they return, and multi-head attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.fx import Node

from xbackend_fl.canonical import Value, movement, training
from xbackend_fl.canonical.layout import Blocks, Join, Layout, Stack, Sum
from xbackend_fl.canonical.operands import Operand
from xbackend_fl.canonical.operands import native_shape as operand_shape
from xbfl_torch.graph import (
    Context,
    Handler,
    State,
    base_name,
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
    start = a["start"] or 0
    if "length" in a:
        start = start % length
        return movement.cut(context.builder, context.name(node), a["self"], axis, start, start + a["length"])
    stop = length if a["end"] is None else a["end"]
    return movement.cut(
        context.builder, context.name(node), a["self"], axis, start, min(stop, length), a["step"]
    )


def _unbind(context: Context, node: Node) -> list[Operand]:
    a = context.arguments(node)
    length = operand_shape(a["self"])[a["dim"]]
    name = context.name(node)
    return [movement.pick(context.builder, name, a["self"], a["dim"], index) for index in range(length)]


@contextmanager
def states_whole(context: Context, node: Node) -> Iterator[None]:
    """While an operation is read that knows nothing of the rows of ``h_n``, that is an array ``[layers · directions, N, H]``."""
    states = {
        item: context.values[item]
        for item in node.all_input_nodes
        if isinstance(context.values.get(item), State) and base_name(node) not in HANDLERS
    }
    context.values |= {item: _whole(context, item.name, states[item]) for item in states}
    try:
        yield
    finally:
        context.values |= states


def _whole(context: Context, name: str, states: State) -> Operand:
    rows = [_state_row(context, states, index) for index in range(len(states.rows))]
    return movement.stack(context.builder, name, rows, 0)


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
