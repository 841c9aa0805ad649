"""Root of the mean squared error, in the unit of the targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.metric import Mean
from xbackend_fl.metrics.pairs import Pairs


@dataclass(frozen=True)
class Rmse(Mean):
    """The root of the mean square of the errors."""

    fits = frozenset({"values"})
    name: Literal["rmse"] = "rmse"

    def per_position(self, pairs: Pairs) -> NDArray[np.float64]:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        return np.asarray(np.square(pairs.outputs - pairs.targets))

    def figure(self, mean: float) -> float:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        return math.sqrt(mean)


METRIC = Rmse
