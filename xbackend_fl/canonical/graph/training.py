"""What an adapter says of training: places that drop, statistics that stay, and effects that no node has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xbackend_fl.canonical.graph.builder import GraphBuilder
from xbackend_fl.canonical.layout import Layout, leaves
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.schema import TrainingEffect
from xbackend_fl.canonical.value import Value


def dropout(
    builder: GraphBuilder, name: str, value: Value, ratio: float, shared: Iterable[int], origin: str
) -> Value:
    """A place that drops.

    Args:
        builder: Receives the node.
        name: Wanted name.
        value: What it reads.
        ratio: Its rate.
        shared: Native axes along which one draw counts for all.
        origin: Native place: one for places that have one rate.
    """
    axes = tuple(sorted(value.perm[axis] for axis in shared))
    attributes: dict[str, AttributeValue] = {"ratio": ratio, "shared_axes": axes}
    (out,) = builder.add("Dropout", name, [value], [value.shape], attributes=attributes, origin=origin)
    return replace(value, name=out)


def keep_statistics(builder: GraphBuilder, layouts: Iterable[Layout | None]) -> None:
    """Say that training reads these running statistics and never moves them."""
    found = (leaf.tensor for layout in layouts if layout is not None for leaf in leaves(layout))
    builder.recorder.kept.update(found)


def add_effects(
    builder: GraphBuilder, effects: Iterable[TrainingEffect], unlike: object | None = None
) -> None:
    """Say what the native model does in training that its graph does not say; ``unlike`` is why it cannot train at all."""
    builder.recorder.training_effects += effects
    if unlike is not None:
        builder.inference_only(str(unlike))
