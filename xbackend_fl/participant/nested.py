"""Nested plain data as arrays by name, and back: what a user keeps is written as weights are, and reading it runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import UpdateRefused

Array = NDArray[Any]
_OUTLINE = "outline"
_DEEPEST = 64


def packed(
    value: Mapping[str, Any], array_of: Callable[[object], Array | None], where: str
) -> dict[str, Array]:
    """Nested data as arrays.

    Args:
        value: Numbers, texts, arrays and tensors in lists, tuples and dicts.
        array_of: A framework's tensor as an array; ``None`` for anything else.
        where: What messages call it.

    Raises:
        UpdateRefused: Something else is in it; the message says where.
    """
    arrays: dict[str, Array] = {}

    def outline(item: Any, place: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise UpdateRefused(f"left {place[:100]}… nested more than {_DEEPEST} levels deep")
        if item is None or type(item) in {bool, int, float, str}:
            return item
        if isinstance(item, list | tuple):
            inner = [outline(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(item)]
            return {"list" if isinstance(item, list) else "tuple": inner}
        if isinstance(item, Mapping):
            return {
                "dict": [
                    [
                        outline(key, f"a key of {place}", depth + 1),
                        outline(each, f"{place}[{key!r}]", depth + 1),
                    ]
                    for key, each in item.items()
                ]
            }
        plain = isinstance(item, np.ndarray | np.generic)
        found = np.asarray(item) if plain else array_of(item)
        if found is None or found.dtype.kind not in "biuf":
            kind = type(item).__name__ if found is None else f"{type(item).__name__} of {found.dtype}"
            raise UpdateRefused(
                f"left {place} as an object of {kind}, which cannot be kept",
                hint="keep numbers, texts, arrays and tensors, in lists, tuples and dicts",
            )
        name = str(len(arrays))
        arrays[name] = np.array(found)
        return {"array" if plain else "tensor": name}

    text = json.dumps(outline(dict(value), where, 0))
    return {_OUTLINE: np.frombuffer(text.encode(), np.uint8), **arrays}


def unpacked(arrays: Mapping[str, Array], tensor_of: Callable[[Array], Any]) -> dict[str, Any]:
    """What :func:`packed` made arrays of; nothing if there are none."""

    def built(item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        ((kind, inner),) = item.items()
        match kind:
            case "list":
                return [built(each) for each in inner]
            case "tuple":
                return tuple(built(each) for each in inner)
            case "dict":
                return {built(key): built(each) for key, each in inner}
            case "array":
                return arrays[inner].copy()
            case _:
                return tensor_of(arrays[inner])

    found: dict[str, Any] = built(json.loads(arrays[_OUTLINE].tobytes())) if arrays else {}
    return found
