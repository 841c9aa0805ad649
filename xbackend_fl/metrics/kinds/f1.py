"""F1: the harmonic mean of precision and recall, of every class alone, and their mean (macro)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.metrics.overlap import Overlap


@dataclass(frozen=True)
class F1(Overlap):
    """``2 TP / (2 TP + FP + FN)``."""

    name: Literal["f1"] = "f1"


METRIC = F1
