"""Which version of ONNX's operators a file is of, and whether that version has what a model needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xbackend_fl.errors import RefusedInput

if TYPE_CHECKING:
    import onnx

    from xbackend_fl.canonical.node import Node

OPSET = 21
"""What the rows of the operator table write."""

OLDEST, NEWEST = 18, 24
"""Between these, what a row writes means the same wherever an operator of that name takes it; tests run every network in all of them."""


def check_opset(written: Iterable[onnx.NodeProto], opset: int, node: Node) -> None:
    """Refuse what an opset does not have.

    Args:
        written: What the node is in ONNX.
        opset: The version asked for.
        node: A node of the canonical graph.

    Raises:
        RefusedInput: The opset is none of those that are written, or lacks an operator, an attribute or an input.
    """
    if opset == OPSET:
        return
    if not OLDEST <= opset <= NEWEST:
        raise RefusedInput(
            f"opset {opset} is not written: expected {OLDEST} to {NEWEST}", hint=f"leave it out for {OPSET}"
        )
    for item in written:
        if not _has(item, opset):
            first = next(number for number in range(opset, OPSET + 1) if _has(item, number))
            raise RefusedInput(
                f"opset {opset} has no {item.op_type} as {node.operator} {node.name!r} needs it",
                hint=f"--opset {first} or later; {OPSET} if it is left out",
            )


def ir_version(opset: int) -> int:
    """The oldest version of ONNX's file format that has an opset."""
    from onnx import helper  # noqa: PLC0415  a server does without

    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


def _has(item: onnx.NodeProto, opset: int) -> bool:
    from onnx import defs  # noqa: PLC0415  a server does without

    try:
        known = defs.get_schema(item.op_type, opset, "")
    except defs.SchemaError:
        return False
    attributes = {attribute.name for attribute in item.attribute}
    return not known.deprecated and attributes <= set(known.attributes) and len(item.input) <= known.max_input
