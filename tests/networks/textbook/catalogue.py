"""Every pair, by family."""

from __future__ import annotations

from tests.networks.textbook import (
    channels,
    convolutional,
    forecast,
    gates,
    graphs,
    heads,
    masks,
    positions,
    recommend,
    recurrent,
    speech,
    text,
)

FAMILIES = (
    masks,
    positions,
    heads,
    gates,
    recurrent,
    convolutional,
    channels,
    graphs,
    recommend,
    forecast,
    speech,
    text,
)

PAIRS = tuple(pair for family in FAMILIES for pair in family.PAIRS)
