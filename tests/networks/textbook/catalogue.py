"""Every pair, by family."""

from __future__ import annotations

from tests.networks.textbook import gates, heads, masks, positions, recurrent

PAIRS = (*masks.PAIRS, *positions.PAIRS, *heads.PAIRS, *gates.PAIRS, *recurrent.PAIRS)
