"""Poisson's loss of counts: the model gives the logarithm of the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from xbackend_fl.losses.operations import Operations
from xbackend_fl.losses.protocol import BuiltIn


@dataclass(frozen=True)
class Poisson(BuiltIn):
    """``exp(output) - target * output``: the negative logarithm of the probability but for ``log(target!)``, so that it may be below zero."""

    targets = "counts"
    name: Literal["poisson"] = "poisson"

    @property
    def bounds(self) -> tuple[float, float]:
        """A rate has no upper bound."""
        return -math.inf, math.inf

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """See :class:`~xbackend_fl.losses.protocol.Loss`."""
        return ops.exp(outputs) - targets * outputs


LOSS = Poisson
