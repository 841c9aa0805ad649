"""Networks of any size, for measurements."""

from __future__ import annotations

import math

import keras

INPUTS, CLASSES = 64, 10


def dense(values: float) -> keras.Model:
    """``[N, 64]`` to ``[N, 10]`` through three square layers, with about so many values."""
    width = round(math.sqrt(values / 3))
    layers = [keras.layers.Dense(width, activation="relu") for _ in range(4)]
    return keras.Sequential([keras.Input((INPUTS,)), *layers, keras.layers.Dense(CLASSES)])


def dense_1m() -> keras.Model:
    """A million values."""
    return dense(1e6)


def dense_10m() -> keras.Model:
    """Ten million values."""
    return dense(1e7)


def dense_100m() -> keras.Model:
    """A hundred million values."""
    return dense(1e8)


def dense_300m() -> keras.Model:
    """Three hundred million values."""
    return dense(3e8)
