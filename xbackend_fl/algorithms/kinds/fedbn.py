"""FedBN (Li et al. 2021, algorithm 1): normalisation layers stay with their participant, everything else is averaged.

Layers are chosen by their operator, not by their name: the authors' code looks for ``bn`` in names, and misses those of a shortcut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.algorithms.algorithm import Algorithm


@dataclass(frozen=True)
class FedBN(Algorithm):
    """FedAvg of all but scales, biases, means and variances of normalisation layers."""

    local = ("norm",)
    name: Literal["fedbn"] = "fedbn"


ALGORITHM = FedBN
