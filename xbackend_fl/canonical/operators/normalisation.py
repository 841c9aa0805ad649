"""Layers of normalisation, and vectors of length one.

The pass ``norms`` turns a norm written out into one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Kind, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _batch_norm(graph: OnnxGraph, node: Node) -> None:
    channels = graph.shapes[node.parameters["mean"]]
    if graph.batch_statistics:
        _of_batch(graph, node, channels[0])
        return
    scale = node.parameters.get("weight") or graph.real(np.ones(channels))
    bias = node.parameters.get("bias") or graph.real(np.zeros(channels))
    inputs = [node.inputs[0], scale, bias, node.parameters["mean"], node.parameters["variance"]]
    graph.call("BatchNormalization", inputs, node.outputs[0], **node.attributes)


def _of_batch(graph: OnnxGraph, node: Node, channels: int) -> None:
    """Batch normalisation in training mode; the mean and the biased variance are outputs."""
    value = node.inputs[0]
    # [N, C, *spatial] as [C, N · spatial]: one row per channel at every rank.
    rows = graph.call("Reshape", [value, graph.ints(0, channels, -1)])
    by_channel = graph.call(
        "Reshape", [graph.call("Transpose", [rows], perm=[1, 0, 2]), graph.ints(channels, -1)]
    )
    mean, variance = graph.statistics_of(node, channels)
    graph.call("ReduceMean", [by_channel, graph.ints(1)], mean, keepdims=0)
    centre = graph.call("Unsqueeze", [mean, graph.ints(1)])
    squares = graph.call("Mul", [graph.call("Sub", [by_channel, centre])] * 2)
    graph.call("ReduceMean", [squares, graph.ints(1)], variance, keepdims=0)
    scale = node.parameters.get("weight") or graph.real(np.ones(channels))
    bias = node.parameters.get("bias") or graph.real(np.zeros(channels))
    epsilon = node.attributes["epsilon"]
    graph.call("BatchNormalization", [value, scale, bias, mean, variance], node.outputs[0], epsilon=epsilon)


def _affine(graph: OnnxGraph, node: Node, axis: int) -> list[str]:
    """Input, scale and bias of a normalisation; absent ones are ones and zeros."""
    length = _length(graph, node, axis)
    scale = node.parameters.get("weight") or length(1.0)
    bias = node.parameters.get("bias") or length(0.0)
    return [node.inputs[0], scale, bias]


def _length(graph: OnnxGraph, node: Node, axis: int) -> Callable[[float], str]:
    """Makes constants as long as ``axis`` of the node's input, whatever that is."""
    held = next(iter(node.parameters.values()), None)

    def constant(value: float) -> str:
        if held is not None:
            return graph.real(np.full(graph.shapes[held], value))
        size = graph.call("Shape", [node.inputs[0]], start=axis, end=axis + 1 if axis >= 0 else None)
        return graph.call("Expand", [graph.real([value]), size])

    return constant


def _layer_norm(graph: OnnxGraph, node: Node) -> None:
    inputs = _affine(graph, node, -1)
    graph.call("LayerNormalization", inputs, node.outputs[0], axis=-1, epsilon=node.attributes["epsilon"])


def _grouped_norm(graph: OnnxGraph, node: Node) -> None:
    graph.call(node.operator, _affine(graph, node, 1), node.outputs[0], **node.attributes)


def _lp_normalization(graph: OnnxGraph, node: Node) -> None:
    """Spelled out: ONNX's own says nothing of zeros."""
    value = node.inputs[0]
    axis = graph.constant([node.attributes["axis"]], np.int64)
    norm = graph.call("ReduceL2", [value, axis], keepdims=1)
    graph.call("Div", [value, graph.call("Max", [norm, graph.real(1e-12)])], node.outputs[0])


_NORMALISES = Property.NORMALISES | Property.KEEPS_AXES
_EPSILON = attributes(Effect.FUNCTION, "epsilon")


def _slots(scale: str) -> tuple[Slot, ...]:
    return Slot("weight", scale, "[channels]"), Slot("bias", "B", "[channels]")


OPERATORS = (
    Operator(
        "BatchNormalization",
        (
            *_slots("scale"),
            Slot("mean", "input_mean", "[channels]", Kind.STATISTIC),
            Slot("variance", "input_var", "[channels], biased", Kind.STATISTIC),
        ),
        _EPSILON | {"momentum": Effect.TRAINING},
        _NORMALISES | Property.KEEPS_PIXELS,
        _batch_norm,
        note="momentum is ONNX's: running = momentum · running + (1 - momentum) · batch",
    ),
    Operator("LayerNormalization", _slots("Scale"), _EPSILON, _NORMALISES, _layer_norm),
    Operator(
        "GroupNormalization",
        _slots("scale"),
        _EPSILON | {"num_groups": Effect.FUNCTION},
        _NORMALISES,
        _grouped_norm,
    ),
    Operator("InstanceNormalization", _slots("scale"), _EPSILON, _NORMALISES, _grouped_norm),
    Operator(
        "LpNormalization",
        attributes={"axis": Effect.FUNCTION},
        properties=Property.DIVIDES,
        expansion=_lp_normalization,
        note="divided by the Euclidean norm; zeros stay zeros",
    ),
)
