"""Outputs that ONNX Runtime knows to an absolute precision only: what a sigmoid returned, moved or multiplied."""

from __future__ import annotations

from xbackend_fl.canonical import Property, Schema, has

SMALLEST = 1e-3
"""Its sigmoid stops at 18 and is 1e-8 where others go on to 1e-15, so parts of an output are counted of no less."""


def floors(schema: Schema) -> tuple[float, ...]:
    """For each output the least size that an error of ONNX Runtime is a part of; 0 where its own size is."""
    made = {value: node for node in schema.nodes for value in node.outputs}

    def logistic(value: str) -> bool:
        node = made.get(value)
        if node is None:
            return False
        factors = node.operator == "Mul" and len(node.inputs) == 2
        return node.operator == "Sigmoid" or (
            (has(node.operator, Property.MOVES) or factors) and all(map(logistic, node.inputs))
        )

    return tuple(SMALLEST if logistic(port.name) else 0.0 for port in schema.outputs)
