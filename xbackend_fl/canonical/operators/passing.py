"""What hands on the values that it reads: as they are, in another dtype, or some of them in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbackend_fl.canonical.row import Effect, Operator, Property

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _dropout(graph: OnnxGraph, node: Node) -> None:
    graph.call("Identity", [node.inputs[0]], node.outputs[0])


def _cast(graph: OnnxGraph, node: Node) -> None:
    graph.cast(node.inputs[0], str(node.attributes["to"]), node.outputs[0])


_PASSES = Property.SHAPE_ONLY | Property.KEEPS_AXES

OPERATORS = (
    Operator(
        "Dropout",
        attributes={"ratio": Effect.TRAINING, "shared_axes": Effect.TRAINING},
        properties=_PASSES | Property.KEEPS_PIXELS,
        expansion=_dropout,
        note="shared_axes: axes along which one draw counts for all (whole channels, whole examples)",
    ),
    Operator("Identity", properties=_PASSES | Property.PASSES_FEATURES),
    Operator("Cast", attributes={"to": Effect.SHAPE}, properties=_PASSES, expansion=_cast),
)
