"""FedAdagrad (Reddi et al. 2021, algorithm 2): the second moment is the sum of ``delta**2``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.algorithms.adaptive import Adaptive
from xbackend_fl.algorithms.server_optimizer import Array


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Steps shorter by the root of all squared ways so far."""

    name: Literal["fedadagrad"] = "fedadagrad"

    def moment(self, second: Array, square: Array) -> Array:
        """See :class:`~xbackend_fl.algorithms.adaptive.Adaptive`."""
        return second + square


SERVER = FedAdagrad
