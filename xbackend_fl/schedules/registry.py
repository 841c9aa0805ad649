"""All schedules by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.registry import discover_kinds
from xbackend_fl.schedules import kinds
from xbackend_fl.schedules.schedule import Schedule

SCHEDULES: Mapping[str, type[Schedule]] = discover_kinds(kinds, "SCHEDULE", Schedule)
"""Schedule by the name of its file, which courses write."""
