"""Writing arrays to a file in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

PIECE = 16 << 20


def pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of an array in C order, little-endian, a few MiB at a time.

    A strided array is copied piece by piece, never whole, unless a single row is larger than a piece.
    """
    if array.nbytes == 0:
        return
    if array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(flat), PIECE):
            yield flat[start : start + PIECE]
        return
    rows = max(1, PIECE * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        part = np.ascontiguousarray(array[start : start + rows])
        yield part.reshape(-1).view(np.uint8).data


def write_array(file: IO[bytes], array: NDArray[Any], on_bytes: Callable[[int], None]) -> None:
    """Append an array; ``on_bytes`` hears of every piece."""
    for piece in pieces(array):
        file.write(piece)
        on_bytes(len(piece))
