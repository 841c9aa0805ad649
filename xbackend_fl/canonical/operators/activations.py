"""Activations: functions of single elements between layers.

The passes ``activations``, ``bounds`` and ``slices`` turn activations written out, or computed before a cut, into these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _relu(graph: OnnxGraph, node: Node) -> None:
    if graph.is_whole(node.inputs[0]):
        # ONNX Runtime has no Relu of whole numbers.
        graph.call("Max", [node.inputs[0], graph.number(0, node.inputs[0])], node.outputs[0])
    else:
        graph.direct(node)


def _prelu(graph: OnnxGraph, node: Node) -> None:
    # Slopes broadcast from the right, so they need an axis of size 1 per spatial axis; only their number is known late.
    spatial = graph.call("Shape", [graph.call("Shape", [node.inputs[0]], start=2)])
    ones = graph.filled(spatial, np.ones(1, np.int64))
    shape = graph.call("Concat", [graph.ints(-1), ones], axis=0)
    slope = graph.call("Reshape", [node.parameters["weight"], shape])
    graph.call("PRelu", [node.inputs[0], slope], node.outputs[0])


def _swish(graph: OnnxGraph, node: Node) -> None:
    gate = graph.call("Sigmoid", [node.inputs[0]])
    graph.call("Mul", [node.inputs[0], gate], node.outputs[0])


def _clip(graph: OnnxGraph, node: Node) -> None:
    bounds = [node.attributes.get(end) for end in ("min", "max")]
    given = ["" if bound is None else graph.number(bound, node.inputs[0]) for bound in bounds]
    graph.call("Clip", [node.inputs[0], *given], node.outputs[0])


_PLAIN = Property.PASSES_FEATURES | Property.KEEPS_AXES
_GATE = _PLAIN | Property.GATES
_ALPHA = attributes(Effect.FUNCTION, "alpha")

OPERATORS = (
    Operator(
        "Relu",
        properties=_GATE | Property.NOT_NEGATIVE | Property.KINKED | Property.EXACT | Property.KEEPS_INDICES,
        expansion=_relu,
    ),
    Operator("Sigmoid", properties=_GATE | Property.NOT_NEGATIVE | Property.SATURATES),
    Operator("Tanh", properties=_GATE | Property.SATURATES),
    Operator("Softplus", properties=_GATE | Property.NOT_NEGATIVE | Property.SATURATES),
    Operator("Softsign", properties=_GATE),
    Operator("HardSwish", properties=_PLAIN),
    Operator("Mish", properties=_PLAIN),
    Operator("Swish", properties=_PLAIN, expansion=_swish),
    Operator("LeakyRelu", attributes=_ALPHA, properties=_GATE | Property.KINKED),
    Operator("Elu", attributes=_ALPHA, properties=_GATE),
    Operator("HardSigmoid", attributes=attributes(Effect.FUNCTION, "alpha", "beta"), properties=_GATE),
    Operator("Selu", attributes=attributes(Effect.FUNCTION, "alpha", "gamma"), properties=_PLAIN),
    Operator("Celu", attributes=_ALPHA, properties=Property.PASSES_FEATURES),
    Operator("ThresholdedRelu", attributes=_ALPHA, properties=Property.PASSES_FEATURES),
    Operator("Shrink", attributes=attributes(Effect.FUNCTION, "lambd", "bias")),
    Operator("Gelu", attributes=attributes(Effect.FUNCTION, "approximate"), properties=Property.KEEPS_AXES),
    Operator(
        "Clip",
        attributes=attributes(Effect.FUNCTION, "min", "max"),
        properties=Property.KEEPS_PIXELS
        | Property.KEEPS_AXES
        | Property.GATES
        | Property.KINKED
        | Property.BOUNDS,
        expansion=_clip,
    ),
    Operator(
        "PRelu",
        (Slot("weight", "slope", "[channels] or [1]"),),
        properties=Property.KEEPS_AXES | Property.KINKED,
        expansion=_prelu,
    ),
)
