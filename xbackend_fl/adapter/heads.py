"""Several outputs of a model with a loss each, as training is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from xbackend_fl.losses import Loss


@dataclass(frozen=True)
class HeadConfig:
    """One of several outputs of which training minimises a loss each: the sum of all, each times its weight.

    Attributes:
        name: The field of the targets that it is compared with.
        output: Its place among the model's outputs.
        loss: Its loss.
        weight: What that counts in the sum.
        class_axis: Axis of the output that holds the classes, or the labels of an output ``[N, labels]``; native for a trainer.
        ignore_index: Targets of this value do not count; ``None`` if all do.
    """

    name: str
    output: int
    loss: Loss
    weight: float = 1.0
    class_axis: int = 1
    ignore_index: int | None = None


@runtime_checkable
class TrainsHeads(Protocol):
    """A trainer that can train several outputs with a loss each."""

    def trains_heads(self) -> str:
        """Why it cannot with this model; empty if it can."""
        ...
