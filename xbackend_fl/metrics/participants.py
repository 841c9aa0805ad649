"""Figures over participants: how well a model does at the place where it will be used, and not only where most examples are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

import numpy as np

from xbackend_fl.metrics.metrics import Metrics

Over: TypeAlias = Literal["all", "mean", "worst_tenth"]
"""``all``: over all examples together. ``mean``: the mean of the participants' figures, each once. ``worst_tenth``: the mean over the tenth of them,
rounded up, where the figure is worst."""


def over_participants(found: Metrics) -> dict[str, dict[str, float]]:
    """``mean`` and ``worst_tenth`` of every figure, over the participants that have it; empty if nobody is known apart."""
    figures = [metrics.figures for metrics in found.each.values()]
    names = dict.fromkeys(name for one in figures for name in one)
    merged: Mapping[str, Callable[[np.ndarray[tuple[int], np.dtype[np.float64]]], np.floating]] = {
        "mean": np.mean,
        "worst_tenth": lambda ordered: np.mean(ordered[: math.ceil(len(ordered) / 10)]),
    }
    ordered = {
        name: _worst_first(found, name, (one[name] for one in figures if name in one)) for name in names
    }
    return {
        over: {name: float(merge(values)) for name, values in ordered.items()}
        for over, merge in merged.items()
        if ordered
    }


def _worst_first(
    found: Metrics, name: str, values: Iterable[float]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rising = np.sort(np.array([*values], np.float64))
    return rising if found.higher_is_better(name) else rising[::-1]
