"""Area under the ROC curve: the share of pairs, one position of the class and one other, in which the first has the larger score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbackend_fl.metrics.ranking import Histogram, Ranking, parts


@dataclass(frozen=True)
class Auc(Ranking):
    """Ties count one half; of several classes, the mean of each against all others."""

    name: Literal["auc"] = "auc"

    def score(self, found: Histogram) -> tuple[float, float]:
        """See :class:`~xbackend_fl.metrics.ranking.Ranking`."""
        own, others = parts(found)
        pairs = own.sum() * others.sum()
        tied = float((own * others).sum() / pairs) / 2
        above = float((others * (np.cumsum(own) - own)).sum() / pairs)
        return above + tied, tied if found.shift else 0.0


METRIC = Auc
