"""A small branch that one graph has and the other has not, or has otherwise: its value, put into the other graph, makes both agree.

What is behind the value is one function in both graphs then, and what is in front of the branch agrees already: the branch is all that differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.graph import SILENT, Graph, Step
from xbackend_fl.mapping.diagnosis.twins import Parting

Array = NDArray[Any]

_BRANCH = 8
"""Most steps of a branch that is a cause: what is longer is a place."""


@dataclass(frozen=True)
class Graft:
    """A value of one graph in the place of a value of the other.

    Attributes:
        side: The graph that takes it: 0 for the reference, 1 for the candidate.
        location: The value that it replaces there.
        readers: The steps that read it instead; all if there are none.
        source: The value of the other graph.
        gone: The steps that the taking graph has for it, from where both agree.
        new: The steps that the other graph has for it, from where both agree.
    """

    side: int
    location: str
    readers: tuple[int, ...]
    source: str
    gone: tuple[int, ...]
    new: tuple[int, ...]

    def steps(self, graph: Graph, array: Array) -> tuple[dict[int, tuple[Step, ...]], dict[str, Array]]:
        """The changed steps of the graph that takes the value, by index, and the constants that they read."""
        name = f"_grafted_{self.location}"
        if not self.readers:
            index = next(i for i, step in enumerate(graph.steps) if self.location in step.outputs)
            step = graph.steps[index]
            return {index: (Step("Identity", (name,), (self.location,), {}, step.owner),)}, {name: array}
        found: dict[int, tuple[Step, ...]] = {}
        for index in self.readers:
            step = graph.steps[index]
            inputs = tuple(name if read == self.location else read for read in step.inputs)
            found[index] = (replace(step, inputs=inputs),)
        return found, {name: array}


def grafts(
    graphs: tuple[Graph, Graph], partings: tuple[Parting, Parting], values: tuple[Mapping[str, Array], ...]
) -> Iterator[Graft]:
    """What may be taken from either graph into the other, the shortest branches first.

    Args:
        graphs: Reference and candidate.
        partings: Where each goes its own way.
        values: What each computes in one run.
    """
    found: list[tuple[int, Graft]] = []
    sides = [_places(graphs[side], partings[side]) for side in (0, 1)]
    for side in (1, 0):
        sources = [(name, branch) for name, readers, branch in sides[1 - side] if not readers]
        for place, readers, gone in sides[side]:
            for source, new in sources:
                if _fits(values[side].get(place), values[1 - side].get(source)):
                    one, two = _heard(graphs[side], gone), _heard(graphs[1 - side], new)
                    # The same operations on other data say nothing.
                    if len(one) + len(two) <= _BRANCH and sorted(one) != sorted(two):
                        found.append((len(one) + len(two), Graft(side, place, readers, source, gone, new)))
    yield from (graft for _, graft in sorted(found, key=lambda item: item[0]))


def fitted(array: Array, place: Array) -> Array:
    """A value of one graph in the shape of its place in the other."""
    return array.reshape(place.shape).astype(place.dtype)


def _places(graph: Graph, where: Parting) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Values by name, with the steps that read one where it agrees, and the steps that it takes where it does not."""
    inside = set(where.region)
    weights = {item.name for item in graph.schema.parameters}
    found: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    for name in where.last:
        readers = tuple(index for index in where.region if name in graph.steps[index].inputs)
        found.append((name, readers, ()))
        if len(readers) > 1:
            found += [(name, (index,), ()) for index in readers]
    for index in where.region:
        step = graph.steps[index]
        wanted, branch = set(step.inputs), [index]
        for before in range(index - 1, -1, -1):
            if before in inside and not wanted.isdisjoint(graph.steps[before].outputs):
                wanted |= set(graph.steps[before].inputs)
                branch.append(before)
        # Weights that are equal by shape make layers equal that are not the same.
        if weights.isdisjoint(name for each in branch for name in graph.steps[each].inputs):
            found += [(name, (), tuple(reversed(branch))) for name in step.outputs if name]
    return found


def _heard(graph: Graph, branch: Sequence[int]) -> list[str]:
    """Operators of a branch that do more than to move values."""
    return [graph.steps[i].operator for i in branch if graph.steps[i].operator not in SILENT]


def _fits(place: Array | None, source: Array | None) -> bool:
    if place is None or source is None or place.size <= 1 or place.size != source.size:
        return False
    kinds = (place.dtype.kind == "f") == (source.dtype.kind == "f")
    shapes = [[n for n in array.shape if n > 1] for array in (place, source)]
    return kinds and shapes[0] == shapes[1] and bool(np.isfinite(source.astype(np.float64)).all())
