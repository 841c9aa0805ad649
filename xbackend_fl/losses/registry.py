"""All losses by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.locate import of_each_file
from xbackend_fl.losses import kinds
from xbackend_fl.losses.protocol import BuiltIn

LOSSES: Mapping[str, type[BuiltIn]] = of_each_file(kinds, "LOSS")
"""Loss by the name of its file, which courses write."""
