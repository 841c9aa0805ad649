"""Arithmetic of two values, or of one and a number.

The passes ``sums``, ``repeats`` and ``parameters`` bring sums and what they repeat to one form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbackend_fl.canonical.row import Effect, Operator, Property

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph


def with_number(graph: OnnxGraph, node: Node) -> None:
    """Values in one dtype, and behind them the number that a node holds in place of a value."""
    inputs, constant = graph.alike(node.inputs), node.attributes.get("constant")
    if constant is not None:
        inputs.append(graph.number(constant, node.inputs[0]))
    graph.call(node.operator, inputs, node.outputs[0])


def _mod(graph: OnnxGraph, node: Node) -> None:
    """Of floats: ONNX's own gives the remainder the sign of the dividend."""
    value = node.inputs[0]
    constant = node.attributes.get("constant")
    divisor = node.inputs[1] if constant is None else graph.number(constant, value)
    if graph.is_whole(value):
        graph.call("Mod", [value, divisor], node.outputs[0])
        return
    whole = graph.call("Floor", [graph.call("Div", [value, divisor])])
    graph.call("Sub", [value, graph.call("Mul", [whole, divisor])], node.outputs[0])


_BOTH_WAYS = Property.COMMUTATIVE | Property.ASSOCIATIVE | Property.KEEPS_AXES
_OPERATION = Property.ARITHMETIC | Property.KEEPS_AXES
_NUMBER = {"constant": Effect.FUNCTION}

OPERATORS = (
    Operator(
        "Add",
        attributes=_NUMBER,
        properties=_BOTH_WAYS
        | Property.ARITHMETIC
        | Property.KEEPS_PIXELS
        | Property.CARRIES_BIAS
        | Property.EXACT
        | Property.REWRITTEN,
        expansion=with_number,
    ),
    Operator(
        "Mul",
        attributes=_NUMBER,
        properties=_BOTH_WAYS | Property.ARITHMETIC | Property.KEEPS_PIXELS | Property.REWRITTEN,
        expansion=with_number,
    ),
    Operator("Sub", properties=_OPERATION | Property.EXACT, expansion=with_number),
    Operator("Div", properties=_OPERATION | Property.DIVIDES | Property.UNBOUNDED, expansion=with_number),
    Operator(
        "Pow",
        attributes=_NUMBER,
        properties=Property.KEEPS_AXES | Property.UNBOUNDED | Property.REWRITTEN,
        expansion=with_number,
    ),
    Operator("Max", properties=_BOTH_WAYS, expansion=with_number),
    Operator("Min", properties=_BOTH_WAYS, expansion=with_number),
    Operator(
        "Mod",
        attributes=_NUMBER,
        expansion=_mod,
        note="the remainder has the sign of the divisor",
    ),
)
