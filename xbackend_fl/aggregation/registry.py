"""All ways to merge updates by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.aggregation import rules
from xbackend_fl.aggregation.aggregator import Rule
from xbackend_fl.registry import discover

AGGREGATORS: Mapping[str, type[Rule]] = discover(rules, "RULE")
"""Rule by the name of its file, which courses write."""
