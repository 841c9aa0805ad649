"""What several passes ask of a graph."""

from __future__ import annotations

from xbackend_fl.canonical.draft import Draft
from xbackend_fl.canonical.ops import OPERATORS


def features_first(draft: Draft) -> bool:
    """Whether a node is a linear layer whose parameters have its features as axis 0."""
    return OPERATORS[draft.operator].features_first


def feature_axis(linear: Draft) -> int:
    """Axis of the features that a linear layer makes."""
    axis = OPERATORS[linear.operator].feature_axis
    assert axis is not None
    return axis % len(linear.shape)


def bounds(cut: Draft) -> tuple[int, int]:
    """Start and stop of a Slice."""
    start, stop = cut.attributes["start"], cut.attributes["stop"]
    assert isinstance(start, int)
    assert isinstance(stop, int)
    return start, stop
