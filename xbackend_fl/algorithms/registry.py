"""All algorithms, and all server optimizers, by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.algorithms import kinds, servers
from xbackend_fl.algorithms.algorithm import Algorithm
from xbackend_fl.algorithms.server_optimizer import ServerOptimizer
from xbackend_fl.registry import discover_kinds

ALGORITHMS: Mapping[str, type[Algorithm]] = discover_kinds(kinds, "ALGORITHM", Algorithm)
"""Algorithm by the name of its file, which courses write."""

SERVERS: Mapping[str, type[ServerOptimizer]] = discover_kinds(servers, "SERVER", ServerOptimizer)
"""Server optimizer by the name of its file, which courses write."""
