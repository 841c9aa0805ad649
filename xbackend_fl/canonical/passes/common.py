"""What several passes ask of a graph."""

from __future__ import annotations

from xbackend_fl.canonical.draft import Draft

LINEAR = frozenset({"Gemm", "Conv"})
"""Operators whose parameters have their features as axis 0."""


def feature_axis(linear: Draft) -> int:
    """Axis of the features that a linear layer makes."""
    return len(linear.shape) - 1 if linear.operator == "Gemm" else 1


def bounds(cut: Draft) -> tuple[int, int]:
    """Start and stop of a Slice."""
    start, stop = cut.attributes["start"], cut.attributes["stop"]
    assert isinstance(start, int)
    assert isinstance(stop, int)
    return start, stop
