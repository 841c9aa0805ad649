"""The dtypes that weights have, with the name each format gives them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np

DType: TypeAlias = np.dtype[Any]

BFLOAT16: DType = np.dtype(ml_dtypes.bfloat16)
FLOAT8_E4M3FN: DType = np.dtype(ml_dtypes.float8_e4m3fn)
FLOAT8_E5M2: DType = np.dtype(ml_dtypes.float8_e5m2)

ALLOWED: dict[str, DType] = {
    name: np.dtype(name)
    for name in [
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
        "complex64",
        "complex128",
    ]
} | {"bfloat16": BFLOAT16, "float8_e4m3fn": FLOAT8_E4M3FN, "float8_e5m2": FLOAT8_E5M2}
"""NumPy name to dtype, little-endian."""

NAMES: dict[DType, str] = {dtype: name for name, dtype in ALLOWED.items()}

_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
DESCRIPTIONS: dict[str, DType] = {
    dtype.newbyteorder(order).str: dtype.newbyteorder(order)
    for dtype in ALLOWED.values()
    if dtype.isbuiltin == 1
    for order in _ORDERS
}
"""NumPy's own description to dtype, in the byte order it states; for dtypes that NumPy itself has."""

_LETTERS = {"float": "F", "int": "I", "uint": "U", "complex": "C"}


def _safetensors_name(name: str) -> str:
    special = {
        "bool": "BOOL",
        "bfloat16": "BF16",
        "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
    }
    kind = name.rstrip("0123456789")
    return special.get(name) or _LETTERS[kind] + name.removeprefix(kind)


SAFETENSORS: dict[str, DType] = {
    _safetensors_name(name): dtype for name, dtype in ALLOWED.items() if name != "complex128"
}

TORCH_STORAGES: dict[str, DType] = {
    "DoubleStorage": ALLOWED["float64"],
    "FloatStorage": ALLOWED["float32"],
    "HalfStorage": ALLOWED["float16"],
    "BFloat16Storage": BFLOAT16,
    "LongStorage": ALLOWED["int64"],
    "IntStorage": ALLOWED["int32"],
    "ShortStorage": ALLOWED["int16"],
    "CharStorage": ALLOWED["int8"],
    "ByteStorage": ALLOWED["uint8"],
    "BoolStorage": ALLOWED["bool"],
    "ComplexFloatStorage": ALLOWED["complex64"],
    "ComplexDoubleStorage": ALLOWED["complex128"],
}

ONNX: dict[int, DType] = {
    1: ALLOWED["float32"],
    2: ALLOWED["uint8"],
    3: ALLOWED["int8"],
    4: ALLOWED["uint16"],
    5: ALLOWED["int16"],
    6: ALLOWED["int32"],
    7: ALLOWED["int64"],
    9: ALLOWED["bool"],
    10: ALLOWED["float16"],
    11: ALLOWED["float64"],
    12: ALLOWED["uint32"],
    13: ALLOWED["uint64"],
    14: ALLOWED["complex64"],
    15: ALLOWED["complex128"],
    16: BFLOAT16,
    17: FLOAT8_E4M3FN,
    19: FLOAT8_E5M2,
}
"""``TensorProto.DataType``."""

TENSORFLOW: dict[int, DType] = {
    1: ALLOWED["float32"],
    2: ALLOWED["float64"],
    3: ALLOWED["int32"],
    4: ALLOWED["uint8"],
    5: ALLOWED["int16"],
    6: ALLOWED["int8"],
    8: ALLOWED["complex64"],
    9: ALLOWED["int64"],
    10: ALLOWED["bool"],
    14: BFLOAT16,
    17: ALLOWED["uint16"],
    18: ALLOWED["complex128"],
    19: ALLOWED["float16"],
    22: ALLOWED["uint32"],
    23: ALLOWED["uint64"],
    24: FLOAT8_E5M2,
    25: FLOAT8_E4M3FN,
}
"""``tensorflow.DataType``."""


def is_float(dtype: DType) -> bool:
    """Whether a dtype holds real floating-point numbers, the small ones included."""
    return dtype.kind == "f" or dtype in (BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2)
