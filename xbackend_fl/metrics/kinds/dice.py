"""Dice coefficient of what is chosen and what is there: F1 of positions, as segmentation calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.metrics.overlap import Overlap


@dataclass(frozen=True)
class Dice(Overlap):
    """``2 TP / (2 TP + FP + FN)``, over all positions of all examples, not a mean of images."""

    name: Literal["dice"] = "dice"


METRIC = Dice
