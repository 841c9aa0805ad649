"""Layers that are linear in their input, and products of data.

Other forms are turned into these by the passes ``biases``, ``cuts``, ``joins``, ``loops``, ``low_rank``, ``products``, ``rows``, ``scales``,
``squeezes``, ``crops`` and ``trims``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbackend_fl.canonical.row import Effect, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _gemm(graph: OnnxGraph, node: Node) -> None:
    transposed = graph.call("Transpose", [node.parameters["weight"]], perm=[1, 0])
    bias, output = node.parameters.get("bias"), node.outputs[0]
    product = graph.call("MatMul", [node.inputs[0], transposed], output if bias is None else None)
    if bias is not None:
        graph.call("Add", [product, bias], output)


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
