"""Recurrent layers and multi-head attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.layout import Blocks, Layout, Reshape, Stack, Transpose
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.graph import Context, Handler, require

_OPERATORS: Mapping[type, tuple[str, tuple[int, ...]]] = {
    layers.LSTM: ("LSTM", (0, 3, 1, 2)),  # Keras i, f, c, o -> ONNX i, o, f, c
    layers.GRU: ("GRU", (0, 1, 2)),  # z, r, h on both sides
    layers.SimpleRNN: ("RNN", (0,)),
}


def _recurrent(context: Context, layer: Any, value: Value) -> Value:
    return _node(context, context.name(layer), [layer], value)


def _bidirectional(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    require(layer.merge_mode == "concat", name, f"merge_mode={layer.merge_mode!r}; expected 'concat'")
    backward = layer.backward_layer
    require(type(layer.forward_layer) is type(backward), name, "the two directions differ in kind")
    return _node(context, name, [layer.forward_layer, backward], value)


def _node(context: Context, name: str, directions: list[Any], value: Value) -> Value:
    first = directions[0]
    require(type(first) in _OPERATORS, name, f"wraps a {type(first).__name__}")
    operator, gates = _OPERATORS[type(first)]
    attributes = _attributes(name, operator, first, len(directions))
    value = context.builder.plain(value)
    width = len(directions) * first.units
    shapes = [(*value.shape[:2], width), (value.shape[0], width)]
    parts = [_direction(context, layer.cell, gates) for layer in directions]
    sequence, final = context.builder.add(
        operator,
        name,
        [value],
        shapes,
        layouts={role: Stack(tuple(part[role] for part in parts)) for role in parts[0]},
        attributes=attributes,
    )
    if first.return_sequences:
        return Value(sequence, shapes[0], (0, 1, 2))
    return Value(final, shapes[1], (0, 1))


def _attributes(name: str, operator: str, layer: Any, directions: int) -> dict[str, Any]:
    word = layer.activation.__name__
    require(not layer.return_state and not layer.stateful, name, "return_state and stateful")
    require(not layer.go_backwards, name, "go_backwards=True; wrap the layer in Bidirectional instead")
    no_dropout = not layer.dropout and not layer.recurrent_dropout
    require(no_dropout, name, "dropout inside the cell; put a Dropout layer in front of it instead")
    attributes: dict[str, Any] = {
        "hidden_size": layer.units,
        "direction": "bidirectional" if directions == 2 else "forward",
        "dropout": 0.0,
    }
    if operator == "RNN":
        require(word in {"tanh", "relu"}, name, f"activation={word!r}; expected 'tanh' or 'relu'")
        return attributes | {"activation": word.capitalize()}
    gate = layer.recurrent_activation.__name__
    usual = (word, gate) == ("tanh", "sigmoid")
    require(usual, name, f"activations {word!r}, {gate!r}; expected 'tanh', 'sigmoid'")
    return attributes | ({"linear_before_reset": int(layer.reset_after)} if operator == "GRU" else {})


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


def attention(context: Context, layer: Any, arguments: list[Any], options: Mapping[str, Any]) -> Value:
    """``keras.layers.MultiHeadAttention`` called as ``(query, value, key=None)``."""
    name = context.name(layer)
    given = dict(zip(("query", "value", "key"), arguments, strict=False)) | dict(options)
    query, content = given.pop("query"), given.pop("value")
    key = given.pop("key", None)
    key = content if key is None else key
    extra = [word for word, value in given.items() if value not in (None, False)]
    require(not extra, name, f"the arguments {extra} have no counterpart in PyTorch yet")
    inner = {part: getattr(layer, f"_{part}_dense") for part in ("query", "key", "value", "output")}
    ranks = {len(value.shape) for value in (query, content, key)}
    require(ranks == {3}, name, "expected inputs [N, T, F]")
    if layer._value_dim != layer._key_dim:  # noqa: SLF001  Keras keeps its sizes private
        raise UnsupportedError(f"keras layer {name!r}: value_dim differs from key_dim")
    values = [context.builder.plain(value) for value in (query, key, content)]
    layouts: dict[str, Layout] = {}
    for part, dense in inner.items():
        kernel = context.native(dense.kernel)
        rows, columns = kernel.shape[0], kernel.shape[1] * kernel.shape[2]
        if part == "output":
            rows, columns = kernel.shape[0] * kernel.shape[1], kernel.shape[2]
        layouts[f"{part}_weight"] = Transpose(Reshape(kernel, (rows, columns)), (1, 0))
        if dense.bias is not None:
            layouts[f"{part}_bias"] = Reshape(context.native(dense.bias), (columns,))
    shape = (*values[0].shape[:2], layouts["output_weight"].shape[0])
    heads = int(inner["query"].kernel.shape[1])
    (out,) = context.builder.add(
        "MultiHeadAttention",
        name,
        values,
        [shape],
        layouts=layouts,
        attributes={"num_heads": heads, "dropout": float(layer._dropout)},  # noqa: SLF001
    )
    return Value(out, shape, (0, 1, 2))


HANDLERS: Mapping[type, Handler] = {
    **dict.fromkeys(_OPERATORS, _recurrent),
    keras.layers.Bidirectional: _bidirectional,
}
