"""Every pair, by family."""

from __future__ import annotations

from tests.networks.textbook import masks, positions

PAIRS = (*masks.PAIRS, *positions.PAIRS)
