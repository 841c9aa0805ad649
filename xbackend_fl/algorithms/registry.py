"""All algorithms, and all server optimizers, by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.algorithms import kinds, servers
from xbackend_fl.algorithms.algorithm import Algorithm
from xbackend_fl.algorithms.server_optimizer import ServerOptimizer
from xbackend_fl.registry import discover

ALGORITHMS: Mapping[str, type[Algorithm]] = discover(kinds, "ALGORITHM")
"""Algorithm by the name of its file, which courses write."""

SERVERS: Mapping[str, type[ServerOptimizer]] = discover(servers, "SERVER")
"""Server optimizer by the name of its file, which courses write."""
