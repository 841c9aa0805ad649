"""Arithmetic of vectors over the trainable parameters of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind
from xbackend_fl.weights import Weights


def trainable(weights: Weights) -> Weights:
    """The trainable parameters alone, the same arrays."""
    return vector(weights, weights)


def vector(like: Weights, arrays: Mapping[str, NDArray[Any]]) -> Weights:
    """Arrays as a vector over the trainable parameters of ``like``."""
    names = [name for name, kind in like.kinds.items() if kind is Kind.TRAINABLE and name in like]
    return Weights({name: arrays[name] for name in names}, like.fingerprint)


def zeros(like: Weights) -> Weights:
    """Zero, over the trainable parameters of ``like``."""
    return vector(like, {name: np.zeros_like(array) for name, array in like.items()})
