"""Bounds in seconds that follow the machine: one may be ten times slower than the one for which they are given."""

from __future__ import annotations

import time


def slowness() -> float:
    """How much longer than on the machine for which bounds are given (0.6 s) it now takes to count and to make small objects."""
    began, total = time.process_time(), 0
    for value in range(2_000_000):
        total += value
    lists = [[value] for value in range(1_000_000)]
    names = {str(value): value for value in range(300_000)}
    assert len(lists) + len(names) == 1_300_000
    return max(1.0, (time.process_time() - began) / 0.6)


def within(took: float, seconds: float) -> bool:
    """Whether ``took`` seconds of processor are less than a bound; a slow machine is asked for only if they are not."""
    return took < seconds or took < seconds * slowness()
