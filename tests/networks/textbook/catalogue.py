"""Every pair, by family."""

from __future__ import annotations

from tests.networks.textbook import (
    channels,
    codes,
    convolutional,
    forecast,
    functions,
    gates,
    graphs,
    heads,
    masks,
    positions,
    recommend,
    recurrent,
    speech,
    text,
    tokens,
    vision,
)

FAMILIES = (
    masks, positions, heads, gates, recurrent, convolutional, channels, graphs, recommend, forecast, speech, text,
    vision, tokens, functions, codes,
)  # fmt: skip

PAIRS = tuple(pair for family in FAMILIES for pair in family.PAIRS)
