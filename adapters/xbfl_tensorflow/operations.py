"""Elementwise operations, merges, reductions and the movement of values: layers and ``keras.ops``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from keras import layers

from xbackend_fl.canonical import Value
from xbackend_fl.errors import UnsupportedError
from xbfl_tensorflow.graph import Context, Handler, activation, channel_axis, require

Operation: TypeAlias = Callable[[Context, Any, list[Any], Mapping[str, Any]], Value]
"""A ``keras.ops`` operation with its positional and keyword arguments."""

# Layers with one input.


def _activation(context: Context, layer: Any, value: Value) -> Value:
    return activation(context, context.name(layer), layer.activation, value)


def _relu(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    slope, limit, threshold = layer.negative_slope, layer.max_value, layer.threshold
    require(not threshold and not (slope and limit is not None), name, "a threshold or a bounded leaky ReLU")
    if slope:
        return context.builder.elementwise("LeakyRelu", name, value, alpha=float(slope))
    if limit is not None:
        return context.builder.elementwise("Clip", name, value, min=0.0, max=float(limit))
    return context.builder.elementwise("Relu", name, value)


def _leaky_relu(context: Context, layer: Any, value: Value) -> Value:
    return context.builder.elementwise(
        "LeakyRelu", context.name(layer), value, alpha=float(layer.negative_slope)
    )


def _elu(context: Context, layer: Any, value: Value) -> Value:
    return context.builder.elementwise("Elu", context.name(layer), value, alpha=float(layer.alpha))


def _softmax(context: Context, layer: Any, value: Value) -> Value:
    require(isinstance(layer.axis, int), layer.name, "softmax over several axes")
    return context.builder.along("Softmax", context.name(layer), value, layer.axis)


def _flatten(context: Context, layer: Any, value: Value) -> Value:
    rank = len(value.shape)
    if layer.data_format == "channels_first" and rank > 2:
        # Keras moves channels last before it flattens.
        value = context.builder.transpose(value, (0, *range(2, rank), 1))
    return context.builder.flatten(context.name(layer), value)


def _reshape(context: Context, layer: Any, value: Value) -> Value:
    shape = tuple(layer.compute_output_shape(value.native_shape))
    return context.builder.reshape(context.name(layer), value, shape)


def _permute(context: Context, layer: Any, value: Value) -> Value:
    return context.builder.transpose(value, (0, *layer.dims))


def _dropout(context: Context, layer: Any, value: Value) -> Value:
    shared = "spatial" if "Spatial" in type(layer).__name__ else ""
    require(getattr(layer, "noise_shape", None) is None, layer.name, "noise_shape")
    return context.builder.elementwise(
        "Dropout", context.name(layer), value, ratio=float(layer.rate), shared_axes=shared
    )


def _zero_padding(context: Context, layer: Any, value: Value) -> Value:
    padding = layer.padding
    pairs = [tuple(padding)] if isinstance(padding[0], int) else [tuple(pair) for pair in padding]
    first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
    pads = {first + axis: pair for axis, pair in enumerate(pairs)}
    return context.builder.pad(context.name(layer), value, pads, 0.0, "constant")


def _upsampling(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    mode = {"nearest": "nearest", "bilinear": "linear"}.get(getattr(layer, "interpolation", "nearest"))
    require(
        mode is not None,
        name,
        f"interpolation={getattr(layer, 'interpolation', '')!r} differs from PyTorch's",
    )
    axis = channel_axis(layer) if hasattr(layer, "data_format") else -1
    size = layer.size
    scales = (size,) if isinstance(size, int) else tuple(size)
    shape = tuple(layer.compute_output_shape(value.native_shape))
    return context.builder.window("Resize", name, value, axis, shape, scales=scales, mode=str(mode))


def _rescaling(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    require(np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0, name, "one scale per channel")
    if layer.scale != 1:
        value = context.builder.elementwise("Mul", f"{name}.scale", value, constant=float(layer.scale))
    if layer.offset:
        value = context.builder.elementwise("Add", f"{name}.offset", value, constant=float(layer.offset))
    return value


def _nothing(_: Context, __: Any, value: Value) -> Value:
    return value


HANDLERS: Mapping[type, Handler] = {
    layers.Activation: _activation,
    layers.ReLU: _relu,
    layers.LeakyReLU: _leaky_relu,
    layers.ELU: _elu,
    layers.Softmax: _softmax,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
    **dict.fromkeys(
        (layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D), _dropout
    ),
    **dict.fromkeys((layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D), _zero_padding),
    **dict.fromkeys((layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D), _upsampling),
    layers.Rescaling: _rescaling,
    **dict.fromkeys((layers.Identity, layers.InputLayer), _nothing),
}

# Merge layers.


def merge(context: Context, layer: Any, values: Sequence[Value]) -> Value | None:
    """A merge layer; ``None`` if ``layer`` is none."""
    if type(layer) is layers.Concatenate:
        return context.builder.concat(context.name(layer), values, layer.axis)
    operator = _MERGES.get(type(layer))
    if operator is None:
        return None
    name, total = context.name(layer), values[0]
    for value in values[1:]:
        total = context.builder.binary(operator, name, total, value)
    if type(layer) is layers.Average:
        total = context.builder.elementwise("Mul", f"{name}.mean", total, constant=1.0 / len(values))
    return total


_MERGES: Mapping[type, str] = {
    layers.Add: "Add",
    layers.Average: "Add",
    layers.Subtract: "Sub",
    layers.Multiply: "Mul",
    layers.Maximum: "Max",
    layers.Minimum: "Min",
}

# keras.ops.


def _binary(operator: str) -> Operation:
    def handle(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
        del options
        left, right = args
        name = context.name(operation)
        if not isinstance(left, Value):
            require(operator in {"Add", "Mul"}, name, "a constant on the left")
            left, right = right, left
        if isinstance(right, Value):
            return context.builder.binary(operator, name, left, right)
        if np.ndim(right) != 0:
            raise UnsupportedError(
                f"keras operation {name!r} combines data with a constant tensor, which has no canonical form",
                hint="turn it into a layer, or into a scalar",
            )
        number = float(right)
        kind, constant = {
            "Add": ("Add", number),
            "Mul": ("Mul", number),
            "Sub": ("Add", -number),
            "Div": ("Mul", 1.0 / number if number else math.nan),
            "Pow": ("Pow", number),
        }[operator]
        return context.builder.elementwise(kind, name, left, constant=constant)

    return handle


def _unary(operator: str) -> Operation:
    def handle(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
        del options
        return context.builder.elementwise(operator, context.name(operation), args[0])

    return handle


def _named(word: str) -> Operation:
    """An activation called as a function; it has the attributes of the layer of that name."""

    def handle(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
        name = context.name(operation)
        value = args[0]
        match word:
            case "leaky_relu":
                return context.builder.elementwise(
                    "LeakyRelu", name, value, alpha=float(operation.negative_slope)
                )
            case "elu":
                return context.builder.elementwise("Elu", name, value, alpha=float(operation.alpha))
            case "gelu":
                approximate = options.get("approximate", getattr(operation, "approximate", True))
                mode = "tanh" if approximate else "none"
                return context.builder.elementwise("Gelu", name, value, approximate=mode)
            case _:
                operator = "Softmax" if word == "softmax" else "LogSoftmax"
                return context.builder.along(operator, name, value, operation.axis)

    return handle


def _simple(word: str) -> Operation:
    def handle(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
        del options
        import keras

        return activation(context, context.name(operation), getattr(keras.activations, word), args[0])

    return handle


def _reduce(operator: str) -> Operation:
    def handle(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
        del options
        axis = operation.axis
        axes = range(len(args[0].shape)) if axis is None else [axis] if isinstance(axis, int) else axis
        return context.builder.reduce(
            operator, context.name(operation), args[0], list(axes), keepdims=operation.keepdims
        )

    return handle


def _reshaped(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
    del options
    value: Value = args[0]
    target = np.zeros(value.native_shape, bool)
    wanted = tuple(-1 if n is None else n for n in operation.newshape)
    batch = value.native_shape[0]
    shape = target.reshape((batch, *wanted[1:]) if wanted[0] == -1 else wanted).shape
    return context.builder.reshape(context.name(operation), value, tuple(shape))


def _transposed(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
    del options
    axes = operation.axes or tuple(reversed(range(len(args[0].shape))))
    return context.builder.transpose(args[0], axes)


def _concatenated(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
    del options
    return context.builder.concat(context.name(operation), args[0], operation.axis)


def _singleton(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
    del options
    value: Value = args[0]
    axis = operation.axis
    marker = np.zeros(value.native_shape, bool)
    grows = type(operation).__name__ == "ExpandDims"
    shape = (np.expand_dims(marker, axis) if grows else np.squeeze(marker, axis)).shape
    return context.builder.reshape(context.name(operation), value, tuple(shape))


def _item(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
    del options
    value: Value = args[0]
    key = args[1]
    name, axis = context.name(operation), 0
    for part in key if isinstance(key, list | tuple) else [key]:
        if isinstance(part, int):
            value = context.builder.pick(name, value, axis, part)
            continue
        require(isinstance(part, slice), name, f"indexing with {part!r}")
        if part != slice(None):
            start, stop, step = part.indices(value.native_shape[axis])
            value = context.builder.slice(name, value, axis, start, stop, step)
        axis += 1
    return value


def _matmul(context: Context, operation: Any, args: list[Any], options: Mapping[str, Any]) -> Value:
    del options
    left, right = context.builder.plain(args[0]), context.builder.plain(args[1])
    shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    (out,) = context.builder.add("MatMul", context.name(operation), [left, right], [shape])
    return Value(out, shape, tuple(range(len(shape))))


OPERATIONS: Mapping[str, Operation] = {
    "Add": _binary("Add"),
    "Subtract": _binary("Sub"),
    "Multiply": _binary("Mul"),
    "TrueDivide": _binary("Div"),
    "Divide": _binary("Div"),
    "Power": _binary("Pow"),
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "Exp": _unary("Exp"),
    "Log": _unary("Log"),
    "Sqrt": _unary("Sqrt"),
    "Negative": _unary("Neg"),
    "Abs": _unary("Abs"),
    "Absolute": _unary("Abs"),
    "Reciprocal": _unary("Reciprocal"),
    "Erf": _unary("Erf"),
    "Tanh": _unary("Tanh"),
    "LeakyRelu": _named("leaky_relu"),
    "Elu": _named("elu"),
    "Gelu": _named("gelu"),
    "Softmax": _named("softmax"),
    "LogSoftmax": _named("log_softmax"),
    "Relu": _simple("relu"),
    "Relu6": _simple("relu6"),
    "Selu": _simple("selu"),
    "Sigmoid": _simple("sigmoid"),
    "Softplus": _simple("softplus"),
    "Softsign": _simple("softsign"),
    "Silu": _simple("silu"),
    "Mish": _simple("mish"),
    "HardSigmoid": _simple("hard_sigmoid"),
    "HardSilu": _simple("hard_silu"),
    "Mean": _reduce("ReduceMean"),
    "Max": _reduce("ReduceMax"),
    "Sum": _reduce("ReduceSum"),
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "Concatenate": _concatenated,
    "ExpandDims": _singleton,
    "Squeeze": _singleton,
    "GetItem": _item,
    "Matmul": _matmul,
}
"""Class name of a ``keras.ops`` operation to its handler."""
