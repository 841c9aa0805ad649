"""One spelling for one function: what the builder recognises in the nodes it has collected so far."""

from __future__ import annotations

from collections.abc import Sequence

from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.schema import Node

_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Softplus", "Exp", "Abs"})
_PASSES_FEATURES = frozenset(
    name
    for name, row in OPERATORS.items()
    if not row.slots and set(row.attributes or {}) <= {"alpha", "gamma", "beta"}
) - {"MatMul", "Sub", "Div", "Max", "Min", "Flatten"}


def producer(nodes: Sequence[Node], value: str) -> Node | None:
    """The node that makes ``value``."""
    return next((node for node in reversed(nodes) if value in node.outputs), None)


def foldable_pad(nodes: Sequence[Node], value: str, operator: str) -> Node | None:
    """A Pad in front of ``operator`` that means the same as pads of its own.

    A convolution pads with zeros. Max pooling pads with minus infinity, which is the same behind an
    activation that is never negative, gradient included.
    """
    pad = producer(nodes, value)
    if (
        pad is None
        or pad.operator != "Pad"
        or pad.attributes["mode"] != "constant"
        or pad.attributes["value"]
    ):
        return None
    if operator == "Conv":
        return pad
    source = producer(nodes, pad.inputs[0])
    bounded = source is not None and source.operator == "Clip" and source.attributes.get("min") == 0.0
    positive = source is not None and (source.operator in _NOT_NEGATIVE or bounded)
    return pad if operator == "MaxPool" and positive else None


def feature_parameters(nodes: Sequence[Node], value: str) -> list[str] | None:
    """Parameters whose axis 0 is the feature axis of a rank-2 ``value``.

    They are those of the dense layer that makes the features, and of everything elementwise between.
    ``None`` if the features come from elsewhere, or are read by anyone else on the way.
    """
    found: list[str] = []
    while (node := producer(nodes, value)) is not None:
        readers = sum(value in other.inputs for other in nodes)
        if readers > 1 or node.operator not in {"Gemm", "BatchNormalization", "Dropout", *_PASSES_FEATURES}:
            return None
        users = (set(other.parameters.values()) for other in nodes if other is not node)
        if any(not used.isdisjoint(node.parameters.values()) for used in users):
            return None
        found += node.parameters.values()
        if node.operator == "Gemm":
            return found
        value = node.inputs[0]
    return None
