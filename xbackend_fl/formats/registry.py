"""All formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from xbackend_fl.formats import kinds
from xbackend_fl.formats.format import Format
from xbackend_fl.registry import discover

FORMATS: Mapping[str, Format] = {item.name: item for item in discover(kinds, "FORMAT").values()}
"""Format by the name of its file, with hyphens."""
