"""Every pair, by family."""

from __future__ import annotations

from tests.networks.textbook import (
    builtin,
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
    spelled,
    text,
    tokens,
    vision,
)

FAMILIES = (
    masks, positions, heads, gates, recurrent, convolutional, channels, graphs, recommend, forecast, speech, text,
    vision, tokens, functions, codes, builtin, spelled,
)  # fmt: skip

PAIRS = tuple(pair for family in FAMILIES for pair in family.PAIRS)
