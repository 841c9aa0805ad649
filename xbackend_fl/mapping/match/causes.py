"""Keeps, of everything that differs between two matched graphs, what the rest follows from.

A layer of another width changes its weight, its bias, the normalisation behind it and the weights of the next layer. All of
them are one cause, and one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from xbackend_fl.canonical import OPERATORS, Property, Slot, has
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.skeleton import CoreNode

Shape = tuple[int, ...]

_FOLLOWS_SIZES = frozenset({"start", "stop", "scale", "group", "hidden_size", "shape"})
"""Attributes that follow from the sizes of what a node reads."""


def causes(
    pairs: Mapping[int, tuple[CoreNode, CoreNode]], found: Mapping[int, Sequence[Difference]]
) -> list[Difference]:
    """The differences from which all others follow.

    Args:
        pairs: Matched nodes by the reference's index, in execution order.
        found: Everything that differs, by the same index.
    """
    sizes: set[int] = set()
    kept: list[Difference] = []
    exchanged: set[tuple[int, int]] = set()
    for index, (left, right) in pairs.items():
        fed = any(edge.source in sizes for edge in left.edges)
        own = list(_of_node(left, right, found.get(index, ()), fed=fed, exchanged=exchanged))
        kept += own
        depthwise = left.node.operator == "Conv" and _group(left) > 1
        if any(_resizes(item) for item in own) or (fed and (depthwise or _weight(left) is None)):
            sizes.add(index)
    return kept or [item for items in found.values() for item in items]


def _weight(core: CoreNode) -> Slot | None:
    """The weight of a layer that says how many features go in and come out."""
    slots = OPERATORS[core.node.operator].slots
    return next((slot for slot in slots if slot.out_axis is not None), None)


def _resizes(difference: Difference) -> bool:
    """Whether a difference changes the shape of what the node makes."""
    return difference.attribute not in {"epsilon", "alpha", "approximate", "bias", "causal"} and not (
        difference.attribute.endswith("kind")
    )


def _of_node(
    left: CoreNode,
    right: CoreNode,
    found: Sequence[Difference],
    *,
    fed: bool,
    exchanged: set[tuple[int, int]],
) -> Iterator[Difference]:
    attributes = [item for item in found if not item.attribute.endswith((" shape", " kind"))]
    names = {item.attribute for item in attributes}
    if fed:
        attributes = [item for item in attributes if item.attribute not in _FOLLOWS_SIZES]
    shapes = [item for item in found if item.attribute.endswith(" shape")]
    weight = _weight(left)
    if weight is None or not shapes or "weight shape" not in {item.attribute for item in shapes}:
        yield from attributes
        if has(left.node.operator, Property.RECURRENT) and attributes:
            # Another form of the cell has other weights.
            shapes = []
        yield from (item for item in shapes if not fed and not _explained(left, right, item, exchanged))
    else:
        made = _widths(left, right, weight, names, fed=fed, exchanged=exchanged)
        yield from (item for item in attributes if not (made and item.attribute in {"hidden_size", "group"}))
        yield from made
    yield from _kinds([item for item in found if item.attribute.endswith(" kind")])


def _widths(
    left: CoreNode,
    right: CoreNode,
    weight: Slot,
    attributes: set[str],
    *,
    fed: bool,
    exchanged: set[tuple[int, int]],
) -> list[Difference]:
    """What the shapes of a layer's weights say: another width, other inputs, or nothing that is not said already."""
    one, two = left.parameters["weight"][0], right.parameters["weight"][0]
    names = left.node.name, right.node.name, left.node.operator
    parameters = left.node.parameters["weight"], right.node.parameters["weight"]
    if len(one) != len(two):
        return [Difference(*names, "weight shape", str(one), str(two), parameters=parameters)]
    result = []
    if has(left.node.operator, Property.RECURRENT):
        widths = left.attributes["hidden_size"], right.attributes["hidden_size"]
        ours, theirs = (int(str(width)) for width in widths)
    else:
        assert weight.out_axis is not None
        ours, theirs = (
            shape[weight.out_axis] * (_group(core) if left.node.operator == "ConvTranspose" else 1)
            for shape, core in ((one, left), (two, right))
        )
    depthwise = fed and "group" in attributes
    if ours != theirs and not depthwise:
        result.append(Difference(*names, "width", str(ours), str(theirs), parameters=parameters))
        exchanged.add((ours, theirs))
    assert weight.in_axis is not None
    if one[weight.in_axis] != two[weight.in_axis] and not fed and not attributes & {"group", "direction"}:
        word = "vocabulary" if left.node.operator == "Gather" else "input width"
        into = [
            shape[weight.in_axis] * (_group(core) if left.node.operator == "Conv" else 1)
            for shape, core in ((one, left), (two, right))
        ]
        result.append(Difference(*names, word, str(into[0]), str(into[1]), parameters=parameters))
    return result


def _group(core: CoreNode) -> int:
    return int(str(core.attributes.get("group", 1)))


def _explained(
    left: CoreNode, right: CoreNode, difference: Difference, exchanged: set[tuple[int, int]]
) -> bool:
    """Whether a parameter that no data feeds, such as a position embedding, follows another layer's width."""
    role = difference.attribute.removesuffix(" shape")
    one, two = left.parameters[role][0], right.parameters[role][0]
    unlike = [(a, b) for a, b in zip(one, two, strict=False) if a != b]
    return len(one) == len(two) and exchanged.issuperset(unlike)


def _kinds(found: Sequence[Difference]) -> Iterator[Difference]:
    """Roles of one node that differ alike are one difference."""
    by_words: dict[tuple[str, str], list[Difference]] = {}
    for item in found:
        by_words.setdefault((item.expected, item.received), []).append(item)
    for items in by_words.values():
        roles = " and ".join(item.attribute.removesuffix(" kind") for item in items)
        yield replace(items[0], attribute=f"{roles} kind")
