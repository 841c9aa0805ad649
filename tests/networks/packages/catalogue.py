"""Every pair of packages, by family."""

from __future__ import annotations

from tests.networks.packages import attention, convolutional, decoders, encoders, recommender, segmentation

FAMILIES = (encoders, decoders, attention, convolutional, segmentation, recommender)

PAIRS = tuple(pair for family in FAMILIES for pair in family.PAIRS)
