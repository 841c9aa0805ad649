"""Layers that are linear in their input, and products of data.

Other forms are turned into these by the passes ``biases``, ``cuts``, ``joins``, ``loops``, ``low_rank``, ``products``, ``rows``, ``scales``,
``squeezes``, ``crops`` and ``trims``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xbackend_fl.canonical.row import Effect, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _gemm(graph: OnnxGraph, node: Node) -> None:
    value, weight, output = node.inputs[0], node.parameters["weight"], node.outputs[0]
    bias, sizes = node.parameters.get("bias"), graph.sizes.get(value)
    if not graph.sizes:
        transposed = graph.call("Transpose", [weight], perm=[1, 0])
        product = graph.call("MatMul", [value, transposed], output if bias is None else None)
        if bias is not None:
            graph.call("Add", [product, bias], output)
        return
    rows = (
        value
        if sizes is not None and len(sizes) == 2
        else graph.call("Reshape", [value, graph.ints(-1, graph.shapes[weight][1])])
    )
    made = graph.call(
        "Gemm", [rows, weight, *([bias] if bias else [])], output if rows is value else None, transB=1
    )
    if made != output:
        graph.call("Reshape", [made, _as_before(graph, value, sizes, graph.shapes[weight][0])], output)


def _as_before(graph: OnnxGraph, value: str, sizes: Sequence[int | None] | None, features: int) -> str:
    """The shape of a value with other features: a constant where one axis in front of them is free at most."""
    if sizes is not None:
        front = [-1 if size is None else size for size in sizes[:-1]]
        if front.count(-1) <= 1 and 0 not in front:
            return graph.ints(*front, features)
    lead = graph.call("Shape", [value], start=0, end=-1)
    return graph.call("Concat", [lead, graph.ints(features)], axis=0)


_BIAS = Slot("bias", "B", "[out]")

OPERATORS = (
    Operator(
        "Conv",
        (
            Slot(
                "weight",
                "W",
                "[out, in / group, *kernel]",
                fan_in_axes=(1, 2, 3, 4),
                out_axis=0,
                in_axis=1,
            ),
            _BIAS,
        ),
        attributes(Effect.FUNCTION, "kernel_shape", "strides", "pads", "dilations", "group"),
        Property.LINEAR | Property.WINDOWED | Property.EXACT,
        feature_axis=1,
    ),
    Operator(
        "ConvTranspose",
        (
            Slot(
                "weight",
                "W",
                "[in, out / group, *kernel]",
                fan_in_axes=(0, 2, 3, 4),
                out_axis=1,
                in_axis=0,
            ),
            _BIAS,
        ),
        attributes(
            Effect.FUNCTION, "kernel_shape", "strides", "pads", "output_padding", "dilations", "group"
        ),
        Property.LINEAR,
        feature_axis=1,
    ),
    Operator(
        "Gemm",
        (
            Slot("weight", "B", "[out, in]", fan_in_axes=(1,), out_axis=0, in_axis=1),
            Slot("bias", "C", "[out]"),
        ),
        properties=Property.LINEAR | Property.KEEPS_PIXELS | Property.EXACT,
        expansion=_gemm,
        feature_axis=-1,
        note="transB=1, applied to the last axis of an input of any rank (ONNX MatMul above rank 2)",
    ),
    Operator("MatMul"),
)
