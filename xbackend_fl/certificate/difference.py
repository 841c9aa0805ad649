"""Where two protobuf messages differ first, in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from xbackend_fl.text import line

_SHOWN = 40


def difference(found: Any, expected: Any) -> str:
    """The first place where a message is another one than expected.

    Args:
        found: A message of protobuf.
        expected: One of the same type.

    Returns:
        Fields from the outside in, what is there and what was expected; empty if both are the same bytes.
    """
    if _bytes(found) == _bytes(expected):
        return ""
    for field in found.DESCRIPTOR.fields:
        one, two = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, int | float | str | bytes):
            place = _of_values(one, two)
        elif field.has_presence:
            place = difference(one, two)
        else:
            place = _of_lists(one, two)
        if not place and field.has_presence and found.HasField(field.name) != expected.HasField(field.name):
            place = "is there, expected missing" if found.HasField(field.name) else "is missing"
        if place:
            return place if field.name == "graph" else f"{field.name} {place}"
    return "holds fields that this version of protobuf's description does not know"


def _of_lists(found: Sequence[Any], expected: Sequence[Any]) -> str:
    for index, (one, two) in enumerate(zip_longest(found, expected)):
        if one is None or two is None or _named(one) != _named(two):
            return f"{index} is {_named(one)}, expected {_named(two)}"
        if hasattr(one, "DESCRIPTOR") and (place := difference(one, two)):
            return f"{index} ({_named(one)}): {place}"
    return ""


def _of_values(found: object, expected: object) -> str:
    # -0.0 equals 0.0 and is something else; NaN equals nothing.
    if found == expected if not isinstance(found, float) else repr(found) == repr(expected):
        return ""
    one, two = (line(repr(item), _SHOWN) for item in (found, expected))
    return "is other bytes than expected" if one == two else f"is {one}, expected {two}"


def _named(item: Any) -> str:
    """A message by its operator and name, a value by itself."""
    if item is None:
        return "missing"
    if not hasattr(item, "DESCRIPTOR"):
        return line(repr(item), _SHOWN)
    operator, name = getattr(item, "op_type", ""), getattr(item, "name", None)
    if name is None:
        name = getattr(item, "domain", getattr(item, "key", ""))
    return " ".join(filter(None, (line(operator, 40), repr(line(name, 80)))))


def _bytes(item: Any) -> bytes:
    return bytes(item.SerializeToString(deterministic=True))
