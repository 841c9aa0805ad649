"""Share of right predictions: by class, or by label where each label is a question of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.metric import Proportion
from xbackend_fl.metrics.pairs import Pairs


@dataclass(frozen=True)
class Accuracy(Proportion):
    """The largest score is the label's, of equal ones the first; a logit is on the target's side."""

    fits = frozenset({"classes", "shares"})
    name: Literal["accuracy"] = "accuracy"

    def per_position(self, pairs: Pairs) -> NDArray[np.bool_]:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        if pairs.objective.class_axis is not None:
            return np.asarray(pairs.outputs.argmax(1) == pairs.targets)
        # A logit above 0 is a probability above one half.
        return np.asarray((pairs.outputs > 0) == (pairs.targets > 0.5))


METRIC = Accuracy
