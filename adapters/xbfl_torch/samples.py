"""Networks of any size, for measurements."""

from __future__ import annotations

import math

from torch import nn

INPUTS, CLASSES = 64, 10


def dense(values: float) -> nn.Module:
    """``[N, 64]`` to ``[N, 10]`` through three square layers, with about so many values."""
    width = round(math.sqrt(values / 3))
    layers: list[nn.Module] = [nn.Linear(INPUTS, width), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def dense_1m() -> nn.Module:
    """A million values."""
    return dense(1e6)


def dense_10m() -> nn.Module:
    """Ten million values."""
    return dense(1e7)


def dense_100m() -> nn.Module:
    """A hundred million values."""
    return dense(1e8)


def dense_300m() -> nn.Module:
    """Three hundred million values."""
    return dense(3e8)
