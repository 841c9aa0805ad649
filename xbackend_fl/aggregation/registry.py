"""All ways to merge updates by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.aggregation import rules
from xbackend_fl.aggregation.aggregator import Rule
from xbackend_fl.registry import discover_kinds

AGGREGATORS: Mapping[str, type[Rule]] = discover_kinds(rules, "RULE", Rule)
"""Rule by the name of its file, which courses write."""
