"""All losses by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.losses import kinds
from xbackend_fl.losses.protocol import BuiltIn
from xbackend_fl.registry import discover

LOSSES: Mapping[str, type[BuiltIn]] = discover(kinds, "LOSS")
"""Loss by the name of its file, which courses write."""
