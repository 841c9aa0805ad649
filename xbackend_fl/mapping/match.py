"""Finds which node of one graph is which node of the other, from structure alone.

Colour refinement (Weisfeiler & Leman 1968) over both graphs at once: a node's colour is what it is, then
what it reads and what reads it, until no colour splits any more. Data inputs and outputs are anchors,
input positions count except where an operator is commutative. What is still equal then is a symmetry:
one pair is fixed, recorded, and refinement goes on. Names and shapes alone never decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from xbackend_fl.mapping.skeleton import Bone, Edge, Skeleton


@dataclass(frozen=True)
class Matching:
    """A candidate node for every reference node.

    Attributes:
        pairs: Candidate index by reference index.
        symmetries: Names of reference nodes whose partner was one of several equal choices.
    """

    pairs: dict[int, int]
    symmetries: tuple[str, ...]


def match(reference: Skeleton, candidate: Skeleton, *, strict: bool = True) -> Matching | None:
    """Match two skeletons; ``None`` if they do not have the same structure.

    Args:
        reference: One graph.
        candidate: The other.
        strict: Attributes and parameters must agree too; without it only operators.
    """
    if len(reference.bones) != len(candidate.bones) or len(reference.outputs) != len(candidate.outputs):
        return None
    graphs = (reference, candidate)
    colours = tuple([_label(bone, strict=strict) for bone in graph.bones] for graph in graphs)
    symmetries: list[str] = []
    for fresh in range(len(reference.bones) + 1):
        left, right = _refine(graphs, colours)
        classes = _classes(left), _classes(right)
        if {c: len(m) for c, m in classes[0].items()} != {c: len(m) for c, m in classes[1].items()}:
            return None
        tie = next((colour for colour, members in classes[0].items() if len(members) > 1), None)
        if tie is None:
            pairs = {members[0]: classes[1][colour][0] for colour, members in classes[0].items()}
            return Matching(pairs, tuple(symmetries))
        first, second = classes[0][tie][0], classes[1][tie][0]
        symmetries.append(reference.bones[first].node.name)
        left[first] = right[second] = -1 - fresh
        colours = (list(left), list(right))
    return None


def _label(bone: Bone, *, strict: bool) -> Hashable:
    if not strict:
        return bone.node.operator
    shapes = tuple((role, bone.parameters[role][0]) for role in sorted(bone.parameters))
    return (bone.node.operator, shapes, tuple(sorted(bone.attributes.items())))


def _refine(
    graphs: tuple[Skeleton, Skeleton], labels: tuple[list[Hashable], ...]
) -> tuple[list[int], list[int]]:
    """Stable colours of both graphs; equal numbers mean equal colours in either graph."""
    readers = [_readers(graph) for graph in graphs]
    numbers: dict[Hashable, int] = {}
    colours = [[numbers.setdefault(label, len(numbers)) for label in graph] for graph in labels]
    while True:
        known: dict[Hashable, int] = {}
        new = [
            [
                known.setdefault(_signature(graph, index, colours[side], readers[side]), len(known))
                for index in range(len(graph.bones))
            ]
            for side, graph in enumerate(graphs)
        ]
        if len(known) == len({colour for side in colours for colour in side}):
            return new[0], new[1]
        colours = new


def _signature(
    graph: Skeleton, index: int, colours: list[int], readers: dict[int, list[tuple[int, int, int]]]
) -> Hashable:
    bone = graph.bones[index]

    def source(edge: Edge) -> tuple[int, int]:
        # Inputs are anchors: their negative index is their colour.
        return (edge.source if edge.source < 0 else colours[edge.source], edge.output)

    reads = [source(edge) for edge in bone.edges]
    if bone.commutative:
        reads.sort()
    read_by = sorted(
        (reader if reader < 0 else colours[reader], position, output)
        for reader, position, output in readers[index]
    )
    return (colours[index], tuple(reads), tuple(read_by))


def _readers(graph: Skeleton) -> dict[int, list[tuple[int, int, int]]]:
    """Who reads a node: (reader, position or -1 where it is free, output); outputs of the model are ``-1 - i``."""
    result: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for index, bone in enumerate(graph.bones):
        for position, edge in enumerate(bone.edges):
            result[edge.source].append((index, -1 if bone.commutative else position, edge.output))
    for index, edge in enumerate(graph.outputs):
        result[edge.source].append((-1 - index, 0, edge.output))
    return result


def _classes(colours: list[int]) -> dict[int, list[int]]:
    classes: dict[int, list[int]] = defaultdict(list)
    for index, colour in enumerate(colours):
        classes[colour].append(index)
    return classes
