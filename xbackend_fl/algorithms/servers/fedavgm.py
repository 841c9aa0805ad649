"""FedAvg with momentum over rounds (Hsu et al. 2019): ``v <- momentum * v + delta``, ``w + lr * v``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.algorithms.decaying import Decaying
from xbackend_fl.algorithms.server_optimizer import Array


@dataclass(frozen=True)
class FedAvgM(Decaying):
    """Steps along a decaying sum of the ways to the mean.

    Attributes:
        momentum: Decay of the sum.
    """

    name: Literal["fedavgm"] = "fedavgm"

    def direction(self, delta: Array, first: Array) -> Array:
        """See :class:`~xbackend_fl.algorithms.decaying.Decaying`."""
        del delta
        return first


SERVER = FedAvgM
