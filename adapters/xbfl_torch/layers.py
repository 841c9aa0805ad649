"""Convolutions, pooling, normalisation, embedding and dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node

from xbackend_fl.canonical import TrainingEffect, Value
from xbackend_fl.canonical.graph import training
from xbackend_fl.canonical.graph.embedding import lookup
from xbackend_fl.canonical.graph.operands import Operand, scalar
from xbackend_fl.canonical.graph.picking import gather
from xbackend_fl.canonical.layout import Layout
from xbfl_torch.graph import Context, Handler, layout_of, module_path, native_shape, parameter, require
from xbfl_torch.rehearsal import BatchNorm


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    items = [value] if isinstance(value, int) else list(value)
    return tuple(int(item) for item in (items * rank if len(items) == 1 else items))


def _conv(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    kernel = a["weight"].shape[2:]
    if not isinstance(a["padding"], str):
        return _convolution("Conv", context, node, _per_axis(a["padding"], len(kernel)) * 2)
    dilation = _per_axis(a["dilation"], len(kernel))
    total = [d * (k - 1) if a["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    return _convolution("Conv", context, node, (*(n // 2 for n in total), *(n - n // 2 for n in total)))


def _conv_transpose(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    rank = len(a["weight"].shape) - 2
    padding, extra = _per_axis(a["padding"], rank), _per_axis(a["output_padding"], rank)
    # Less cropping at the end and output padding are the same thing; one spelling is canonical.
    end = tuple(max(p - e, 0) for p, e in zip(padding, extra, strict=True))
    left = tuple(max(e - p, 0) for p, e in zip(padding, extra, strict=True))
    return _convolution("ConvTranspose", context, node, (*padding, *end), output_padding=left)


def _convolution(
    operator: str, context: Context, node: Node, pads: tuple[int, ...], **extra: tuple[int, ...]
) -> Value:
    a = context.arguments(node)
    name = context.name(node, a["weight"])
    weight, value = parameter(a["weight"], name), context.data(a["input"])
    kernel = weight.shape[2:]
    rank = len(kernel)
    require(len(value.shape) == rank + 2, name, "expected a batch axis in the input")
    return context.builder.window(
        operator,
        name,
        value,
        1,
        native_shape(node),
        layouts={"weight": weight, "bias": layout_of(a["bias"], name)},
        kernel_shape=kernel,
        strides=_per_axis(a["stride"], rank),
        pads=pads,
        dilations=_per_axis(a["dilation"], rank),
        group=a["groups"],
        **extra,
    )


def _pool(operator: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        value = context.data(a["self"])
        rank = len(value.shape) - 2
        kernel = _per_axis(a["kernel_size"], rank)
        pads = _per_axis(a["padding"], rank) * 2
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": _per_axis(a["stride"], rank) if a["stride"] else kernel,
            "pads": pads,
            "ceil_mode": int(a["ceil_mode"]),
        }
        if operator == "MaxPool":
            attributes["dilations"] = _per_axis(a["dilation"], rank)
        else:
            require(a.get("divisor_override") is None, context.name(node), "divisor_override is not ONNX's")
            attributes["count_include_pad"] = int(bool(a["count_include_pad"]) and any(pads))
        return context.builder.window(
            operator, context.name(node), value, 1, native_shape(node), **attributes
        )

    return handle


def _adaptive_pool(operator: str, reduction: str) -> Handler:
    def handle(context: Context, node: Node) -> Value:
        a = context.arguments(node)
        value = context.data(a["self"])
        spatial = range(2, len(value.shape))
        sizes = _per_axis(a["output_size"], len(spatial))
        name = context.name(node)
        if all(size == 1 for size in sizes):
            return context.builder.reduce(reduction, name, value, list(spatial), keepdims=True)
        inner = [value.native_shape[axis] for axis in spatial]
        require(
            all(n % size == 0 for n, size in zip(inner, sizes, strict=True)),
            name,
            f"adaptive pooling of {inner} to {list(sizes)} has windows of unequal size",
        )
        kernel = tuple(n // size for n, size in zip(inner, sizes, strict=True))
        extra = {"count_include_pad": 0} if operator == "AveragePool" else {"dilations": (1,) * len(kernel)}
        return context.builder.window(
            operator,
            name,
            value,
            1,
            (*value.native_shape[:2], *sizes),
            kernel_shape=kernel,
            strides=kernel,
            pads=(0,) * 2 * len(kernel),
            ceil_mode=0,
            **extra,
        )

    def pooled(context: Context, node: Node) -> Any:
        value = handle(context, node)
        return (value, None) if operator == "MaxPool" else value

    return pooled


def _batch_norm(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name = context.name(node, a["running_mean"], a["weight"])
    require(
        a["running_mean"] is not None,
        name,
        "track_running_stats=False normalises by the batch in evaluation too",
        f"torch: {name}: track_running_stats=True",
    )
    module = context.modules[module_path(node)]
    kept = isinstance(module, BatchNorm) and module not in context.training
    require(
        kept or getattr(module, "momentum", 0.1) is not None,
        name,
        "momentum=None averages the statistics of all batches alike, and no other framework does",
        f"torch: {name}: momentum=0.1, or another number",
    )
    if not isinstance(module, BatchNorm):
        training.add_effects(
            context.builder,
            [
                TrainingEffect(
                    f"torch module {module_path(node)!r}",
                    "calls functional.batch_norm, which averages the unbiased variance",
                    "torch: use a module, nn.BatchNorm1d to nn.BatchNorm3d",
                )
            ],
        )
    roles = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    if kept:
        statistics = [layout_of(a[roles[role]], name) for role in ("mean", "variance")]
        training.keep_statistics(context.builder, statistics)
    return context.builder.channelwise(
        "BatchNormalization",
        name,
        context.data(a["input"]),
        1,
        layouts={role: layout_of(a[key], name) for role, key in roles.items()},
        epsilon=a["eps"],
        momentum=1.0 if kept else round(1.0 - a["momentum"], 12),
    )


def _instance_norm(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name = context.name(node, a["weight"], a["running_mean"])
    require(a["running_mean"] is None, name, "track_running_stats=True has no counterpart in Keras")
    layouts: Mapping[str, Layout | None] = {
        "weight": layout_of(a["weight"], name),
        "bias": layout_of(a["bias"], name),
    }
    return context.builder.channelwise(
        "InstanceNormalization", name, context.data(a["input"]), 1, layouts=layouts, epsilon=a["eps"]
    )


def _group_norm(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name = context.name(node, a["weight"])
    layouts: Mapping[str, Layout | None] = {
        "weight": layout_of(a["weight"], name),
        "bias": layout_of(a["bias"], name),
    }
    if a["num_groups"] == native_shape(node)[1]:
        return context.builder.channelwise(
            "InstanceNormalization", name, context.data(a["input"]), 1, layouts=layouts, epsilon=a["eps"]
        )
    return context.builder.channelwise(
        "GroupNormalization",
        name,
        context.data(a["input"]),
        1,
        layouts=layouts,
        num_groups=a["num_groups"],
        epsilon=a["eps"],
    )


def _layer_norm(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name = context.name(node, a["weight"])
    require(len(a["normalized_shape"]) == 1, name, "normalises over several axes; expected the last one")
    weight, bias = layout_of(a["weight"], name), layout_of(a["bias"], name)
    return context.builder.layer_norm(name, context.data(a["input"]), weight, bias, a["eps"])


def _prelu(context: Context, node: Node) -> Value:
    a = context.arguments(node)
    name = context.name(node, a["weight"])
    slope = scalar(a["weight"])
    if slope is not None:
        return context.builder.elementwise("LeakyRelu", name, context.data(a["self"]), alpha=slope)
    layouts = {"weight": parameter(a["weight"], name)}
    return context.builder.channelwise("PRelu", name, context.data(a["self"]), 1, layouts=layouts)


def _embedding(context: Context, node: Node) -> Operand:
    a = context.arguments(node)
    name, module = context.name(node, a["weight"]), context.modules[module_path(node)]
    if isinstance(a["weight"], Value):
        return gather(context.builder, name, a["weight"], 0, a["indices"])
    weight = parameter(a["weight"], name)
    if isinstance(module, torch.nn.Embedding):
        padding = -1 if module.padding_idx is None else module.padding_idx
        return lookup(context.builder, name, weight, a["indices"], padding, module_path(node))
    usual = {"padding_idx": -1, "scale_grad_by_freq": False}
    for word, value in usual.items():
        cure = f"torch: use nn.Embedding({word}={a[word]})"
        require(a[word] == value, name, f"functional.embedding with {word}={a[word]}", cure)
    return lookup(context.builder, name, weight, a["indices"])


HANDLERS: Mapping[str, Handler] = {
    **{f"conv{n}d": _conv for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _conv_transpose for n in (1, 2, 3)},
    **{f"max_pool{n}d": _pool("MaxPool") for n in (1, 2, 3)},
    **{f"avg_pool{n}d": _pool("AveragePool") for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _adaptive_pool("AveragePool", "ReduceMean") for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _adaptive_pool("MaxPool", "ReduceMax") for n in (1, 2, 3)},
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "prelu": _prelu,
    "embedding": _embedding,
}
"""Names of operations, without their overloads, to their handlers."""
