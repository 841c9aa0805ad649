"""Nesterov's momentum over rounds, as DiLoCo has it (Douillard et al. 2023): ``v <- momentum * v + delta``, ``w + lr * (delta + momentum * v)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbackend_fl.algorithms.decaying import Decaying
from xbackend_fl.algorithms.server_optimizer import Array


@dataclass(frozen=True)
class NesterovServer(Decaying):
    """Steps along a decaying sum of the ways to the mean, looked ahead along.

    Attributes:
        momentum: Decay of the sum.
    """

    name: Literal["nesterov"] = "nesterov"

    def direction(self, delta: Array, first: Array) -> Array:
        """See :class:`~xbackend_fl.algorithms.decaying.Decaying`."""
        return np.asarray(delta + self.momentum * first)


SERVER = NesterovServer
