"""Recurrent layers and multi-head attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xbackend_fl.canonical import Value, movement, views
from xbackend_fl.canonical.attention import attention as dot_product_attention
from xbackend_fl.canonical.attention import join_heads, split_heads
from xbackend_fl.canonical.layout import Blocks, Layout, Reorder, Reshape, Stack, Transpose
from xbackend_fl.canonical.operands import as_value, is_causal_mask
from xbackend_fl.canonical.padding import same_pads
from xbfl_tensorflow.graph import Context, Handler, activation, family, require, spatial

_OPERATORS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "LSTM": ("LSTM", (0, 3, 1, 2)),  # Keras i, f, c, o -> ONNX i, o, f, c
    "GRU": ("GRU", (0, 1, 2)),  # z, r, h on both sides
    "SimpleRNN": ("RNN", (0,)),
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
    kind = type(first).__name__
    require(kind in _OPERATORS and bool(family(first)), name, f"wraps a {kind}")
    operator, gates = _OPERATORS[kind]
    attributes = _attributes(name, operator, first, len(directions))
    order = value.order
    value = value if order else context.builder.plain(value)
    width = len(directions) * first.units
    shapes = [(*value.shape[:2], width), (value.shape[0], width)]
    parts = [_direction(context, layer.cell, gates) for layer in directions]
    if order:
        # Features that every time step flattened: the weights take up their order.
        parts = [{**part, "weight": Reorder(part["weight"], 1, order)} for part in parts]
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
    require(
        not layer.return_state and not layer.stateful,
        name,
        "return_state=True or stateful=True has no canonical form",
        f"keras: {name}: return_sequences=True, and take the last step: x[:, -1]",
    )
    require(not layer.go_backwards, name, "go_backwards=True; wrap the layer in Bidirectional instead")
    no_dropout = not layer.dropout and not layer.recurrent_dropout
    require(no_dropout, name, "dropout inside the cell; put a Dropout layer in front of it instead")
    attributes: dict[str, Any] = {
        "hidden_size": layer.units,
        "direction": "bidirectional" if directions == 2 else "forward",
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
    """``MultiHeadAttention`` called as ``(query, value, key=None)``: three projections, attention, one more."""
    name, builder = context.name(layer), context.builder
    given = dict(zip(("query", "value", "key"), arguments, strict=False)) | dict(options)
    query, content = given.pop("query"), given.pop("value")
    key = given.pop("key", None)
    key = content if key is None else key
    mask = given.pop("attention_mask", None)
    require(mask is None or is_causal_mask(mask), name, "an attention mask other than the causal one")
    causal = bool(given.pop("use_causal_mask", False)) or mask is not None
    extra = [word for word, value in given.items() if value is not None and value is not False]
    require(not extra, name, f"the arguments {extra} have no counterpart in PyTorch yet")
    sources = [as_value(builder, item) for item in (query, key, content)]
    require({len(value.shape) for value in sources} == {3}, name, "expected inputs [N, T, F]")
    heads = []
    for part, value in zip(("query", "key", "value"), sources, strict=True):
        dense = getattr(layer, f"_{part}_dense")
        linear = _projection(context, f"{name}.{part}", dense, value, 1)
        heads.append(split_heads(builder, f"{name}.heads", linear, int(dense.kernel.shape[1])))
    # The node is the layer; its dropout is the layer's.
    mixed = dot_product_attention(
        builder,
        name,
        *heads,
        scale=1.0 / math.sqrt(heads[0].native_shape[-1]),
        causal=causal,
        dropout=float(layer._dropout) if layer._dropout and context.trains else None,  # noqa: SLF001  Keras keeps its rate private
        origin=context.place(layer),
    )
    joined = join_heads(builder, f"{name}.heads", mixed)
    return _projection(context, f"{name}.output", layer._output_dense, joined, 2)  # noqa: SLF001


def _self_attention(context: Context, layer: Any, value: Value) -> Value:
    return attention(context, layer, [value, value], {})


def _projection(context: Context, name: str, dense: Any, value: Value, inputs: int) -> Value:
    """An EinsumDense of an attention layer as a dense layer; its first ``inputs`` kernel axes are summed."""
    kernel = context.native(dense.kernel)
    rows, columns = math.prod(kernel.shape[:inputs]), math.prod(kernel.shape[inputs:])
    weight = Transpose(Reshape(kernel, (rows, columns)), (1, 0))
    bias = None if dense.bias is None else views.reshaped(context.native(dense.bias), (columns,))
    return context.builder.linear(name, value, weight, bias)


def _conv_lstm(context: Context, layer: Any, value: Value) -> Value:
    """A convolutional LSTM, unrolled over the time steps of the example; the parameters are the same in each."""
    name, builder, cell = context.name(layer), context.builder, layer.cell
    rank = len(cell.kernel_size)
    require(layer.data_format == "channels_last", name, "data_format='channels_first'")
    require(
        not layer.go_backwards and not layer.return_state and not layer.stateful,
        name,
        "state beyond one call",
    )
    require(not layer.dropout and not layer.recurrent_dropout, name, "dropout inside the recurrent cell")
    order = (rank + 1, rank, *range(rank))
    kernels = [Transpose(context.native(k), order) for k in (cell.kernel, cell.recurrent_kernel)]
    bias = context.native(cell.bias) if cell.use_bias else None
    hidden: Value | None = None
    memory: Value | None = None
    steps = []
    for step in range(value.native_shape[1]):
        where = f"{name}.{step}"
        frame = builder.pick(where, value, 1, step)
        parts = []
        for gate in range(4):
            given = _gate(context, where, layer, frame, kernels[0], bias, gate, input_side=True)
            if hidden is not None:
                state = _gate(context, where, layer, hidden, kernels[1], None, gate, input_side=False)
                given = builder.binary("Add", where, given, state)
            function = cell.activation if gate == 2 else cell.recurrent_activation
            parts.append(activation(context, where, function, given))
        i, f, c, o = parts
        new = builder.binary("Mul", where, i, c)
        memory = (
            new
            if memory is None
            else builder.binary("Add", where, builder.binary("Mul", where, f, memory), new)
        )
        hidden = builder.binary("Mul", where, o, activation(context, where, cell.activation, memory))
        steps.append(hidden)
    if not layer.return_sequences:
        assert hidden is not None
        return hidden
    return as_value(builder, movement.stack(builder, name, steps, 1))


def _gate(
    context: Context,
    name: str,
    layer: Any,
    value: Value,
    kernel: Layout,
    bias: Layout | None,
    gate: int,
    *,
    input_side: bool,
) -> Value:
    """One gate's convolution of the input, padded as the layer says, or of the state, which keeps its size."""
    cell, rank = layer.cell, len(layer.kernel_size)
    strides = tuple(cell.strides) if input_side else (1,) * rank
    dilations = tuple(cell.dilation_rate) if input_side else (1,) * rank
    sizes, window = spatial(cell, value), tuple(cell.kernel_size)
    same = cell.padding == "same" or not input_side
    pads = same_pads(sizes, window, strides, dilations) if same else (0,) * 2 * rank
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilations, strict=True)]
    shape = [(n + pads[i] + pads[i + rank] - reach[i]) // strides[i] + 1 for i, n in enumerate(sizes)]
    low, high = gate * cell.filters, (gate + 1) * cell.filters
    return context.builder.window(
        "Conv",
        name,
        value,
        -1,
        (value.native_shape[0], *shape, cell.filters),
        layouts={
            "weight": views.part(kernel, 0, low, high),
            "bias": None if bias is None else views.part(bias, 0, low, high),
        },
        kernel_shape=window,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=1,
    )


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(_OPERATORS, _recurrent),
    "Bidirectional": _bidirectional,
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _conv_lstm),
    "MultiHeadAttention": _self_attention,
}
