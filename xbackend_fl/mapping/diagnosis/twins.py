"""Which values of two graphs are equal, and from where on none is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.graph import Graph

Array = NDArray[Any]

EQUAL = 1e-4
"""Largest relative difference of equal values."""


_ROUNDING = 1e-7
"""Differences that are nothing beside values near one."""


@dataclass(frozen=True)
class Parting:
    """Where one graph stops to agree with another.

    Attributes:
        region: Indices of the steps whose values the other graph has not, and from which an output follows through such steps alone.
        last: Values that agree and are read there.
    """

    region: tuple[int, ...]
    last: tuple[str, ...]


def twins(one: Mapping[str, Array], two: Mapping[str, Array]) -> dict[str, str]:
    """Values of one graph that the other has too, in any order of their elements, with the first that is equal."""
    by_size: dict[tuple[int, str], list[tuple[str, Array]]] = defaultdict(list)
    for name, array in two.items():
        by_size[array.size, _kind(array)].append((name, _sorted(array)))
    found: dict[str, str] = {}
    for name, array in one.items():
        mine = _sorted(array)
        twin = next((n for n, theirs in by_size[array.size, _kind(array)] if _equal(mine, theirs)), None)
        if twin is not None:
            found[name] = twin
    return found


def parting(graph: Graph, known: Mapping[str, str]) -> Parting:
    """The steps of a graph from which on it goes its own way.

    Args:
        graph: The graph.
        known: Its values that the other graph has too.
    """
    wanted = {port.name for port in graph.schema.outputs} - known.keys()
    region: list[int] = []
    for index in range(len(graph.steps) - 1, -1, -1):
        step = graph.steps[index]
        if wanted.isdisjoint(step.outputs):
            continue
        region.append(index)
        wanted |= {name for name in step.inputs if name not in known}
    region.reverse()
    made = {name for index in region for name in graph.steps[index].outputs}
    read = [name for index in region for name in graph.steps[index].inputs]
    last = dict.fromkeys(name for name in read if name in known and name not in made)
    return Parting(tuple(region), tuple(last))


def _kind(array: Array) -> str:
    return "f" if array.dtype.kind == "f" else "i"


def _sorted(array: Array) -> Array:
    found: Array = np.sort(array.astype(np.float64), axis=None)
    return found


def _equal(one: Array, two: Array) -> bool:
    """Whether sorted elements agree; what fills hidden places must not hide the others, so each counts by its own size."""
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        return False
    size = np.abs(one)
    usual = float(np.median(size)) if one.size else 0.0
    return bool((np.abs(one - two) <= EQUAL * (size + usual) + _ROUNDING).all())
