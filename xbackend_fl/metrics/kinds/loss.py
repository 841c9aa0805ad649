"""The loss, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.losses import NumpyOperations
from xbackend_fl.metrics.metric import ANY, mean
from xbackend_fl.metrics.pairs import Pairs


def _at(pairs: Pairs) -> NDArray[np.float64]:
    found: NDArray[np.float64] = pairs.objective.loss.each(pairs.outputs, pairs.targets, NumpyOperations())
    return found


METRIC = mean("loss", ANY, _at)
