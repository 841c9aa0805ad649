"""Root of the mean squared error, in the unit of the targets."""

from __future__ import annotations

import numpy as np

from xbackend_fl.metrics.metric import mean

METRIC = mean(
    "rmse",
    frozenset({"values"}),
    lambda pairs: np.square(pairs.outputs - pairs.targets),
    root=True,
)
