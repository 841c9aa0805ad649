"""Mean absolute error, in the unit of the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.metric import Mean
from xbackend_fl.metrics.pairs import Pairs


@dataclass(frozen=True)
class Mae(Mean):
    """The mean size of the errors."""

    fits = frozenset({"values"})
    name: Literal["mae"] = "mae"

    def per_position(self, pairs: Pairs) -> NDArray[np.float64]:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        return np.asarray(np.abs(pairs.outputs - pairs.targets))


METRIC = Mae
