"""Share of right predictions: by class, or by label where each label is a question of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.metric import mean
from xbackend_fl.metrics.pairs import Pairs


def _at(pairs: Pairs) -> NDArray[np.bool_]:
    if pairs.objective.class_axis is not None:
        return np.asarray(pairs.outputs.argmax(1) == pairs.targets)
    # A logit above 0 is a probability above one half.
    return np.asarray((pairs.outputs > 0) == (pairs.targets > 0.5))


METRIC = mean(
    "accuracy",
    frozenset({"classes", "shares"}),
    _at,
    higher_is_better=True,
    unit="share",
    counts=True,
)
