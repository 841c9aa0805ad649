"""A weight file in a model's own names and layouts, and the same weights in canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Trainer
from xbackend_fl.canonical import Binding
from xbackend_fl.canonical.dtypes import HALVES, rounded, widened
from xbackend_fl.errors import SchemaError
from xbackend_fl.formats.dtypes import is_float
from xbackend_fl.mapping.beside import left_out
from xbackend_fl.mapping.names import naming
from xbackend_fl.weights import Archive
from xbackend_fl.weights.store import same_bits

Array = NDArray[Any]


def canonical_file(source: Archive, binding: Binding, trainer: Trainer) -> tuple[dict[str, Array], list[str]]:
    """The weights of a model's own file in canonical form, and the tensors of the file that are none of them.

    Raises:
        SchemaError: A tensor is missing, has another shape or dtype, or is one that the model has no place for.
    """
    places = naming(source, binding, trainer, source.format)
    found = binding.export(natives_of(source, binding, trainer, places))
    return found, left_out(source, binding, trainer, places)


def natives_of(
    source: Archive, binding: Binding, trainer: Trainer | None, places: Mapping[str, str]
) -> dict[str, Array]:
    """The shared native tensors of a file, with the dtypes of the model; what is never saved has the model's values."""
    result: dict[str, Array] = {}
    missing = [name for name in binding.owners if name not in places]
    if missing:
        assert trainer is not None
        held = trainer.read()
        result = {name: held[name] for name in missing}
    for native, place in places.items():
        array, expected = source[place], binding.natives[native]
        if array.shape != expected.shape:
            raise SchemaError(
                f"{source.path}: tensor {place!r} has the shape {list(array.shape)}; "
                f"the model's {native!r} has {list(expected.shape)}"
            )
        result[native] = _exactly(array, expected.dtype, place)
    return result


def _exactly(array: Array, dtype: str, name: str) -> Array:
    """An array as the model's own dtype has it; of half precision, as the float32 of the same numbers."""
    wide = widened(array)
    if dtype in HALVES:
        if array.dtype.name == dtype or has_digits(wide, dtype):
            return wide
    elif array.dtype == dtype:
        return array
    elif (
        is_float(array.dtype)
        and is_float(np.dtype(dtype))
        and array.dtype.itemsize < np.dtype(dtype).itemsize
    ):
        return wide.astype(dtype)
    floats = is_float(array.dtype) and (dtype in HALVES or is_float(np.dtype(dtype)))
    raise SchemaError(
        f"tensor {name!r} is {array.dtype}; the model has {dtype}",
        hint=f"--dtype {dtype} rounds to it" if floats else None,
    )


def has_digits(array: Array, dtype: str) -> bool:
    """Whether float32 numbers are numbers of half precision too."""
    return array.dtype == np.float32 and same_bits(widened(rounded(array, dtype)), array)
