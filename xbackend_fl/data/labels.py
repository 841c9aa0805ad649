"""Targets that are text, as numbers of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xbackend_fl.data.column import Array
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError

_SHOWN = 20


def classes_of(where: str, found: Sequence[str], how: Reading) -> tuple[str, ...]:
    """The classes, in the order of their numbers.

    Args:
        where: Whose labels they are, for messages.
        found: Labels that occur.
        how: States the classes, perhaps.

    Raises:
        ConfigError: One that occurs is not stated; or none are, and others may have others.
    """
    ordered = sorted(set(found))
    if how.classes is None:
        if how.shared:
            return tuple(ordered)
        raise ConfigError(
            f"{where}: the classes are text ({_listed(ordered)}), and what one participant has alone does not tell the classes of all",
            hint=f"state them in the course, in one order for everybody: data.classes: [{', '.join(ordered)}]",
        )
    unknown = [name for name in ordered if name not in how.classes]
    if unknown:
        raise ConfigError(
            f"{where}: the class {unknown[0]!r} is not one of data.classes, which are {_listed(how.classes)}",
            hint="name it there, or leave its examples out",
        )
    return how.classes


def classes_note(where: str, classes: Sequence[str], how: Reading) -> str:
    """The note that says which class has which number."""
    numbered = _listed([f"{number} {name}" for number, name in enumerate(classes)])
    return f"{where}: classes {numbered}, {'as data.classes says' if how.classes else 'sorted by name'}"


def numbered(labels: Sequence[str], classes: Sequence[str]) -> Array:
    """The number of each label's class, ``[N]`` int64."""
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[label] for label in labels], np.int64)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
