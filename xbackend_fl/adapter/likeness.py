"""How much alike two names of inputs are."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_ALIKE = 0.6
"""From this share of equal letters on two names are alike."""


def likeness(one: str, two: str) -> float:
    """From 0 to 1: 1 for one name; the more words two names share, the more alike they are."""
    if not one or not two:
        return 0.0
    if one == two:
        return 1.0
    short, long = sorted((one.lower(), two.lower()), key=len)
    words = [{*re.split(r"[._\W]+", name)} - {"", "input", "inputs"} for name in (short, long)]
    if common := words[0] & words[1]:
        return 0.7 + 0.2 * len(common) / len(words[0] | words[1])
    if long.startswith(short):
        return 0.8
    share = SequenceMatcher(None, short, long).ratio()
    return share if share >= _ALIKE else 0.0
