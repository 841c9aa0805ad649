"""All algorithms by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.algorithms import kinds
from xbackend_fl.algorithms.algorithm import Algorithm
from xbackend_fl.registry import discover

ALGORITHMS: Mapping[str, type[Algorithm]] = discover(kinds, "ALGORITHM")
"""Algorithm by the name of its file, which courses write."""
