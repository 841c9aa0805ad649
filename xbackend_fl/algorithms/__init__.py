"""Federated algorithms: arithmetic and names, without a framework."""

from xbackend_fl.algorithms.algorithm import Algorithm, PlainClient
from xbackend_fl.algorithms.protocol import (
    ClientAlgorithm,
    ClientState,
    LocalPlan,
    ServerAlgorithm,
    State,
    Trained,
)
from xbackend_fl.algorithms.registry import ALGORITHMS, SERVERS
from xbackend_fl.algorithms.server_optimizer import ServerOptimizer

__all__ = [
    "ALGORITHMS",
    "SERVERS",
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
