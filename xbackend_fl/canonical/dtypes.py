"""What kind of numbers a value holds: floats, whole numbers or truth values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xbackend_fl.canonical.schema import AttributeValue, Schema

_TRUTHS = frozenset({"Equal", "Less", "Greater", "Not", "And", "Or", "Xor"})
_SECOND = frozenset({"Where"})


def output_dtypes(
    operator: str,
    attributes: Mapping[str, AttributeValue],
    inputs: Sequence[str],
    outputs: int,
    *,
    parametric: bool,
) -> tuple[str, ...]:
    """NumPy dtype names of a node's outputs.

    Args:
        operator: Row of the operator table.
        attributes: Attributes of the node.
        inputs: Dtypes of what it reads.
        outputs: How many outputs it has.
        parametric: Whether it holds parameters, which are floats.
    """
    told = attributes.get("to", attributes.get("dtype"))
    if told is not None:
        return (str(told),) * outputs
    if operator in _TRUTHS:
        return ("bool",) * outputs
    if operator == "ArgMax":
        return ("int64",) * outputs
    if parametric or not inputs:
        return ("float32",) * outputs
    first = inputs[1] if operator in _SECOND else inputs[0]
    return (first, "int64") if operator == "TopK" else (first,) * outputs


def value_dtypes(schema: Schema) -> dict[str, str]:
    """NumPy dtype name of every value of a graph."""
    found = {port.name: port.dtype for port in schema.inputs}
    for node in schema.nodes:
        inputs = [found[name] for name in node.inputs]
        made = output_dtypes(
            node.operator, node.attributes, inputs, len(node.outputs), parametric=bool(node.parameters)
        )
        found |= dict(zip(node.outputs, made, strict=True))
    return found


def is_whole(dtype: str) -> bool:
    """Whether values of a dtype are whole numbers, truth values aside."""
    return dtype.startswith(("int", "uint"))
