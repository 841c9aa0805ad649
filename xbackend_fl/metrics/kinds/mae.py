"""Mean absolute error, in the unit of the targets."""

from __future__ import annotations

import numpy as np

from xbackend_fl.metrics.metric import mean

METRIC = mean("mae", frozenset({"values"}), lambda pairs: np.abs(pairs.outputs - pairs.targets))
