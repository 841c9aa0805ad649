"""Federated algorithms: arithmetic and names, without a framework."""

from xbackend_fl.algorithms.algorithm import Algorithm, PlainClient
from xbackend_fl.algorithms.fedopt import ServerOptimizer
from xbackend_fl.algorithms.protocol import (
    ClientAlgorithm,
    ClientState,
    LocalPlan,
    ServerAlgorithm,
    State,
    Trained,
)
from xbackend_fl.algorithms.registry import ALGORITHMS

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "ClientAlgorithm",
    "ClientState",
    "LocalPlan",
    "PlainClient",
    "ServerAlgorithm",
    "ServerOptimizer",
    "State",
    "Trained",
]
