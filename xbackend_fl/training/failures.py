"""Turns whatever a user's model raises during a course into one line that says when and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from xbackend_fl.errors import RunFailed, XbflError, raised
from xbackend_fl.places import place_of

_NAMED = 3
"""Participants that a message names."""


@contextmanager
def failing(when: str) -> Iterator[None]:
    """End a course in one line, whatever the block raises; the cause stays attached.

    Args:
        when: What was done, for whom and in which round: ``while training participant 'a' (torch) in round 1``.

    Raises:
        RunFailed: The block raised something that is no error of the toolkit, or wanted to end the program. Only a
            KeyboardInterrupt goes on: it is the person's at the keyboard.
    """
    try:
        yield
    except (XbflError, KeyboardInterrupt):
        raise
    except BaseException as error:
        place = place_of(error)
        raise RunFailed(raised(f"{when} the model", error, f"at {place}" if place else "")) from error


def training(number: int, names: Sequence[str], backend: str) -> str:
    """The words for the training of some participants in a round."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    who = ", ".join(map(repr, names[:_NAMED])) + more
    return f"while training participant{'s' if len(names) > 1 else ''} {who} ({backend}) in round {number}"
