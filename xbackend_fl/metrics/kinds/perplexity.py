"""How many equally likely classes a model is as unsure as: the exponential of the mean cross entropy, without weights or smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.metric import Figures, Mean, MetricState
from xbackend_fl.metrics.pairs import Pairs

_MAX = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Perplexity(Mean):
    """``exp`` of the mean of ``-log p(class)``."""

    fits = frozenset({"classes"})
    upper_bound = 2 * float(np.finfo(np.float32).max)
    name: Literal["perplexity"] = "perplexity"

    def per_position(self, pairs: Pairs) -> NDArray[np.float64]:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        shifted = pairs.outputs - pairs.outputs.max(1, keepdims=True)
        chosen = np.take_along_axis(shifted, pairs.targets[:, None], 1)[:, 0]
        return np.asarray(np.log(np.exp(shifted).sum(1)) - chosen)

    def figure(self, mean: float) -> float:
        """See :class:`~xbackend_fl.metrics.metric.Mean`."""
        return math.exp(mean)

    def figures(self, state: MetricState) -> Figures:
        """None where the exponential has no float64."""
        if state.positions and state.sums[self.label] / state.positions > _MAX:
            return Figures({}, "perplexity is larger than float64 holds")
        return super().figures(state)


METRIC = Perplexity
