"""Average precision: the mean, over the positions of the class, of the precision among all that score as much or more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.metrics.ranking import Histogram, Ranking, parts

Row = NDArray[np.float64]


@dataclass(frozen=True)
class AveragePrecision(Ranking):
    """As scikit-learn's, without interpolation; of several classes, the mean of each against all others."""

    name: Literal["average_precision"] = "average_precision"

    def score(self, found: Histogram) -> tuple[float, float]:
        """See :class:`~xbackend_fl.metrics.ranking.Ranking`."""
        own, others = parts(found)
        own_above, others_above = np.cumsum(own) - own, np.cumsum(others) - others
        share = own / own.sum()
        figure = float((share * _precision(own_above + own, others_above + others)).sum())
        if not found.shift:
            return figure, 0.0
        # Of a bin's positions the class's may all come first, or all last. Precision bends downwards in their number.
        best = _precision(own_above + (own + 1) / 2, others_above)
        worst = (
            _precision(own_above + 1, others_above + others)
            + _precision(own_above + own, others_above + others)
        ) / 2
        high, low = float((share * best).sum()), float((share * worst).sum())
        return figure, max(high - figure, figure - low)


def _precision(own: Row, others: Row) -> Row:
    total = own + others
    return np.divide(own, total, out=np.zeros_like(own), where=total > 0)


METRIC = AveragePrecision
