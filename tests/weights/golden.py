"""What the golden frames in ``schemas/golden`` hold. They are never written anew: a version keeps its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]

GOLDEN: dict[str, tuple[Arrays, dict[str, str]]] = {
    "wire.v1.plain.xbf": (
        {
            "conv.weight": np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3) / 7,
            "conv.bias": np.array([0.0, -0.0, np.inf, np.nan], np.float32),
            "steps": np.array(-7, np.int64),
        },
        {"fingerprint": "0" * 64, "participant": "lyon", "round": "3"},
    ),
    "wire.v1.dtypes.xbf": (
        {
            name: np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
            for name, dtype in {
                **{
                    n: np.dtype(n)
                    for n in ("bool", "int8", "uint16", "int32", "uint64", "float16", "float64", "complex64")
                },
                "bfloat16": np.dtype(ml_dtypes.bfloat16),
                "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
            }.items()
        },
        {},
    ),
    "wire.v1.empty.xbf": ({"none": np.zeros((0, 3), np.float32)}, {"note": "é"}),
}
