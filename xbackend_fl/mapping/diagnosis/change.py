"""A small change of a graph, and what it may be made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.graph import Graph, Step

Array = NDArray[Any]

_POOL = 24
"""Most numbers of the other graph that are tried in one place."""

HIDES = -1e9
"""What is added to a score that nobody is to see."""


@dataclass(frozen=True)
class Change:
    """What is written otherwise at one step.

    Attributes:
        index: The step.
        new: What stands there instead.
        what: An attribute, ``constant``, ``upper bound``, ``lower bound``, ``operation``, ``order``, ``input`` or ``presence``.
        old_words: What is there, in words.
        new_words: What stands there instead, in words.
        constants: Constants that the new steps read.
        left_out: Steps that nothing reads any more, in order.
    """

    index: int
    new: tuple[Step, ...]
    what: str
    old_words: str
    new_words: str
    constants: Mapping[str, Array] = field(default_factory=dict)
    left_out: tuple[Step, ...] = ()


Changes: TypeAlias = Iterator[Change]


class Pool:
    """What the other graph is made of: the numbers, constants and attributes that may stand here as well.

    Args:
        graph: The other graph.
    """

    def __init__(self, graph: Graph) -> None:
        numbers: dict[float, None] = {}
        self.constants: list[Array] = []
        self._sets: dict[str, list[Mapping[str, Any]]] = {}
        self._attributes: dict[tuple[str, str], dict[str, Any]] = {}
        for step in graph.steps:
            for name in step.inputs:
                array = graph.constants.get(name)
                if array is None:
                    continue
                if array.size == 1:
                    numbers.setdefault(float(array.reshape(()).item()))
                else:
                    self.constants.append(array)
            sets = self._sets.setdefault(step.operator, [])
            if step.attributes not in sets:
                sets.append(step.attributes)
            for name, value in step.attributes.items():
                if isinstance(value, float):
                    numbers.setdefault(value)
                self._attributes.setdefault((step.operator, name), {})[repr(value)] = value
        finite = (n if math.isfinite(n) else math.copysign(HIDES, n) for n in numbers if not math.isnan(n))
        self.numbers = tuple(islice(dict.fromkeys(finite), _POOL))

    def sets(self, operator: str) -> Sequence[Mapping[str, Any]]:
        """All attributes of an operator together, as they are there."""
        return self._sets.get(operator, [])

    def attributes(self, operator: str, name: str) -> list[Any]:
        """The values that an attribute of an operator has there."""
        return list(self._attributes.get((operator, name), {}).values())


def words(value: object) -> str:
    """A number, a list or a word, short."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value)
