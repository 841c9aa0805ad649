"""What joins, cuts, pads, turns and reshapes axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Operator, Property, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _pad(graph: OnnxGraph, node: Node) -> None:
    pads = graph.constant(node.attributes["pads"], np.int64)
    inputs = [node.inputs[0], pads, graph.number(node.attributes["value"], node.inputs[0])]
    graph.call("Pad", inputs, node.outputs[0], mode=node.attributes["mode"])


def _slice(graph: OnnxGraph, node: Node) -> None:
    bounds = [graph.constant([node.attributes[key]], np.int64) for key in ("start", "stop", "axis", "step")]
    graph.call("Slice", [node.inputs[0], *bounds], node.outputs[0])


def _flip(graph: OnnxGraph, node: Node) -> None:
    axis = graph.constant([node.attributes["axis"]], np.int64)
    bounds = [graph.ints(-1), graph.ints(-(2**31)), axis, graph.ints(-1)]
    graph.call("Slice", [node.inputs[0], *bounds], node.outputs[0])


def _roll(graph: OnnxGraph, node: Node) -> None:
    value, axis = node.inputs[0], node.attributes["axis"]
    place, cut = (
        graph.constant([axis], np.int64),
        graph.constant([-int(str(node.attributes["shift"]))], np.int64),
    )
    tail = graph.call("Slice", [value, cut, graph.ints(2**31), place])
    head = graph.call("Slice", [value, graph.ints(0), cut, place])
    graph.call("Concat", [tail, head], node.outputs[0], axis=axis)


def _expand(graph: OnnxGraph, node: Node) -> None:
    shape = node.attributes["shape"]
    assert isinstance(shape, tuple)
    rest = graph.ints(*(int(n) for n in shape[1:]))
    lead = graph.ints(int(shape[0]))
    if not shape[0]:
        lead = graph.call("Shape", [graph.batch], start=0, end=1)
    sizes = graph.call("Concat", [lead, rest], axis=0)
    graph.call("Expand", [node.inputs[0], sizes], node.outputs[0])


def _reshape(graph: OnnxGraph, node: Node) -> None:
    shape = graph.constant(node.attributes["shape"], np.int64)
    graph.call("Reshape", [node.inputs[0], shape], node.outputs[0])


_AXIS = {"axis": Effect.FUNCTION}
_PICKS = Property.PICKS | Property.MOVES | Property.KEEPS_INDICES | Property.KEEPS_AXES | Property.EXACT

OPERATORS = (
    Operator(
        "Concat",
        attributes=_AXIS,
        properties=_PICKS | Property.ASSOCIATIVE | Property.CARRIES_BIAS | Property.REORDERS,
    ),
    Operator(
        "Slice",
        attributes=attributes(Effect.FUNCTION, "axis", "start", "stop", "step"),
        properties=_PICKS | Property.REWRITTEN,
        expansion=_slice,
    ),
    Operator(
        "Pad",
        attributes=attributes(Effect.FUNCTION, "pads", "value", "mode"),
        properties=Property.KEEPS_AXES | Property.CARRIES_BIAS | Property.KEEPS_INDICES | Property.EXACT,
        expansion=_pad,
    ),
    Operator("Flip", attributes=_AXIS, properties=Property.PICKS, expansion=_flip),
    Operator(
        "Roll",
        attributes=attributes(Effect.FUNCTION, "axis", "shift"),
        expansion=_roll,
        note="what leaves at the end comes in at the start",
    ),
    Operator(
        "Expand",
        attributes={"shape": Effect.SHAPE},
        properties=Property.SHAPE_ONLY | Property.MOVES | Property.REWRITTEN,
        expansion=_expand,
        note="a length of 0 is the batch",
    ),
    Operator("Flatten", properties=Property.SHAPE_ONLY | Property.KEEPS_PIXELS | Property.REORDERS),
    Operator(
        "Reshape",
        attributes={"shape": Effect.SHAPE},
        properties=Property.SHAPE_ONLY | Property.KEEPS_PIXELS | Property.MOVES | Property.REORDERS,
        expansion=_reshape,
    ),
    Operator(
        "Transpose",
        attributes={"perm": Effect.SHAPE},
        properties=Property.SHAPE_ONLY | Property.MOVES | Property.REORDERS,
    ),
)
