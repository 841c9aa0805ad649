"""What many values of an axis become one by, are counted along, or put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import Effect, Operator, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _reduce(graph: OnnxGraph, node: Node) -> None:
    axes = graph.constant(node.attributes["axes"], np.int64)
    keep = int(bool(node.attributes["keepdims"]))
    graph.call(node.operator, [node.inputs[0], axes], node.outputs[0], keepdims=keep)


def _arg_max(graph: OnnxGraph, node: Node) -> None:
    keep = int(bool(node.attributes["keepdims"]))
    graph.call("ArgMax", [node.inputs[0]], node.outputs[0], axis=node.attributes["axis"], keepdims=keep)


def _top_k(graph: OnnxGraph, node: Node) -> None:
    count = graph.ints(int(str(node.attributes["k"])))
    inputs, name = [node.inputs[0], count], node.outputs[0]
    graph.several("TopK", inputs, node.outputs[:2], name, axis=node.attributes["axis"])


def _cum_sum(graph: OnnxGraph, node: Node) -> None:
    given = {name: int(bool(node.attributes[name])) for name in ("exclusive", "reverse")}
    axis = graph.constant(node.attributes["axis"], np.int64)
    graph.call("CumSum", [node.inputs[0], axis], node.outputs[0], **given)


OPERATORS = (
    *(
        Operator(
            f"Reduce{word}",
            attributes={"axes": Effect.FUNCTION, "keepdims": Effect.SHAPE},
            expansion=_reduce,
        )
        for word in ("Mean", "Max", "Sum", "Min", "Prod", "LogSumExp")
    ),
    Operator(
        "ArgMax",
        attributes={"axis": Effect.FUNCTION, "keepdims": Effect.SHAPE},
        expansion=_arg_max,
        dtypes=("int64",),
        note="the first of equal ones; whole numbers",
    ),
    Operator(
        "TopK",
        attributes=attributes(Effect.FUNCTION, "axis", "k"),
        expansion=_top_k,
        dtypes=("", "int64"),
        note="the largest, in falling order, and their positions",
    ),
    Operator(
        "CumSum", attributes=attributes(Effect.FUNCTION, "axis", "exclusive", "reverse"), expansion=_cum_sum
    ),
)
