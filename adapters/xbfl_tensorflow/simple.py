"""Keras layers without parameters: activations, merges, and the movement of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import training, windows
from xbfl_tensorflow.graph import Context, Handler, activation, channel_axis, require

# Layers with one input.


def _either(layer: Any, *names: str) -> Any:
    """An attribute under the name that its version of Keras gives it."""
    return next(getattr(layer, name) for name in names if hasattr(layer, name))


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
        "LeakyRelu", context.name(layer), value, alpha=float(_either(layer, "negative_slope", "alpha"))
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
    rank, shape = len(value.shape), getattr(layer, "noise_shape", None)
    if "Spatial" in type(layer).__name__:
        first = getattr(layer, "data_format", None) == "channels_first"
        shared = [*(range(2, rank) if first else range(1, rank - 1))]
    else:
        shared = [axis for axis, n in enumerate(shape or ()) if n == 1]
    place = context.register_call(layer)
    if not (layer.rate and context.trains):
        # Keras gives it no generator, or it is called with training=False: the schema cannot make it drop.
        return value
    return training.dropout(context.builder, context.name(layer), value, float(layer.rate), shared, place)


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
    return windows.resize(context.builder, name, value, axis, shape, str(mode), factors=scales)


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


def _single(_: Context, __: Any, value: Value) -> Value:
    """A merge layer of one input merges nothing."""
    return value


HANDLERS: Mapping[str, Handler] = {
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "Softmax": _softmax,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"), _dropout),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"), _zero_padding),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D", "UpSampling3D"), _upsampling),
    "Rescaling": _rescaling,
    **dict.fromkeys(("Identity", "InputLayer", "ActivityRegularization"), _nothing),
    **dict.fromkeys(("Concatenate", "Add", "Average", "Subtract", "Multiply", "Maximum", "Minimum"), _single),
}

# Merge layers.


def merge(context: Context, layer: Any, values: Sequence[Value]) -> Value:
    """A layer that merges several inputs."""
    kind, name, total = type(layer).__name__, context.name(layer), values[0]
    if kind == "Concatenate":
        return context.builder.concat(name, values, layer.axis)
    operator = _MERGES[kind]
    for value in values[1:]:
        total = context.builder.binary(operator, name, total, value)
    if kind == "Average":
        total = context.builder.elementwise("Mul", f"{name}.mean", total, constant=1.0 / len(values))
    return total


_MERGES: Mapping[str, str] = {
    "Add": "Add",
    "Average": "Add",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Maximum": "Max",
    "Minimum": "Min",
}
