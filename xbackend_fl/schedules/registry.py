"""All schedules by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.registry import discover
from xbackend_fl.schedules import kinds
from xbackend_fl.schedules.schedule import Schedule

SCHEDULES: Mapping[str, type[Schedule]] = discover(kinds, "SCHEDULE")
"""Schedule by the name of its file, which courses write."""
