"""FedYogi (Reddi et al. 2021, algorithm 2): the second moment moves towards ``delta**2`` by its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbackend_fl.algorithms.adaptive import Adaptive
from xbackend_fl.algorithms.server_optimizer import Array
from xbackend_fl.registry import Decay


@dataclass(frozen=True)
class FedYogi(Adaptive):
    """Steps shorter by the root of a second moment that grows and falls alike.

    Attributes:
        beta2: Decay of the second moment.
    """

    name: Literal["fedyogi"] = "fedyogi"
    beta2: Decay = 0.99

    def moment(self, second: Array, square: Array) -> Array:
        """See :class:`~xbackend_fl.algorithms.adaptive.Adaptive`."""
        return np.asarray(second - (1.0 - self.beta2) * square * np.sign(second - square))


SERVER = FedYogi
