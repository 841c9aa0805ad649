"""Targets as they are handed over: one array, or one for each of several outputs that have a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackend_fl.data.arrays import to_array
from xbackend_fl.data.column import Array
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import joined


def apart(where: str, value: Any, heads: Sequence[str]) -> dict[str, Any]:
    """What was handed over for every head, by name; under an empty name where a course has one loss.

    Args:
        where: Whose targets they are, for messages.
        value: Anything for one loss. For several heads a dict, a data frame or a structured array with their names, or a tuple in their order.
        heads: Names of the heads; empty for one loss.

    Raises:
        ConfigError: It is something else, or has nothing for a head.
    """
    keys = _keys(value)
    if not heads:
        if keys is None or isinstance(value, np.ndarray) or hasattr(value, "__array__"):
            return {"": value}
        raise ConfigError(
            f"{where}: a {type(value).__name__} with the keys {', '.join(keys)}, and training.loss reads one array",
            hint=f"training: {{outputs: {{{', '.join(f'{key}: {{loss: …}}' for key in keys[:2])}}}}} for a loss of each",
        )
    if keys is not None:
        if missing := [name for name in heads if name not in keys]:
            raise ConfigError(
                f"{where}: nothing for {', '.join(missing)}, which training.outputs names; there {'is' if len(keys) == 1 else 'are'} {', '.join(keys)}",
                hint=f"{{{', '.join(f'{name!r}: …' for name in heads)}}}, one array of targets for every output",
            )
        return {name: value[name] for name in heads}
    if isinstance(value, tuple | list) and len(value) == len(heads) > 1:
        return dict(zip(heads, value, strict=True))
    if len(heads) == 1:
        return {heads[0]: value}
    raise ConfigError(
        f"{where}: one {type(value).__name__}, and training.outputs reads {', '.join(heads)}",
        hint=f"hand over inputs, {{{', '.join(f'{name!r}: …' for name in heads)}}}, or a tuple of targets in this order",
    )


def targets_of(where: str, value: Any, heads: Sequence[str]) -> tuple[dict[str, Array], list[str]]:
    """The same as arrays, and notes about what was read from something else; arguments and errors as of :func:`apart`."""
    found: dict[str, Array] = {}
    notes = []
    for name, part in apart(where, value, heads).items():
        array, note = to_array(part, named(where, name))
        # Longer floats have bytes that mean nothing, and a row of several targets is digested as it is.
        long = bool(name) and array.dtype.kind == "f" and array.dtype.itemsize > 8
        found[name] = array.astype(np.float64) if long else array
        notes += [note] if note else []
    if more := [key for key in _keys(value) or () if key not in found and heads]:
        notes.append(f"{where}: {', '.join(more)} {'is' if len(more) == 1 else 'are'} read by no loss")
    return found, notes


def named(where: str, name: str) -> str:
    """What messages call targets, or those of one head."""
    return f"{where}: {name}" if name else where


def of_one(where: str, targets: Array, heads: Sequence[str]) -> Array:
    """Targets of a source that has one for every example.

    Raises:
        ConfigError: There are several heads.
    """
    if len(heads) > 1:
        raise ConfigError(
            f"{where}: one target for every example, and training.outputs reads {', '.join(heads)}",
            hint=f"a table with a column for each of them, in which an image is its file's bytes: parquet:FILE#INPUT:{','.join(heads)}; "
            f"or data.py:load, a function that returns a data set of (input, {{{', '.join(f'{name!r}: …' for name in heads)}}})",
        )
    return joined({heads[0]: targets}) if heads else targets


def _keys(value: Any) -> list[str] | None:
    """The names of what has parts by name; ``None`` if it has none."""
    if isinstance(value, np.ndarray):
        return None if value.dtype.names is None else list(value.dtype.names)
    if callable(getattr(value, "keys", None)) and hasattr(value, "__getitem__"):
        return list(map(str, value.keys()))
    return None
