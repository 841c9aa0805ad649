"""Multi-head attention and layers that go through the steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xbackend_fl.canonical import Value, views
from xbackend_fl.canonical.graph import axes_ops, logic
from xbackend_fl.canonical.graph.attention import join_heads, split_heads
from xbackend_fl.canonical.graph.masked_attention import attended
from xbackend_fl.canonical.graph.operands import Operand, as_value, is_causal_mask, native_shape
from xbackend_fl.canonical.graph.padding import same_pads
from xbackend_fl.canonical.layout import Layout, Reshape, Transpose
from xbfl_tensorflow import recurrent
from xbfl_tensorflow.graph import Context, Handler, activation, require, spatial


def _recurrent(context: Context, layer: Any, value: Value) -> Value:
    return context.data(recurrent.recurrent(context, layer, [value], {})[0])


def attention(context: Context, layer: Any, arguments: list[Any], options: Mapping[str, Any]) -> Value:
    """``MultiHeadAttention`` called as ``(query, value, key=None)``: three projections, attention, one more."""
    name, builder = context.name(layer), context.builder
    given = dict(zip(("query", "value", "key"), arguments, strict=False)) | dict(options)
    query, content = given.pop("query"), given.pop("value")
    key = given.pop("key", None)
    key = content if key is None else key
    mask = given.pop("attention_mask", None)
    causal = bool(given.pop("use_causal_mask", False))
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
    mixed = attended(
        builder,
        name,
        heads[0],
        heads[1],
        heads[2],
        None if mask is None else _for_heads(context, f"{name}.mask", mask),
        scale=1.0 / math.sqrt(heads[0].native_shape[-1]),
        causal=causal,
        dropout=float(layer._dropout) if layer._dropout and context.trains else None,  # noqa: SLF001  Keras keeps its rate private
        origin=context.register_call(layer),
    )
    joined = join_heads(builder, f"{name}.heads", mixed)
    return _projection(context, f"{name}.output", layer._output_dense, joined, 2)  # noqa: SLF001


def _for_heads(context: Context, name: str, mask: Operand) -> Operand:
    """A mask ``[N, T, S]`` of whatever kind, as truth values that all heads see."""
    if is_causal_mask(mask):
        return mask
    shape = native_shape(mask)
    if len(shape) == 3:
        mask = axes_ops.reshape(context.builder, name, mask, (shape[0], 1, *shape[1:]))
    return logic.truth(context.builder, name, mask)


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
    return as_value(builder, axes_ops.stack(builder, name, steps, 1))


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
            "weight": views.slice_axis(kernel, 0, low, high),
            "bias": None if bias is None else views.slice_axis(bias, 0, low, high),
        },
        kernel_shape=window,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=1,
    )


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(recurrent.KINDS, _recurrent),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _conv_lstm),
    "MultiHeadAttention": _self_attention,
}
