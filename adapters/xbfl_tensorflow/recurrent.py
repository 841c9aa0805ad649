"""Recurrent layers of Keras: LSTM, GRU and SimpleRNN, in one direction or both, with the states that they take and return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import axes_ops
from xbackend_fl.canonical.graph.operands import Operand, combine
from xbackend_fl.canonical.graph.recurrent import Ran, turn_round
from xbackend_fl.canonical.graph.recurrent import recurrent as run
from xbackend_fl.canonical.layout import Blocks, Layout, Reshape, Transpose
from xbfl_tensorflow.graph import Context, family, require

_OPERATORS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "LSTM": ("LSTM", (0, 3, 1, 2)),  # Keras i, f, c, o -> ONNX i, o, f, c
    "GRU": ("GRU", (0, 1, 2)),  # z, r, h on both sides
    "SimpleRNN": ("RNN", (0,)),
}

KINDS = frozenset({*_OPERATORS, "Bidirectional"})
"""Layers that :func:`recurrent` tells as a whole."""

_MERGES: Mapping[str, tuple[str, float]] = {"sum": ("Add", 1.0), "ave": ("Add", 0.5), "mul": ("Mul", 1.0)}
"""How two directions meet: the operation, and what its result is multiplied by."""


def recurrent(
    context: Context, layer: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> list[Operand]:
    """What a recurrent layer returns, in its order.

    Raises:
        UnsupportedError: It does what no node says; its operations do.
    """
    name = context.name(layer)
    given = dict(zip(("sequences", "initial_state", "mask"), arguments, strict=False)) | dict(options)
    data, begun = given.pop("sequences"), given.pop("initial_state", None)
    extra = [word for word, value in given.items() if value is not None and value is not False]
    require(not extra, name, f"the arguments {extra} have no canonical form")
    if isinstance(data, list):
        # The legacy package also takes the states behind the data.
        data, *rest = data
        begun = begun if begun is not None else rest
    states = list(begun) if isinstance(begun, list) else [] if begun is None else [begun]
    value = context.data(data)
    if type(layer).__name__ == "Bidirectional":
        return _both(context, layer, name, value, states)
    made = _ran(context, name, [layer], value, states)
    sequence = turn_round(context.builder, made.sequence) if layer.go_backwards else made.sequence
    first = sequence if layer.return_sequences else made.states[0]
    return [first, *(made.states if layer.return_state else ())]


def _both(context: Context, layer: Any, name: str, value: Value, states: list[Operand]) -> list[Operand]:
    forward, backward = layer.forward_layer, layer.backward_layer
    usual = not forward.go_backwards and backward.go_backwards
    require(usual, name, "its first layer goes backwards, or its second one does not")
    alike = all(
        (getattr(one, word, None) == getattr(two, word, None))
        for one, two in ((forward, backward), (forward.cell, backward.cell))
        for word in ("units", "return_sequences", "use_bias", "reset_after")
    )
    require(alike and type(forward) is type(backward), name, "the two directions differ in kind")
    half = len(states) // 2
    joined = [
        axes_ops.concat(context.builder, name, pair, 1)
        for pair in zip(states[:half], states[half:], strict=True)
    ]
    made = _ran(context, name, [forward, backward], value, joined)
    whole: Value = made.sequence if forward.return_sequences else made.states[0]
    if layer.merge_mode == "concat":
        merged: list[Operand] = [whole]
    else:
        one, two = _directions(context, name, whole, forward.units)
        merged = [one, two]
        if layer.merge_mode is not None:
            operator, factor = _MERGES[layer.merge_mode]
            total = combine(context.builder, operator, name, one, two)
            merged = [total if factor == 1.0 else combine(context.builder, "Mul", name, total, factor)]
    if not layer.return_state:
        return merged
    by_state = [_directions(context, name, state, forward.units) for state in made.states]
    return [*merged, *(pair[0] for pair in by_state), *(pair[1] for pair in by_state)]


def _directions(context: Context, name: str, value: Value, units: int) -> tuple[Value, Value]:
    """What each direction made of joined features."""
    builder = context.builder
    return builder.slice(name, value, -1, 0, units), builder.slice(name, value, -1, units, 2 * units)


def _ran(context: Context, name: str, directions: list[Any], value: Value, states: Sequence[Operand]) -> Ran:
    first = directions[0]
    kind = type(first).__name__
    require(kind in _OPERATORS and bool(family(first)), name, f"wraps a {kind}")
    operator, gates = _OPERATORS[kind]
    attributes = _attributes(name, operator, first)
    require(attributes == _attributes(name, operator, directions[-1]), name, "the two directions differ")
    return run(
        context.builder,
        operator,
        name,
        value,
        [_direction(context, layer.cell, gates) for layer in directions],
        initial=states,
        backwards=len(directions) == 1 and bool(first.go_backwards),
        **attributes,
    )


def _attributes(name: str, operator: str, layer: Any) -> dict[str, Any]:
    word = layer.activation.__name__
    require(not layer.stateful, name, "stateful=True keeps its state from call to call")
    no_dropout = not layer.dropout and not layer.recurrent_dropout
    require(no_dropout, name, "dropout inside the cell; put a Dropout layer in front of it instead")
    if operator == "RNN":
        require(word in {"tanh", "relu"}, name, f"activation={word!r}; expected 'tanh' or 'relu'")
        return {"activation": word.capitalize()}
    gate = layer.recurrent_activation.__name__
    usual = (word, gate) == ("tanh", "sigmoid")
    require(usual, name, f"activations {word!r}, {gate!r}; expected 'tanh', 'sigmoid'")
    return {"linear_before_reset": int(layer.reset_after)} if operator == "GRU" else {}


def _direction(context: Context, cell: Any, gates: tuple[int, ...]) -> dict[str, Layout]:
    def rows(variable: Any) -> Layout:
        return Blocks(Transpose(context.native(variable), (1, 0)), 0, gates)

    layouts: dict[str, Layout] = {
        "weight": rows(cell.kernel),
        "recurrent_weight": rows(cell.recurrent_kernel),
    }
    if cell.use_bias:
        bias = context.native(cell.bias)
        # GRU with reset_after holds [input bias; recurrent bias] as two rows.
        layouts["bias"] = Reshape(bias, (bias.shape[0] * bias.shape[1],)) if len(bias.shape) == 2 else bias
        if len(bias.shape) == 1:
            layouts["bias"] = Blocks(bias, 0, gates)
    return layouts
