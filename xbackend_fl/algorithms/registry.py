"""All algorithms by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.algorithms import kinds
from xbackend_fl.algorithms.algorithm import Algorithm
from xbackend_fl.locate import of_each_file

ALGORITHMS: Mapping[str, type[Algorithm]] = of_each_file(kinds, "ALGORITHM")
"""Algorithm by the name of its file, which courses write."""
