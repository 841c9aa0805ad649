"""Tables that both graphs have, and that differ in entries which no draw need read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.probe.frozen import FrozenValues
from xbackend_fl.mapping.probe.lookups import constants_of, lookups_of, unlike

Array = NDArray[Any]


def unlike_constants(schema: Schema, own: Schema, frozen: FrozenValues | None) -> Iterator[Difference]:
    """Tables of which the two models have the same values, but for a few.

    Args:
        schema: The reference's schema.
        own: The candidate's.
        frozen: What both models keep as it is, if they do: a table of the one may be a constant of the other.
    """
    yield from _apart(lookups_of(schema), lookups_of(own))
    if frozen:
        yield from _apart(frozen.values, constants_of(own))
        yield from _apart(constants_of(schema), frozen.own_values)


def _apart(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Iterator[Difference]:
    for name, twin in unlike(ours, theirs):
        place = twin.apart
        if place is not None:
            expected, received = (f"{array[place].item():g}" for array in (ours[name], twin.values))
            yield Difference(name, twin.name, "Constant", "entry", f"{expected} at {list(place)}", received)
