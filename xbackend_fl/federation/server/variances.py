"""Whose variances are unlike the others'.

They divide, so that it is their ratio that counts: a change from 1 to 0 is short, and leaves a net that nobody can use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.weights import Weights

Logs = Mapping[str, NDArray[Any]]
"""By array, the decimal logarithms of a sample of its variances."""

_LEAST = 1e-12
_FLOOR = -5.0
"""Below ``1e-5``, what layers add to a variance, smaller is the same."""
_FAR = 3.0
"""Orders of magnitude from which a variance is unlike the others'."""
_PART = 0.25
"""Share of an array's values that must be so: single channels of an honest silo may be dead."""
_TOO_SMALL, _TOO_LARGE = -5.5, 6.0
"""Orders of magnitude at which nothing is left of a layer. Data in a thousand times larger units have a million times the variance."""
_KNOWN = -3.0
"""The others' logarithm from which it is certain that theirs is no dead channel."""


def logs_of(update: Weights, names: Collection[str], sample_size: int) -> dict[str, NDArray[Any]]:
    """Logarithms of evenly spaced variances of an update, about ``most`` of all, at least one of each array."""
    found = {name: update[name].reshape(-1) for name in sorted(names) if name in update and update[name].size}
    step = max(1, sum(array.size for array in found.values()) // sample_size)
    return {
        name: np.log10(np.maximum(array[::step].astype(np.float64), _LEAST)) for name, array in found.items()
    }


def far(own: Logs, others: Sequence[Logs]) -> Iterator[tuple[float, str]]:
    """The array of variances that is most unlike the others', if there is one: how many times it is, and the same in words.

    Args:
        own: Of one update.
        others: Of the others; two at least, since of two nobody can tell which is unlike.
    """
    found: list[tuple[float, str]] = []
    for name, logs in own.items() if len(others) > 1 else ():
        median = np.median([other[name] for other in others], axis=0)
        off = np.maximum(logs, _FLOOR) - np.maximum(median, _FLOOR)
        count = int((np.abs(off) >= _FAR).sum())
        if count > _PART * off.size:
            typical, usual = float(np.median(logs)), float(np.median(median))
            times = 10 ** float(np.median(np.abs(off[np.abs(off) >= _FAR])))
            shown = "0" if 10**typical <= _LEAST else f"{10**typical:.1e}"
            how = f"has variances of {shown} in {name!r}, where the median of the others' is {10**usual:.1e}"
            part = "" if count == off.size else f", and so unlike theirs are {count} of {off.size}"
            found.append((times, how + part))
    if found:
        yield max(found)


def leave_nothing(own: Logs, others: Sequence[Logs]) -> bool:
    """Whether most of all variances are such that nothing is left of their layers, and the others' are not."""
    bad = count = 0
    for name, logs in own.items() if len(others) > 1 else ():
        median = np.median([other[name] for other in others], axis=0)
        is_large = logs - np.maximum(median, _FLOOR) > _TOO_LARGE
        bad += int((is_large | ((logs - median < _TOO_SMALL) & (median > _KNOWN))).sum())
        count += logs.size
    return 2 * bad > count
