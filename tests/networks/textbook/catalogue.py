"""Every pair, by family."""

from __future__ import annotations

from tests.networks.textbook import channels, convolutional, gates, heads, masks, positions, recurrent

FAMILIES = (masks, positions, heads, gates, recurrent, convolutional, channels)

PAIRS = tuple(pair for family in FAMILIES for pair in family.PAIRS)
