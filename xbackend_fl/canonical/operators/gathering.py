"""What is looked up or picked: rows of an embedding, places of data.

The passes ``single_rows`` and ``picks`` bring these to one form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _embedding(graph: OnnxGraph, node: Node) -> None:
    graph.call("Gather", [node.parameters["weight"], node.inputs[0]], node.outputs[0], axis=0)


def _select(graph: OnnxGraph, node: Node) -> None:
    index = graph.constant(node.attributes["index"], np.int64)
    graph.call("Gather", [node.inputs[0], index], node.outputs[0], axis=node.attributes["axis"])


def _take(graph: OnnxGraph, node: Node) -> None:
    indices = graph.constant(node.attributes["indices"], np.int64)
    graph.call("Gather", [node.inputs[0], indices], node.outputs[0], axis=node.attributes["axis"])


OPERATORS = (
    Operator(
        "Gather",
        (Slot("weight", "data", "[vocabulary, features]", out_axis=1, in_axis=0),),
        {"padding_idx": Effect.TRAINING},
        expansion=_embedding,
        feature_axis=-1,
        note="embedding; padding_idx is the row that receives no gradient, -1 for none, absent where a model cannot have one",
    ),
    Operator(
        "Select",
        attributes=attributes(Effect.FUNCTION, "axis", "index"),
        properties=Property.PICKS
        | Property.MOVES
        | Property.KEEPS_INDICES
        | Property.EXACT
        | Property.REWRITTEN,
        expansion=_select,
        note="ONNX Gather with a constant index",
    ),
    Operator(
        "Take",
        attributes=attributes(Effect.FUNCTION, "axis", "indices"),
        properties=Property.LOOKS_UP,
        expansion=_take,
        note="ONNX Gather with constant indices",
    ),
    Operator("GatherElements", attributes={"axis": Effect.FUNCTION}, properties=Property.LOOKS_UP),
    Operator("GatherND", attributes={"batch_dims": Effect.FUNCTION}, properties=Property.LOOKS_UP),
)
