"""Convolutions, pooling, normalisation, embedding and dense layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xbackend_fl.canonical import Value
from xbackend_fl.canonical.graph import training
from xbackend_fl.canonical.graph.embedding import lookup
from xbackend_fl.canonical.graph.operands import Operand, combine
from xbackend_fl.canonical.graph.padding import same_pads, transposed_pads
from xbackend_fl.canonical.layout import Layout, Reshape, Shape, Transpose
from xbfl_tensorflow.graph import (
    Context,
    Handler,
    activation,
    channel_axis,
    family,
    require,
    spatial,
)

# Convolution and pooling.


def _kernel_first(rank: int, first: int, second: int) -> tuple[int, ...]:
    """The transposition that moves two trailing kernel axes to the front."""
    return (rank + first, rank + second, *range(rank))


def _pads(layer: Any, value: Value, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    if layer.padding == "same":
        return same_pads(spatial(layer, value), kernel, strides, dilations)
    if layer.padding == "causal":
        reach = tuple(d * (k - 1) for k, d in zip(kernel, dilations, strict=True))
        return (*reach, *(0,) * len(kernel))
    return (0,) * 2 * len(kernel)


def _conv(context: Context, layer: Any, value: Value) -> Value:
    if getattr(layer, "lora_enabled", False):
        return _low_rank_conv(context, layer, value)
    name, kernel = context.name(layer), tuple(layer.kernel_size)
    layout: Layout = Transpose(context.native(layer.kernel), _kernel_first(len(kernel), 1, 0))
    bias = context.native(layer.bias) if layer.use_bias else None
    value = _window(context, name, layer, value, layout, bias, layer.groups)
    return activation(context, name, layer.activation, value)


def _depthwise(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    bias = context.native(layer.bias) if layer.use_bias else None
    kernel = layer.depthwise_kernel if family(layer) == "tf_keras" else layer.kernel
    layout = _depthwise_layout(context, kernel, len(layer.kernel_size))
    value = _window(context, name, layer, value, layout, bias, value.native_shape[channel_axis(layer)])
    return activation(context, name, layer.activation, value)


def _depthwise_layout(context: Context, kernel: Any, rank: int) -> Layout:
    """``[*kernel, C, m]`` to ``[C·m, 1, *kernel]``; channels must lead before they merge."""
    leading = Transpose(context.native(kernel), _kernel_first(rank, 0, 1))
    channels, multiplier, *window = leading.shape
    return Reshape(leading, (channels * multiplier, 1, *window))


def _separable(context: Context, layer: Any, value: Value) -> Value:
    name, rank = context.name(layer), len(layer.kernel_size)
    channels = value.native_shape[channel_axis(layer)]
    depthwise = _depthwise_layout(context, layer.depthwise_kernel, rank)
    value = _window(context, f"{name}.depthwise", layer, value, depthwise, None, channels, multiplied=True)
    pointwise = Transpose(context.native(layer.pointwise_kernel), _kernel_first(rank, 1, 0))
    bias = context.native(layer.bias) if layer.use_bias else None
    value = _pointwise(context, f"{name}.pointwise", layer, value, pointwise, bias)
    return activation(context, name, layer.activation, value)


def _pointwise(
    context: Context, name: str, layer: Any, value: Value, weight: Layout, bias: Layout | None
) -> Value:
    """A convolution of single pixels, with the channel axis of ``layer``."""
    rank = len(layer.kernel_size)
    ones, shape = (1,) * rank, list(value.native_shape)
    shape[channel_axis(layer)] = weight.shape[0]
    return context.builder.window(
        "Conv",
        name,
        value,
        channel_axis(layer),
        tuple(shape),
        layouts={"weight": weight, "bias": bias},
        kernel_shape=ones,
        strides=ones,
        pads=(0,) * 2 * rank,
        dilations=ones,
        group=1,
    )


def _low_rank_conv(context: Context, layer: Any, value: Value) -> Value:
    """A convolution with an adapter: one with its own kernel, and one of few channels with one of single pixels behind it."""
    name, rank = context.name(layer), len(layer.kernel_size)
    require(layer.groups == 1, name, "enable_lora with groups makes a kernel that is no product of layers")
    first = _kernel_first(rank, 1, 0)
    own = Transpose(context.native(layer._kernel), first)  # noqa: SLF001  ``kernel`` is the sum of both
    bias = context.native(layer.bias) if layer.use_bias else None
    whole = _window(context, name, layer, value, own, bias, 1)
    down = Transpose(context.native(layer.lora_kernel_a), first)
    low = _window(context, f"{name}.lora_kernel_a", layer, value, down, None, 1, multiplied=True)
    up = Transpose(context.native(layer.lora_kernel_b), (1, 0))
    wide = Reshape(up, (*up.shape, *(1,) * rank))
    added = _pointwise(context, f"{name}.lora_kernel_b", layer, low, wide, None)
    scale = float(layer.lora_alpha) / layer.lora_rank
    if scale != 1.0:
        added = context.builder.elementwise("Mul", name, added, constant=scale)
    total = context.data(combine(context.builder, "Add", name, whole, added))
    return activation(context, name, layer.activation, total)


def _window(
    context: Context,
    name: str,
    layer: Any,
    value: Value,
    weight: Layout,
    bias: Layout | None,
    group: int,
    *,
    multiplied: bool = False,
) -> Value:
    kernel, strides = tuple(layer.kernel_size), tuple(layer.strides)
    dilations = tuple(layer.dilation_rate)
    shape = list(layer.compute_output_shape(value.native_shape))
    if multiplied:
        shape[channel_axis(layer)] = weight.shape[0]
    return context.builder.window(
        "Conv",
        name,
        value,
        channel_axis(layer),
        tuple(shape),
        layouts={"weight": weight, "bias": bias},
        kernel_shape=kernel,
        strides=strides,
        pads=_pads(layer, value, kernel, strides, dilations),
        dilations=dilations,
        group=group,
    )


def _conv_transpose(context: Context, layer: Any, value: Value) -> Value:
    name, kernel, rank = context.name(layer), tuple(layer.kernel_size), len(layer.kernel_size)
    strides, dilations = tuple(layer.strides), tuple(layer.dilation_rate)
    sizes = spatial(layer, value)
    shape = tuple(layer.compute_output_shape(value.native_shape))
    wanted = shape[2:] if channel_axis(layer) == 1 else shape[1:-1]
    pads, extra = transposed_pads(sizes, kernel, strides, dilations, wanted, same=layer.padding == "same")
    layout = Transpose(context.native(layer.kernel), _kernel_first(rank, 1, 0))
    value = context.builder.window(
        "ConvTranspose",
        name,
        value,
        channel_axis(layer),
        shape,
        layouts={"weight": layout, "bias": context.native(layer.bias) if layer.use_bias else None},
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        output_padding=extra,
        dilations=dilations,
        group=1,
    )
    return activation(context, name, layer.activation, value)


def _pool(operator: str) -> Handler:
    def handle(context: Context, layer: Any, value: Value) -> Value:
        kernel, strides = tuple(layer.pool_size), tuple(layer.strides)
        ones = (1,) * len(kernel)
        extra = {"count_include_pad": 0} if operator == "AveragePool" else {"dilations": ones}
        return context.builder.window(
            operator,
            context.name(layer),
            value,
            channel_axis(layer),
            tuple(layer.compute_output_shape(value.native_shape)),
            kernel_shape=kernel,
            strides=strides,
            pads=_pads(layer, value, kernel, strides, ones),
            ceil_mode=0,
            **extra,
        )

    return handle


def _global_pool(operator: str) -> Handler:
    def handle(context: Context, layer: Any, value: Value) -> Value:
        rank = len(value.shape)
        axes = range(2, rank) if channel_axis(layer) == 1 else range(1, rank - 1)
        return context.builder.reduce(operator, context.name(layer), value, axes, keepdims=layer.keepdims)

    return handle


# Normalisation, embedding, dense layers.


def _affine(context: Context, layer: Any) -> dict[str, Layout | None]:
    return {
        "weight": context.native(layer.gamma) if layer.scale else None,
        "bias": context.native(layer.beta) if layer.center else None,
    }


def _axis(layer: Any) -> int:
    return int(layer.axis) if isinstance(layer.axis, int) else int(next(iter(layer.axis)))


def _batch_norm(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    require(not getattr(layer, "renorm", False), name, "batch renormalisation")
    statistics: dict[str, Layout | None] = {
        "mean": context.native(layer.moving_mean),
        "variance": context.native(layer.moving_variance),
    }
    if not context.trains:
        training.keep_statistics(context.builder, statistics.values())
    return context.builder.channelwise(
        "BatchNormalization",
        name,
        value,
        _axis(layer),
        layouts=_affine(context, layer) | statistics,
        origin=context.register_call(layer),
        epsilon=float(layer.epsilon),
        momentum=float(layer.momentum) if context.trains else 1.0,
    )


def _layer_norm(context: Context, layer: Any, value: Value) -> Value:
    name, axes = context.name(layer), layer.axis
    last = len(value.shape) - 1
    require(
        axes in (-1, last) or list(axes) in ([-1], [last]), name, "expected normalisation of the last axis"
    )
    require(not getattr(layer, "rms_scaling", False), name, "RMS scaling")
    affine = _affine(context, layer)
    return context.builder.layer_norm(name, value, affine["weight"], affine["bias"], float(layer.epsilon))


def _group_norm(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    channels = value.native_shape[_axis(layer)]
    layouts, epsilon = _affine(context, layer), float(layer.epsilon)
    if layer.groups in {-1, channels}:
        return context.builder.channelwise(
            "InstanceNormalization", name, value, _axis(layer), layouts=layouts, epsilon=epsilon
        )
    return context.builder.channelwise(
        "GroupNormalization",
        name,
        value,
        _axis(layer),
        layouts=layouts,
        num_groups=layer.groups,
        epsilon=epsilon,
    )


def _prelu(context: Context, layer: Any, value: Value) -> Value:
    name, shape = context.name(layer), tuple(layer.alpha.shape)
    require(
        all(n == 1 for n in shape[:-1]),
        name,
        f"one slope per position {list(shape)}; PyTorch has one per channel: pass shared_axes=[1, 2]",
    )
    slope = Reshape(context.native(layer.alpha), (shape[-1],))
    return context.builder.channelwise("PRelu", name, value, -1, layouts={"weight": slope})


def embedding(context: Context, layer: Any, indices: Operand) -> Operand:
    """An embedding of data, or of constant positions."""
    name = context.name(layer)
    require(
        not layer.mask_zero,
        name,
        "mask_zero=True changes the layers behind it; PyTorch has no masks",
        f"keras: {name}: mask_zero=False, and multiply by a mask that is an input of the model",
    )
    return lookup(
        context.builder, name, context.native(layer.embeddings), indices, -1, context.register_call(layer)
    )


def _embedding(context: Context, layer: Any, value: Value) -> Value:
    return context.data(embedding(context, layer, value))


def _dense(context: Context, layer: Any, value: Value) -> Value:
    name = context.name(layer)
    weight = Transpose(context.native(layer.kernel), (1, 0))
    bias = context.native(layer.bias) if layer.use_bias else None
    return activation(context, name, layer.activation, context.builder.linear(name, value, weight, bias))


def _einsum_dense(context: Context, layer: Any, value: Value) -> Value:
    """An EinsumDense that is a dense layer on the last axis, with any number of output axes."""
    name = context.name(layer)
    left, _, output = layer.equation.replace("...", "").partition("->")
    data, _, kernel = left.partition(",")
    plain = kernel[0] == data[-1] and output == data[:-1] + kernel[1:]
    require(plain, name, f"the equation {layer.equation!r} is not a dense layer on the last axis")
    native = context.native(layer.kernel)
    inputs, *outputs = native.shape
    weight = Transpose(Reshape(native, (inputs, math.prod(outputs))), (1, 0))
    bias = Reshape(context.native(layer.bias), (math.prod(outputs),)) if layer.bias is not None else None
    value = context.builder.linear(name, value, weight, bias)
    if len(outputs) > 1:
        value = context.builder.reshape(name, value, (*value.native_shape[:-1], *outputs))
    return activation(context, name, layer.activation, value)


EMBEDDINGS = frozenset({"Embedding", "ReversibleEmbedding"})
"""Layers that look rows of a table up."""

HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D", "MaxPooling3D"), _pool("MaxPool")),
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D", "AveragePooling3D"), _pool("AveragePool")),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"),
        _global_pool("ReduceMean"),
    ),
    **dict.fromkeys(
        ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"),
        _global_pool("ReduceMax"),
    ),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "PReLU": _prelu,
    **dict.fromkeys(EMBEDDINGS, _embedding),
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
}
