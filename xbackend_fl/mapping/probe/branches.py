"""How much the branches of a deep residual network add to what passes by them."""

from __future__ import annotations

from xbackend_fl.canonical import OPERATORS, Node, Property, Schema, has

MANY = 8
"""Residual sums from which on a network counts as deep."""

_TOGETHER = 3.0
"""What all branches together add, in sizes of what passes by them."""


def calmed(schema: Schema) -> dict[str, float]:
    """A factor for the parameters of each layer that ends a branch of a deep residual network; empty if it is none.

    Where every branch adds as much as what passes by it, attention makes the positions of a sequence alike: after twelve layers they
    differ by 5e-5 of their size, whatever is asked of which key is nothing but rounding, and no probe sees the weights of queries and keys.
    With branches this small positions still differ by a quarter there (a tenth after 24 layers).
    """
    made = {value: node for node in schema.nodes for value in node.outputs}
    places = {port.name: place for place, port in enumerate(schema.inputs)}
    places |= {value: place for place, value in enumerate(made, start=len(places))}
    above = {port.name: 1 << places[port.name] for port in schema.inputs}
    sums, ends = 0, list[Node]()
    for node in schema.nodes:
        behind = 0
        for value in node.inputs:
            behind |= above.get(value, 0)
        above |= {value: behind | 1 << places[value] for value in node.outputs}
        if node.operator != "Add" or len(node.inputs) != 2:
            continue
        one, two = (_unmoved(value, made) for value in node.inputs)
        for passing, branch in ((one, two), (two, one)):
            if passing != branch and passing in places and above.get(branch, 0) >> places[passing] & 1:
                sums += 1
                ends += [made[branch]]
    if sums < MANY:
        return {}
    return {name: _TOGETHER / sums for node in ends if _weighs(node) for name in node.parameters.values()}


def _unmoved(value: str, made: dict[str, Node]) -> str:
    """The value before it was reshaped or turned."""
    while (node := made.get(value)) and has(node.operator, Property.SHAPE_ONLY) and len(node.inputs) == 1:
        value = node.inputs[0]
    return value


def _weighs(node: Node) -> bool:
    """Whether a node sums up what it reads, with weights."""
    slot = OPERATORS[node.operator].slot("weight") if "weight" in node.parameters else None
    return bool(slot and slot.fan_in_axes)
