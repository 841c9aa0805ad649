"""How long an array is, whatever its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 1e-15


def norm_of(array: NDArray[Any]) -> float:
    """Root of the sum of squares; in float64 where the squares are too large or too small for the array's own dtype."""
    with np.errstate(over="ignore"):
        found = float(np.linalg.norm(array))
    return found if _SMALLEST < found < np.inf else float(np.linalg.norm(array.astype(np.float64)))
