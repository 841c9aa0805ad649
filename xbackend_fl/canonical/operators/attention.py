"""Attention, and the shares that it gives.

Attention spelled out is recognised while a graph is recorded (``graph/attention.py``); the pass ``hiding`` makes one mask of any in front of a softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Operator, Property, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _attention(graph: OnnxGraph, node: Node) -> None:
    heads = node.attributes["num_heads"]
    assert isinstance(heads, int)
    parts = []
    for value, order in zip(node.inputs, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        split = graph.call("Reshape", [value, graph.ints(0, 0, heads, -1)])
        parts.append(graph.call("Transpose", [split], perm=order))
    query, key, value = parts
    scores = graph.call("Mul", [graph.call("MatMul", [query, key]), graph.real(node.attributes["scale"])])
    if node.attributes["causal"]:
        scores = _hide_future(graph, scores, f"{node.outputs[0]}_causal")
    mixed = graph.call("MatMul", [graph.call("Softmax", [scores], axis=-1), value])
    joined = graph.call("Transpose", [mixed], perm=[0, 2, 1, 3])
    graph.call("Reshape", [joined, graph.ints(0, 0, -1)], node.outputs[0])


def _causal_mask(graph: OnnxGraph, node: Node) -> None:
    _hide_future(graph, node.inputs[0], node.outputs[0])


def _hide_future(graph: OnnxGraph, scores: str, output: str) -> str:
    sizes = graph.call("Shape", [scores], start=-2)
    full = graph.call("Expand", [graph.real(-1e9), sizes])
    above = graph.call("Trilu", [full, graph.constant(1, np.int64)], upper=1)
    return graph.call("Add", [scores, above], output)


_SHARES = Property.SATURATES | Property.KEEPS_AXES

OPERATORS = (
    Operator(
        "Attention",
        attributes=attributes(Effect.FUNCTION, "num_heads", "causal", "scale") | {"dropout": Effect.TRAINING},
        properties=Property.SERIES | Property.SATURATES,
        expansion=_attention,
        feature_axis=-1,
        note="inputs query, key, value [N, T, heads·size]; softmax(scale · q·kᵀ)·v per head, heads joined; "
        "causal=1 lets position t see positions up to t",
    ),
    Operator(
        "CausalMask",
        properties=Property.PASSES_FEATURES,
        expansion=_causal_mask,
        note="minus infinity above the diagonal of the last two axes",
    ),
    Operator("Softmax", attributes={"axis": Effect.FUNCTION}, properties=_SHARES | Property.NOT_NEGATIVE),
    Operator("LogSoftmax", attributes={"axis": Effect.FUNCTION}, properties=_SHARES),
)
