"""Finds which node of one graph is which node of the other, from structure alone.

Colour refinement (Weisfeiler & Leman 1968) over both graphs at once: a node's colour is what it is, then
what it reads and what reads it. Graphs of models have no cycles, so one sweep in execution order colours a
node by everything before it, and one sweep back by everything behind it; a few sweeps settle all colours, and the
cost grows with the number of edges. Data inputs and outputs are anchors, input positions count except where an
operator is commutative, and nodes that share a parameter know each other. What is still equal then is a symmetry of
the structure: one pair is fixed, the choice is recorded, and refinement goes on. Where a choice turns out wrong, the
next one is tried.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from xbackend_fl.mapping.match.skeleton import CoreNode, Skeleton

Colours: TypeAlias = tuple[list[int], list[int]]
"""A colour for every node of the reference and of the candidate; equal numbers are equal colours."""

Resemblance: TypeAlias = Callable[[CoreNode, CoreNode], float]
"""How far apart two tied nodes are by something other than structure; the closest pair is tried first."""

ATTEMPTS = 256
"""How many choices among ties are tried before a pair counts as different."""


@dataclass(frozen=True)
class Matching:
    """A candidate node for every reference node.

    Attributes:
        pairs: Candidate index by reference index.
        symmetries: Reference node names whose partner was one of several that structure cannot tell apart.
        choices: For each of these, the place of the partner among the possible ones in their order, and how many there are.
    """

    pairs: dict[int, int]
    symmetries: tuple[str, ...] = ()
    choices: tuple[tuple[int, int], ...] = ()


def match(
    reference: Skeleton,
    candidate: Skeleton,
    *,
    strict: bool = True,
    resemblance: Resemblance | None = None,
    plan: Sequence[int] = (),
) -> Matching | None:
    """Match two skeletons; ``None`` if they do not have the same structure.

    Args:
        reference: One graph.
        candidate: The other.
        strict: Attributes, parameters and who shares them must agree too; without it only operators.
        resemblance: Orders the choices among ties, for example by gradients; names come after it.
        plan: Places of the partners that the first ties must take, as in :attr:`Matching.choices`; the others take the best.
    """
    if len(reference.core_nodes) != len(candidate.core_nodes) or len(reference.outputs) != len(
        candidate.outputs
    ):
        return None
    search = _Search((reference, candidate), resemblance or _no_resemblance, sharing=strict, plan=plan)
    labels = [[_label(core, strict=strict) for core in graph.core_nodes] for graph in (reference, candidate)]
    numbers: dict[Hashable, int] = {}
    first, second = ([numbers.setdefault(label, len(numbers)) for label in side] for side in labels)
    return search.run((first, second), ())


def ties(graph: Skeleton, known: Collection[str]) -> set[str]:
    """Names of the nodes that structure does not tell from others, once the places of the ``known`` ones are."""
    search = _Search((graph, graph), _no_resemblance, sharing=True)
    labels = [
        (_label(core, strict=True), index if core.node.name in known else -1)
        for index, core in enumerate(graph.core_nodes)
    ]
    numbers: dict[Hashable, int] = {}
    first = [numbers.setdefault(label, len(numbers)) for label in labels]
    left, _ = search.refine((first, first))
    return {
        graph.core_nodes[index].node.name
        for members in _classes(left).values()
        if len(members) > 1
        for index in members
    }


def _no_resemblance(_: CoreNode, __: CoreNode) -> float:
    return 0.0


@final
class _Search:
    """Refinement with bounded backtracking over ties."""

    def __init__(
        self,
        graphs: tuple[Skeleton, Skeleton],
        resemblance: Resemblance,
        *,
        sharing: bool,
        plan: Sequence[int] = (),
    ) -> None:
        self._graphs, self._plan = graphs, plan
        self._readers = [_readers(graph) for graph in graphs]
        self._sharers = [_sharers(graph) if sharing else {} for graph in graphs]
        self._resemblance = resemblance
        self._attempts = 0

    def run(
        self, colours: Colours, chosen: tuple[str, ...], choices: tuple[tuple[int, int], ...] = ()
    ) -> Matching | None:
        """Refine, fix the first tie, and go on."""
        left, right = self.refine(colours)
        classes = _classes(left), _classes(right)
        if {c: len(m) for c, m in classes[0].items()} != {c: len(m) for c, m in classes[1].items()}:
            return None
        core_nodes = self._graphs[0].core_nodes
        ties = [members for members in classes[0].values() if len(members) > 1]
        if not ties:
            pairs = {members[0]: classes[1][colour][0] for colour, members in classes[0].items()}
            return Matching(pairs, chosen, choices)
        # Nodes with parameters first: those have gradients to tell them apart, and often settle the others.
        first = min(ties, key=lambda members: (not core_nodes[members[0]].parameters, members))[0]
        ranked = list(enumerate(self._ranked(first, classes[1][left[first]])))
        if len(choices) < len(self._plan):
            place = self._plan[len(choices)]
            ranked = ranked[place : place + 1]
        for place, second in ranked:
            if self._attempts >= ATTEMPTS + len(chosen):
                return None
            fresh = max(*left, *right) + 1
            fixed = [*left], [*right]
            fixed[0][first] = fixed[1][second] = fresh
            taken = (*choices, (place, len(classes[1][left[first]])))
            found = self.run(fixed, (*chosen, core_nodes[first].node.name), taken)
            if found is not None:
                return found
            self._attempts += 1
        return None

    def _ranked(self, first: int, choices: Sequence[int]) -> list[int]:
        """The choices for a tied node: the closest by resemblance first, then by name, then by order."""
        ours = self._graphs[0].core_nodes[first]

        def rank(index: int) -> tuple[float, float]:
            theirs = self._graphs[1].core_nodes[index]
            alike = difflib.SequenceMatcher(None, ours.node.name, theirs.node.name).ratio()
            return (self._resemblance(ours, theirs), -alike)

        return sorted(choices, key=rank)

    def refine(self, colours: Colours) -> Colours:
        """Stable colours of both graphs."""
        current, count = colours, -1
        while True:
            for forward in (True, False):
                current = self._sweep(current, forward=forward)
            distinct = len({colour for side in current for colour in side})
            if distinct == count:
                return current
            count = distinct

    def _sweep(self, colours: Colours, *, forward: bool) -> Colours:
        """Colour each node by its colour and by the new colours of its sources, or of its readers."""
        numbers: dict[Hashable, int] = {}
        result: list[list[int]] = []
        for side, graph in enumerate(self._graphs):
            new = [0] * len(graph.core_nodes)
            order = range(len(graph.core_nodes)) if forward else range(len(graph.core_nodes) - 1, -1, -1)
            for index in order:
                around: Hashable = (
                    self._sources(graph.core_nodes[index], new)
                    if forward
                    else self._behind(side, index, new, colours[side])
                )
                new[index] = numbers.setdefault((colours[side][index], around), len(numbers))
            result.append(new)
        return result[0], result[1]

    def _sources(self, core: CoreNode, new: Sequence[int]) -> Hashable:
        # Inputs are anchors: their negative index is their colour.
        reads = [(edge.source if edge.source < 0 else new[edge.source], edge.output) for edge in core.edges]
        return tuple(sorted(reads) if core.commutative else reads)

    def _behind(self, side: int, index: int, new: Sequence[int], old: Sequence[int]) -> Hashable:
        readers = sorted(
            (reader if reader < 0 else new[reader], position, output)
            for reader, position, output in self._readers[side][index]
        )
        shared = sorted((role, old[other]) for role, other in self._sharers[side].get(index, ()))
        return (tuple(readers), tuple(shared))


def _label(core: CoreNode, *, strict: bool) -> Hashable:
    if not strict:
        return core.node.operator
    shapes = tuple((role, core.parameters[role][0]) for role in sorted(core.parameters))
    return (core.node.operator, shapes, tuple(sorted(core.attributes.items())))


def _readers(graph: Skeleton) -> Mapping[int, list[tuple[int, int, int]]]:
    """Who reads a node: (reader, position or -1 where it is free, output); outputs of the model are ``-1 - i``."""
    result: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for index, core in enumerate(graph.core_nodes):
        for position, edge in enumerate(core.edges):
            result[edge.source].append((index, -1 if core.commutative else position, edge.output))
    for index, edge in enumerate(graph.outputs):
        result[edge.source].append((-1 - index, 0, edge.output))
    return result


def _sharers(graph: Skeleton) -> Mapping[int, list[tuple[str, int]]]:
    """For every node the (role, node) that hold one of its parameters too."""
    holders: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for index, core in enumerate(graph.core_nodes):
        for role, name in core.node.parameters.items():
            holders[name].append((role, index))
    result: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for group in holders.values():
        for one, other in _ordered_pairs(group):
            result[one[1]].append((f"{one[0]} {other[0]}", other[1]))
    return result


def _ordered_pairs(group: Sequence[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    # A long unrolled loop shares everything with everything; neighbours are enough to tell the steps apart.
    near = group if len(group) <= 8 else None
    for place, one in enumerate(group):
        others = near if near is not None else (group[place - 1], group[(place + 1) % len(group)])
        for other in others:
            if other is not one:
                yield one, other


def _classes(colours: Sequence[int]) -> dict[int, list[int]]:
    classes: dict[int, list[int]] = defaultdict(list)
    for index, colour in enumerate(colours):
        classes[colour].append(index)
    return classes
