"""Targets of several outputs as one array: a structured one, with a field for each, whose rows are taken as those of any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")


def joined(parts: Mapping[str, Array]) -> Array:
    """Arrays ``[N, ...]`` of one length as one structured array ``[N]`` with their names, shapes and dtypes, which holds copies; one without a name is itself."""
    if "" in parts:
        return parts[""]
    fields = [(name, array.dtype, array.shape[1:]) for name, array in parts.items()]
    found: Array = np.empty(len(next(iter(parts.values()))), np.dtype(fields))
    for name, array in parts.items():
        found[name] = array
    return found


def parts_of(targets: Array) -> dict[str, Array]:
    """The fields of targets by name (views); targets of one output under an empty name."""
    names = targets.dtype.names
    return {"": targets} if names is None else {name: targets[name] for name in names}


def each_of(targets: Array, function: Callable[[Array], T]) -> T | dict[str, T]:
    """What a function makes of targets: of those of one output, or of a copy of every field by name."""
    if targets.dtype.names is None:
        return function(targets)
    return {name: function(np.ascontiguousarray(array)) for name, array in parts_of(targets).items()}
