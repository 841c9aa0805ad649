"""What no weights hold: numbers that are none, and variances below nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import SchemaError


def check_values(arrays: Mapping[str, NDArray[Any]], variances: Collection[str]) -> None:
    """Refuse weights that no course keeps.

    Args:
        arrays: By canonical name.
        variances: Names of those of which no value is negative.

    Raises:
        SchemaError: One holds NaN, infinity or a negative variance.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SchemaError(
                f"{name!r} holds NaN or infinity",
                hint="take the weights of another round, or of best.safetensors",
            )
        if name in variances and array.size and (least := float(array.min())) < 0:
            raise SchemaError(
                f"{name!r} holds {least:.3g}, and no variance is negative", hint="get the file again"
            )
