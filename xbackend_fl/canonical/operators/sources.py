"""Values that come from no data: parameters and constants; and what only its own framework computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbackend_fl.canonical.row import OPAQUE, Effect, Operator, Property, Slot, attributes

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _parameter(graph: OnnxGraph, node: Node) -> None:
    graph.call("Identity", [node.parameters["weight"]], node.outputs[0])


def _constant(graph: OnnxGraph, node: Node) -> None:
    dtype = np.dtype(str(node.attributes["dtype"])).type
    shape = node.attributes["shape"]
    assert isinstance(shape, tuple)
    value = np.asarray(node.attributes["value"]).reshape([int(n) for n in shape])
    graph.call("Identity", [graph.constant(value, dtype)], node.outputs[0])


OPERATORS = (
    Operator(
        "Parameter",
        (Slot("weight", "input", "as its readers broadcast it, without leading ones"),),
        expansion=_parameter,
        note="a parameter used as data (ONNX Identity of an initializer)",
    ),
    Operator(
        "Constant",
        attributes=attributes(Effect.FUNCTION, "shape", "dtype") | {"value": Effect.NUMBERS},
        properties=Property.REWRITTEN,
        expansion=_constant,
    ),
    Operator(
        OPAQUE,
        attributes=attributes(Effect.FUNCTION, "framework", "operation", "detail") | {"dtype": Effect.SHAPE},
        properties=Property.REORDERS | Property.SATURATES | Property.DIVIDES | Property.REWRITTEN,
        note="an operation of one framework that has no canonical form; values lie as that framework has them, and no ONNX graph is made",
    ),
)
