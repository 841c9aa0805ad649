"""All losses by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.losses import kinds
from xbackend_fl.losses.protocol import BuiltIn
from xbackend_fl.registry import discover_kinds

LOSSES: Mapping[str, type[BuiltIn]] = discover_kinds(kinds, "LOSS", BuiltIn)
"""Loss by the name of its file, which courses write."""
