"""All losses by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.locate import discover
from xbackend_fl.losses import kinds
from xbackend_fl.losses.protocol import BuiltIn

LOSSES: Mapping[str, type[BuiltIn]] = discover(kinds, "LOSS")
"""Loss by the name of its file, which courses write."""
