"""Arrays of counts as text, in which they cross the wire beside plain numbers."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import UpdateRefused

_BYTES = 8


def to_text(counts: NDArray[np.int64]) -> str:
    """A flat array in base 64, little-endian."""
    return base64.b64encode(counts.astype("<i8").tobytes()).decode()


def from_text(name: str, text: str, max_counts: int) -> NDArray[np.int64]:
    """The inverse of :func:`to_text`, for what may be anything.

    Args:
        name: What messages call the array.
        text: The text.
        max_counts: Most numbers that it may have.

    Raises:
        UpdateRefused: It is no such text.
    """
    if len(text) > 4 * (max_counts * _BYTES // 3 + 1):
        raise UpdateRefused(f"{name} holds more than {max_counts:,} counts, which no data give")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UpdateRefused(f"{name} is no array of counts: {error}") from error
    if len(data) % _BYTES:
        raise UpdateRefused(f"{name} is no array of counts: {len(data)} bytes")
    return np.frombuffer(data, "<i8").astype(np.int64)
