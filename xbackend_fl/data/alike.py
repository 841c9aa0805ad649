"""What is found at several places and differs in figures only is said once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from xbackend_fl.errors import ConfigError, RefusedInput

_FIGURES = re.compile(r"'[^']*'|[-+]?\d[\d.,]*(?:e[-+]?\d+)?|\b(?:inf|nan|values?|rows?)\b")
_SHOWN = 3


def errors_once(found: Iterable[tuple[str, RefusedInput]]) -> Iterator[ConfigError]:
    """Errors, each with its place, as fewer that name all their places.

    Args:
        found: Places and errors; a message begins with its place and a colon.
    """
    errors = list(found)
    for index, others in _groups([(place, f"{error.message} {error.hint}") for place, error in errors]):
        error = errors[index][1]
        yield ConfigError(f"{error.message}{_likewise(errors[index][0], others)}", hint=error.hint)


def notes_once(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Notes, each with its place, as fewer that name all their places."""
    notes = list(found)
    for index, others in _groups(notes):
        yield f"{notes[index][1]}{_likewise(notes[index][0], others)}"


def _groups(texts: list[tuple[str, str]]) -> Iterator[tuple[int, list[str]]]:
    """The first text of each kind, and the places of the others."""
    kinds: dict[str, list[int]] = {}
    for index, (place, text) in enumerate(texts):
        kinds.setdefault(_FIGURES.sub("#", text.removeprefix(place)), []).append(index)
    for first, *others in kinds.values():
        yield first, [texts[index][0] for index in others]


def _likewise(place: str, others: list[str]) -> str:
    others = [other for other in dict.fromkeys(others) if other != place]
    if not others:
        return ""
    # Of one source, the name of the part is enough.
    source = place.rpartition(": ")[0]
    names = [other.removeprefix(f"{source}: ") if source else other for other in others]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" (likewise: {', '.join(names[:_SHOWN])}{more})"
