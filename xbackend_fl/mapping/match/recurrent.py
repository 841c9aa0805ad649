"""What tells recurrent networks apart: with what their layers begin, and in which direction a loop goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xbackend_fl.canonical import Property, has
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.skeleton import CoreNode, Edge, Skeleton

_STATES = ("sequence", "last state", "last memory")


def unlike_beginnings(reference: Skeleton, candidate: Skeleton) -> tuple[Difference, ...]:
    """Recurrent layers, in their order, that begin with other states; nothing if the two models have other layers.

    A layer of whose states nothing comes, an encoder, is left out where the other model has one more: the last ones are compared.
    """
    sides = [
        [core for core in graph.core_nodes if has(core.node.operator, Property.RECURRENT)]
        for graph in (reference, candidate)
    ]
    count = min(map(len, sides))
    sides = [core_nodes[len(core_nodes) - count :] for core_nodes in sides]
    if [core.node.operator for core in sides[0]] != [core.node.operator for core in sides[1]]:
        return ()
    return tuple(_beginnings(reference, candidate, *sides))


def _beginnings(
    reference: Skeleton, candidate: Skeleton, ours: Sequence[CoreNode], theirs: Sequence[CoreNode]
) -> Iterator[Difference]:
    places = [{id(core): index for index, core in enumerate(core_nodes)} for core_nodes in (ours, theirs)]
    for left, right in zip(ours, theirs, strict=True):
        one = [_source(reference, edge, places[0]) for edge in left.edges[1:]]
        two = [_source(candidate, edge, places[1]) for edge in right.edges[1:]]
        if one != two:
            names = left.node.name, right.node.name, left.node.operator
            yield Difference(*names, "initial state", _said(reference, left), _said(candidate, right))


def _source(graph: Skeleton, edge: Edge, places: dict[int, int]) -> tuple[object, ...]:
    """Where a state comes from, in words that both models share."""
    if edge.source < 0:
        return "input", -1 - edge.source
    place = places.get(id(graph.core_nodes[edge.source]))
    return ("computed",) if place is None else (place, edge.output)


def _said(graph: Skeleton, core: CoreNode) -> str:
    if len(core.edges) == 1:
        return "zeros"
    return " and ".join(_name(graph, edge) for edge in core.edges[1:])


def _name(graph: Skeleton, edge: Edge) -> str:
    if edge.source < 0:
        return f"input {-1 - edge.source}"
    core = graph.core_nodes[edge.source]
    what = f"{_STATES[edge.output]} of " if has(core.node.operator, Property.RECURRENT) else ""
    return f"{what}{core.node.operator} {core.node.name!r}"


def turned_loops(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """One difference of direction in place of steps that are picked from the other end, if these are all there is."""
    if len(found) < 2 or any((item.operator, item.attribute) != ("Select", "index") for item in found):
        return tuple(found)
    steps = [(int(item.expected), int(item.received)) for item in found]
    last = max(max(pair) for pair in steps) + 1
    ends = [tuple(last if step == -1 else step for step in pair) for pair in steps]
    if any(one + two != last for one, two in ends):
        return tuple(found)
    first, ways = found[0], ("from the start to the end", "from the end to the start")
    rises = [[pair[side] for pair in ends] == sorted(pair[side] for pair in ends) for side in (0, 1)]
    one, two = (ways[0] if rise else ways[1] for rise in rises)
    return (Difference(first.reference, first.candidate, first.operator, "direction", one, two),)
