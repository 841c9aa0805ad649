"""Truth values: comparisons, what joins them, and what they choose.

The passes ``comparisons``, ``negations`` and ``truths`` bring these to one form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbackend_fl.canonical.operators.arithmetic import with_number
from xbackend_fl.canonical.row import Effect, Operator, Property

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def _several(graph: OnnxGraph, node: Node) -> None:
    """ONNX's logical operators take two."""
    *rest, last = node.inputs
    total = rest[0]
    for value in rest[1:]:
        total = graph.call(node.operator, [total, value])
    graph.call(node.operator, [total, last], node.outputs[0])


def _where(graph: OnnxGraph, node: Node) -> None:
    condition, *values = node.inputs
    graph.call("Where", [condition, *graph.alike(values)], node.outputs[0])


def _masked(graph: OnnxGraph, node: Node) -> None:
    value, mask = node.inputs
    fill = graph.number(node.attributes["value"], value)
    graph.call("Where", [mask, fill, value], node.outputs[0])


_TRUTH = ("bool",)
_NUMBER = {"constant": Effect.FUNCTION}

OPERATORS = (
    Operator(
        "Equal",
        attributes=_NUMBER,
        properties=Property.COMPARES | Property.COMMUTATIVE,
        expansion=with_number,
        dtypes=_TRUTH,
    ),
    Operator(
        "Less",
        attributes=_NUMBER,
        properties=Property.COMPARES | Property.BOUNDS,
        expansion=with_number,
        dtypes=_TRUTH,
    ),
    Operator(
        "Greater",
        attributes=_NUMBER,
        properties=Property.COMPARES | Property.BOUNDS,
        expansion=with_number,
        dtypes=_TRUTH,
        note="than a number; of two values the other is Less",
    ),
    Operator("Not", properties=Property.PASSES_FEATURES, dtypes=_TRUTH),
    *(
        Operator(name, properties=Property.COMMUTATIVE, expansion=_several, dtypes=_TRUTH)
        for name in ("And", "Or", "Xor")
    ),
    Operator(
        "Where", expansion=_where, data=1, note="where the first input is true the second, else the third"
    ),
    Operator(
        "Masked",
        attributes={"value": Effect.NUMBERS},
        expansion=_masked,
        note="ONNX Where: a number where the second input is true",
    ),
)
