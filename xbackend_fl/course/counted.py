"""``participants: {torch: 500, tensorflow: 500}``: that many named ones, written out, and back."""

from __future__ import annotations

from collections import Counter
from typing import Any

from xbackend_fl.course import compose
from xbackend_fl.course.diagnostics import mistake, refuse

MAX_COUNTED = 100_000
TOO_MANY_COUNTED = f"a course has at most {MAX_COUNTED} participants by number"


def written_out(value: Any) -> Any:
    """A number of participants per backend as a list of named ones; anything else as it is.

    Raises:
        ValidationError: It is too long, or a number is none.
    """
    if isinstance(value, list | dict) and len(value) > compose.MAX_PARTICIPANTS:
        refuse([mistake(f"{compose.TOO_MANY}, not {len(value)}", (), value)])
    if not isinstance(value, dict):
        return value
    refuse(
        [
            mistake(f"`participants.{backend}` is a number of participants, from 1", (backend,), count)
            for backend, count in value.items()
            if not isinstance(count, int) or isinstance(count, bool) or count < 1
        ]
    )
    total = sum(value.values())
    if total > MAX_COUNTED:
        refuse([mistake(f"{TOO_MANY_COUNTED}, not {total}", (), value)])
    return _named(value)


def counted(participants: list[dict[str, Any]]) -> list[dict[str, Any]] | dict[str, int]:
    """What :func:`written_out` makes a list of that is longer than a file may have; a shorter one stays, so that its entries can be named."""
    if len(participants) <= compose.MAX_PARTICIPANTS:
        return participants
    counts = dict(Counter(str(participant["backend"]) for participant in participants))
    return counts if _named(counts) == participants else participants


def _named(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"name": f"{backend}-{index:0{len(str(count))}d}", "backend": backend}
        for backend, count in counts.items()
        for index in range(1, count + 1)
    ]
