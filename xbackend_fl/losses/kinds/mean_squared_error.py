"""Mean squared error of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import LARGEST_OUTPUT, LARGEST_TARGET, BuiltIn, Kernel


@dataclass(frozen=True)
class MeanSquaredError(BuiltIn):
    """``(output - target) ** 2``."""

    metric = "rmse"
    name: Literal["mean_squared_error"] = "mean_squared_error"

    @property
    def kernel(self) -> Kernel | None:
        """One of every framework's."""
        return "squared_error"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the largest output and target."""
        return 0.0, (LARGEST_OUTPUT + LARGEST_TARGET) ** 2

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        return ops.squared_error(outputs, targets)


LOSS = MeanSquaredError
