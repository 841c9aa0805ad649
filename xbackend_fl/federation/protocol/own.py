"""What a silo's own training loop reports, as it comes from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xbackend_fl.errors import UpdateRefused
from xbackend_fl.text import line

_MAX, _LONGEST, _NOTES = 64, 60, 8


def own_figures(fields: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a message; nobody merges them, they are shown.

    Raises:
        UpdateRefused: They are not at most 64 finite numbers by name.
    """
    found = fields.get("figures", {})
    if not isinstance(found, dict) or len(found) > _MAX:
        raise UpdateRefused(f"the figures of its own are no mapping of at most {_MAX} numbers")
    for name, value in found.items():
        if type(value) not in {int, float} or not math.isfinite(value):
            raise UpdateRefused(f"the figure of its own {line(name, _LONGEST)!r} is no finite number")
    return {line(name, _LONGEST): float(value) for name, value in found.items()}


def own_notes(fields: Mapping[str, Any]) -> list[str]:
    """What a message's sender wants people to know; what is no text is left out."""
    found = fields.get("notes", [])
    return [text for text in found[:_NOTES] if isinstance(text, str)] if isinstance(found, list) else []
