"""Every pair of packages, by family."""

from __future__ import annotations

from tests.networks.packages import (
    attention,
    convolutional,
    decoders,
    encoders,
    images,
    recommender,
    segmentation,
)

FAMILIES = (encoders, decoders, attention, convolutional, images, segmentation, recommender)

PAIRS = tuple(pair for family in FAMILIES for pair in family.PAIRS)
