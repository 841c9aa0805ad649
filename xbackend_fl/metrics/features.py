"""Finds the axis of an output along which its last layer makes features; classes are features."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.canonical import OPERATORS, Property, Schema, has
from xbackend_fl.canonical.node import Node


def feature_axis(schema: Schema, place: int = 0) -> int | None:
    """The axis of an output, the batch counted, that the last layer with weights fills with features.

    ``None`` if operators in between rearrange values so that no single axis holds them.
    """
    makers = {name: node for node in schema.nodes for name in node.outputs}
    output = schema.outputs[place]
    return _axis(output.name, len(output.shape), makers)


def _axis(value: str, rank: int, makers: Mapping[str, Node]) -> int | None:
    node = makers.get(value)
    while node is not None and has(node.operator, Property.KEEPS_AXES):
        value = next((name for name in node.inputs if not _is_weight(name, makers)), "")
        node = makers.get(value)
    if node is None:
        return None
    own = OPERATORS[node.operator].feature_axis
    if own is not None:
        return own % rank
    if node.operator == "MatMul" and _is_weight(node.inputs[1], makers):
        return rank - 1
    if node.operator == "Transpose":
        inner = _axis(node.inputs[0], rank, makers)
        perm = node.attributes["perm"]
        return perm.index(inner) if isinstance(perm, tuple) and inner in perm else None
    return None


def _is_weight(value: str, makers: Mapping[str, Node]) -> bool:
    """Whether a value is made of parameters and constants only."""
    node = makers.get(value)
    return node is not None and (
        node.operator in {"Parameter", "Constant"}
        or (node.operator in {"Transpose", "Reshape"} and _is_weight(node.inputs[0], makers))
    )
