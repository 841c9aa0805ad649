"""Raw convolutions, pooling, padding, resizing and fused batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackend_fl.canonical import Value, views
from xbackend_fl.canonical.graph import windows
from xbackend_fl.canonical.graph.operands import Operand
from xbackend_fl.canonical.graph.padding import same_pads, transposed_pads
from xbackend_fl.canonical.layout import Layout, Step
from xbfl_tensorflow.graph import Context, require, static_shape


def _spatial(node: Any, values: Any) -> tuple[int, ...]:
    """The spatial entries of an attribute or shape that has one entry per axis."""
    items = tuple(int(n) for n in values)
    return items[2:] if node.get_attr("data_format").startswith(b"NC") else items[1:-1]


def _channel(node: Any) -> int:
    return 1 if node.get_attr("data_format").startswith(b"NC") else -1


def _pads(
    node: Any, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, ...]:
    padding = node.get_attr("padding")
    if padding == b"SAME":
        return same_pads(_spatial(node, static_shape(node.inputs[0])), kernel, strides, dilations)
    if padding == b"EXPLICIT":
        pairs = np.array(node.get_attr("explicit_paddings")).reshape(-1, 2)
        inner = pairs[2:] if _channel(node) == 1 else pairs[1:-1]
        return (*(int(n) for n in inner[:, 0]), *(int(n) for n in inner[:, 1]))
    return (0,) * 2 * len(kernel)


def _conv(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name, weight = context.prefix + node.name, arguments[1]
    require(isinstance(weight, Step), name, "its kernel is computed by the model")
    assert isinstance(weight, Step)
    value = context.data(arguments[0])
    rank = len(weight.shape) - 2
    if node.type == "DepthwiseConv2dNative":
        leading = views.transposed(weight, (2, 3, 0, 1))
        channels, multiplier, *window = leading.shape
        layout, group = views.reshaped(leading, (channels * multiplier, 1, *window)), channels
    else:
        layout = views.transposed(weight, (rank + 1, rank, *range(rank)))
        group = value.native_shape[_channel(node)] // layout.shape[1]
    kernel, strides = layout.shape[2:], _spatial(node, node.get_attr("strides"))
    dilations = _spatial(node, node.get_attr("dilations"))
    pads = _pads(node, kernel, strides, dilations)
    shape = static_shape(node.outputs[0])
    if node.inputs[0].op.type == "ExpandDims" and kernel[0] == 1 and rank == 2 and _channel(node) == -1:
        # tf.nn.conv1d is a 2-D convolution over rows of height one.
        value = context.builder.reshape(name, value, (value.native_shape[0], *value.native_shape[2:]))
        short = views.reshaped(layout, (*layout.shape[:2], kernel[1]))
        made = _window(
            context,
            name,
            value,
            -1,
            (shape[0], *shape[2:]),
            short,
            strides[1:],
            pads[1::2],
            dilations[1:],
            group,
        )
        return context.builder.reshape(name, made, shape)
    return _window(context, name, value, _channel(node), shape, layout, strides, pads, dilations, group)


def _window(
    context: Context,
    name: str,
    value: Value,
    channel_axis: int,
    shape: tuple[int, ...],
    weight: Layout,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    group: int,
) -> Value:
    return context.builder.window(
        "Conv",
        name,
        value,
        channel_axis,
        shape,
        layouts={"weight": weight},
        kernel_shape=weight.shape[2:],
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
    )


def _conv_transpose(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    _, weight, source = arguments
    name = context.prefix + node.name
    require(isinstance(weight, Step), name, "its kernel is computed by the model")
    assert isinstance(weight, Step)
    rank = len(weight.shape) - 2
    layout = views.transposed(weight, (rank + 1, rank, *range(rank)))
    kernel, strides = layout.shape[2:], _spatial(node, node.get_attr("strides"))
    dilations = _spatial(node, node.get_attr("dilations"))
    value, shape = context.data(source), static_shape(node.outputs[0])
    sizes, wanted = _spatial(node, static_shape(node.inputs[2])), _spatial(node, shape)
    same = node.get_attr("padding") == b"SAME"
    pads, extra = transposed_pads(sizes, kernel, strides, dilations, wanted, same=same)
    return context.builder.window(
        "ConvTranspose",
        name,
        value,
        _channel(node),
        shape,
        layouts={"weight": layout},
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        output_padding=extra,
        dilations=dilations,
        group=1,
    )


def _pool(operator: str) -> Any:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value = context.data(arguments[0])
        kernel, strides = (_spatial(node, node.get_attr(word)) for word in ("ksize", "strides"))
        ones = (1,) * len(kernel)
        extra = {"count_include_pad": 0} if operator == "AveragePool" else {"dilations": ones}
        return context.builder.window(
            operator,
            context.prefix + node.name,
            value,
            _channel(node),
            static_shape(node.outputs[0]),
            kernel_shape=kernel,
            strides=strides,
            pads=_pads(node, kernel, strides, ones),
            ceil_mode=0,
            **extra,
        )

    return handle


def _pad(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    value, pairs = context.data(arguments[0]), np.asarray(arguments[1])
    name, fill, mode = context.prefix + node.name, 0.0, "constant"
    if node.type == "PadV2":
        fill = float(np.asarray(arguments[2]).item())
    if node.type == "MirrorPad":
        require(node.get_attr("mode") == b"REFLECT", name, "symmetric padding")
        mode = "reflect"
    pads = {axis: (int(low), int(high)) for axis, (low, high) in enumerate(pairs) if low or high}
    return context.builder.pad(name, value, pads, fill, mode)


def _resize(mode: str) -> Any:
    def handle(context: Context, node: Any, arguments: list[Operand]) -> Operand:
        value, name = context.data(arguments[0]), context.prefix + node.name
        corners, half = bool(node.get_attr("align_corners")), bool(node.get_attr("half_pixel_centers"))
        require(half or corners or mode == "nearest", name, "bilinear resizing without half-pixel centres")
        shape = static_shape(node.outputs[0])
        exact = half and mode == "nearest"
        return windows.resize(context.builder, name, value, -1, shape, mode, corners=corners, exact=exact)

    return handle


def _batch_norm(context: Context, node: Any, arguments: list[Operand]) -> Operand:
    name, roles = context.prefix + node.name, ("weight", "bias", "mean", "variance")
    require(not node.get_attr("is_training"), name, "batch normalisation with batch statistics")
    layouts: dict[str, Layout | None] = {}
    for role, operand in zip(roles, arguments[1:], strict=True):
        constant = isinstance(operand, np.ndarray) and role in {"weight", "bias"}
        require(isinstance(operand, Step) or constant, name, f"its {role} is computed by the model")
        layouts[role] = operand if isinstance(operand, Step) else None
    context.builder.inference_only(f"{name!r} normalises with stored statistics and never updates them")
    return context.builder.channelwise(
        "BatchNormalization",
        name,
        context.data(arguments[0]),
        _channel(node),
        layouts=layouts,
        epsilon=round(float(node.get_attr("epsilon")), 9),
        momentum=0.99,
    )


OPERATIONS: Mapping[str, Any] = {
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), _conv),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), _conv_transpose),
    **dict.fromkeys(("MaxPool", "MaxPool3D"), _pool("MaxPool")),
    **dict.fromkeys(("AvgPool", "AvgPool3D"), _pool("AveragePool")),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _pad),
    "ResizeBilinear": _resize("linear"),
    "ResizeNearestNeighbor": _resize("nearest"),
    "FusedBatchNormV3": _batch_norm,
}
"""Type of a graph operation to its handler."""
