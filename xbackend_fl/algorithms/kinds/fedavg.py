"""FedAvg (McMahan et al. 2017, algorithm 1): the mean of the participants' weights, by their examples.

With another ``federate.server`` than ``fedavg`` it is FedOpt (Reddi et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbackend_fl.algorithms.algorithm import Algorithm


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """Everybody trains from the same weights, and the mean is what the server goes on from."""

    name: Literal["fedavg"] = "fedavg"


ALGORITHM = FedAvg
