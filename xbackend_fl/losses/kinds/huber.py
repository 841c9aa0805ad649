"""Huber's loss of numbers: a square near the target and a line beyond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, LARGEST_TARGET, BuiltIn


@dataclass(frozen=True)
class Huber(BuiltIn):
    """``d ** 2 / 2`` for an error ``d`` of up to ``delta``, and ``delta * (|d| - delta / 2)`` beyond.

    Attributes:
        delta: Where the square becomes a line.
    """

    metric = "mae"
    name: Literal["huber"] = "huber"
    delta: Annotated[float, Gt(0), Le(1e6)] = 1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the largest output and target."""
        return 0.0, self.delta * (LARGEST_OUTPUT + LARGEST_TARGET)

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        size = ops.abs(outputs - targets)
        return ops.where(size < self.delta, 0.5 * size * size, self.delta * (size - 0.5 * self.delta))


LOSS = Huber
