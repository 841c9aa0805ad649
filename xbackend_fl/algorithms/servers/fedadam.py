"""FedAdam (Reddi et al. 2021, algorithm 2): the second moment is a decaying mean of ``delta**2``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.algorithms.adaptive import Adaptive
from xbackend_fl.algorithms.server_optimizer import Array
from xbackend_fl.registry import Decay


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """Steps shorter by the root of a mean of squared ways.

    Attributes:
        beta2: Decay of the second moment.
    """

    name: Literal["fedadam"] = "fedadam"
    beta2: Decay = 0.99

    def moment(self, second: Array, square: Array) -> Array:
        """See :class:`~xbackend_fl.algorithms.adaptive.Adaptive`."""
        return self.beta2 * second + (1.0 - self.beta2) * square


SERVER = FedAdam
