"""Mean absolute error of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, LARGEST_TARGET, BuiltIn


@dataclass(frozen=True)
class MeanAbsoluteError(BuiltIn):
    """``|output - target|``."""

    metric = "mae"
    name: Literal["mean_absolute_error"] = "mean_absolute_error"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the largest output and target."""
        return 0.0, LARGEST_OUTPUT + LARGEST_TARGET

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        return ops.abs(outputs - targets)


LOSS = MeanAbsoluteError
