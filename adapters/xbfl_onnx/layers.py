"""Convolutions, pooling, normalisation, embedding and dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from xbackend_fl.canonical.graph import axes_ops, picking
from xbackend_fl.canonical.graph.contractions import matmul
from xbackend_fl.canonical.graph.embedding import lookup
from xbackend_fl.canonical.graph.operands import Operand, combine, native_shape
from xbackend_fl.canonical.graph.padding import same_pads
from xbackend_fl.canonical.layout import Layout, Step
from xbfl_onnx.graph import Context, Handler, affine, attributes, layout, present, require


def _window(context: Context, node: onnx.NodeProto, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Strides, pads and dilations with ONNX's defaults; ``auto_pad`` resolved at these sizes."""
    given, rank = attributes(node), len(kernel)
    strides = tuple(given.get("strides", (1,) * rank))
    dilations = tuple(given.get("dilations", (1,) * rank))
    pads = tuple(given.get("pads", (0,) * 2 * rank))
    rule = given.get("auto_pad", "NOTSET")
    require(rule in {"NOTSET", "VALID", "SAME_UPPER"}, node, f"auto_pad={rule}")
    if rule == "SAME_UPPER":
        pads = same_pads(context.shape(node.input[0])[2:], kernel, strides, dilations)
    return {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}


def _parameter(operand: Operand | None, node: onnx.NodeProto) -> Layout:
    found = layout(operand, node)
    require(found is not None, node, "a parameter is missing")
    assert found is not None
    return found


def _conv(context: Context, node: onnx.NodeProto) -> Operand:
    value, weight, bias = (*context.inputs(node), None)[:3]
    kernel = _parameter(weight, node)
    extra: dict[str, Any] = dict(_window(context, node, kernel.shape[2:]))
    if node.op_type == "ConvTranspose":
        extra["output_padding"] = tuple(
            attributes(node).get("output_padding", (0,) * (len(kernel.shape) - 2))
        )
    return context.builder.window(
        node.op_type,
        node.name,
        context.needed(value, node),
        1,
        context.shape(node.output[0]),
        layouts={"weight": kernel, "bias": affine(bias, node, 0.0)},
        group=attributes(node).get("group", 1),
        **extra,
    )


def _pool(context: Context, node: onnx.NodeProto) -> Operand:
    given = attributes(node)
    window: dict[str, Any] = dict(_window(context, node, tuple(given["kernel_shape"])))
    extra: dict[str, Any] = {}
    if node.op_type == "AveragePool":
        require(set(window.pop("dilations")) == {1}, node, "a dilated average")
        extra["count_include_pad"] = int(given.get("count_include_pad", 0) and any(window["pads"]))
    return context.builder.window(
        node.op_type,
        node.name,
        context.needed(context.inputs(node)[0], node),
        1,
        context.shape(node.output[0]),
        ceil_mode=given.get("ceil_mode", 0),
        **window,
        **extra,
    )


def _global_pool(operator: str) -> Handler:
    def handle(context: Context, node: onnx.NodeProto) -> Operand:
        value = context.needed(context.inputs(node)[0], node)
        axes = range(2, len(value.shape))
        return context.builder.reduce(operator, node.name, value, list(axes), keepdims=True)

    return handle


def _batch_norm(context: Context, node: onnx.NodeProto) -> Operand:
    given = attributes(node)
    require(not given.get("training_mode"), node, "training_mode=1")
    value, *parameters = context.inputs(node)
    roles = ("weight", "bias", "mean", "variance")
    return context.builder.channelwise(
        "BatchNormalization",
        node.name,
        context.needed(value, node),
        1,
        layouts={
            role: affine(item, node, float(role == "weight"))
            if role in {"weight", "bias"}
            else layout(item, node)
            for role, item in zip(roles, parameters, strict=True)
        },
        epsilon=_short(given.get("epsilon", 1e-5)),
        momentum=_short(given.get("momentum", 0.9)),
    )


def _layer_norm(context: Context, node: onnx.NodeProto) -> Operand:
    value, weight, bias = (*context.inputs(node), None)[:3]
    given, data = attributes(node), context.needed(value, node)
    require(given.get("axis", -1) in {-1, len(data.shape) - 1}, node, "normalises over several axes")
    epsilon = _short(given.get("epsilon", 1e-5))
    return context.builder.layer_norm(
        node.name, data, affine(weight, node, 1.0), affine(bias, node, 0.0), epsilon
    )


def _grouped_norm(context: Context, node: onnx.NodeProto) -> Operand:
    value, weight, bias = context.inputs(node)
    data, given = context.needed(value, node), attributes(node)
    layouts = {"weight": affine(weight, node, 1.0), "bias": affine(bias, node, 0.0)}
    epsilon = _short(given.get("epsilon", 1e-5))
    if given.get("num_groups", data.shape[1]) == data.shape[1]:
        return context.builder.channelwise(
            "InstanceNormalization", node.name, data, 1, layouts=layouts, epsilon=epsilon
        )
    return context.builder.channelwise(
        "GroupNormalization",
        node.name,
        data,
        1,
        layouts=layouts,
        num_groups=given["num_groups"],
        epsilon=epsilon,
    )


def _prelu(context: Context, node: onnx.NodeProto) -> Operand:
    value, slope = context.inputs(node)
    found = axes_ops.reshape(context.builder, node.name, _parameter(slope, node), (-1,))
    shape = native_shape(_parameter(slope, node))
    require(len([n for n in shape if n != 1]) <= 1, node, "one slope per position")
    flat = axes_ops.reshape(context.builder, node.name, found, (int(np.prod(shape)),))
    layouts = {"weight": _parameter(flat, node)}
    return context.builder.channelwise("PRelu", node.name, context.needed(value, node), 1, layouts=layouts)


def _gather(context: Context, node: onnx.NodeProto) -> Operand:
    table, indices = context.inputs(node)
    axis = attributes(node).get("axis", 0)
    assert table is not None
    assert indices is not None
    if isinstance(table, Step) and axis == 0 and len(table.shape) == 2 and native_shape(indices):
        return lookup(context.builder, node.name, _parameter(table, node), indices)
    shape = native_shape(table)
    if axis == 0 and shape[0] == 1 and isinstance(indices, np.ndarray) and indices.ndim == 0:
        # The states of a recurrent layer of one direction.
        return axes_ops.reshape(context.builder, node.name, table, shape[1:])
    return picking.gather(context.builder, node.name, table, axis, indices)


def _gemm(context: Context, node: onnx.NodeProto) -> Operand:
    given = attributes(node)
    left, right, bias = (*context.inputs(node), None)[:3]
    require(given.get("alpha", 1.0) == 1.0 and given.get("beta", 1.0) == 1.0, node, "scaled products")
    assert left is not None
    assert right is not None
    builder = context.builder
    left = axes_ops.transpose(builder, left, (1, 0)) if given.get("transA") else left
    right = axes_ops.transpose(builder, right, (1, 0)) if given.get("transB") else right
    product: Operand = matmul(builder, node.name, left, right)
    return product if bias is None else combine(builder, "Add", f"{node.name}/bias", product, bias)


def _matmul(context: Context, node: onnx.NodeProto) -> Operand:
    left, right = present(context, node)
    return matmul(context.builder, node.name, left, right)


def _short(value: float) -> float:
    """A float32 attribute as its author wrote it."""
    return float(f"{value:.6g}")


HANDLERS: Mapping[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool("ReduceMean"),
    "GlobalMaxPool": _global_pool("ReduceMax"),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _grouped_norm,
    "GroupNormalization": _grouped_norm,
    "PRelu": _prelu,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
