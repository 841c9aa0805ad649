"""The loss, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.losses import LOSSES
from xbackend_fl.metrics.metric import mean
from xbackend_fl.metrics.pairs import Pairs


def _at(pairs: Pairs) -> NDArray[np.float64]:
    outputs, targets = pairs.outputs, pairs.targets
    match pairs.objective.loss:
        case "cross_entropy":
            shifted = outputs - outputs.max(1, keepdims=True)
            chosen = np.take_along_axis(shifted, targets[:, None], 1)[:, 0]
            return np.asarray(np.log(np.exp(shifted).sum(1)) - chosen)
        case "binary_cross_entropy":
            return np.asarray(np.maximum(outputs, 0) - outputs * targets + np.log1p(np.exp(-np.abs(outputs))))
        case "mean_squared_error":
            return np.asarray(np.square(outputs - targets))


METRIC = mean("loss", frozenset(LOSSES), _at)
