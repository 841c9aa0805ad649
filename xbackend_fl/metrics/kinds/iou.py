"""Intersection over union (Jaccard) of what is chosen and what is there, of every class alone, and their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbackend_fl.metrics.overlap import Overlap, Row


@dataclass(frozen=True)
class Iou(Overlap):
    """``TP / (TP + FP + FN)``, over all positions of all examples, not a mean of images."""

    name: Literal["iou"] = "iou"

    def score(self, found: Row, chosen: Row, there: Row) -> Row:
        """See :class:`~xbackend_fl.metrics.overlap.Overlap`."""
        return np.asarray(found / (chosen + there - found))


METRIC = Iou
