"""A column of an Arrow table as an array of numbers; whatever is none is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xbackend_fl.data.column import Array
from xbackend_fl.data.examine import not_held
from xbackend_fl.errors import ConfigError


def numbers(where: str, values: Any, start: int) -> Array:
    """A column as ``[N, ...]``; lists of one length become axes.

    Args:
        where: Which column, for messages.
        values: An Arrow array.
        start: How many rows came before.

    Raises:
        ConfigError: It holds something else, or values are missing.
    """
    if isinstance(values, pa.ExtensionArray):
        shape = getattr(values.type, "shape", None)
        found = numbers(where, values.storage, start)
        return found if shape is None else found.reshape(len(values), *shape)
    if values.null_count:
        row = start + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise ConfigError(
            f"{where}: a missing value in row {row}", hint="fill it, or leave its example out of the file"
        )
    kind = values.type
    if pa.types.is_dictionary(kind):
        return numbers(where, values.dictionary_decode(), start)
    if pa.types.is_fixed_size_list(kind):
        inner = numbers(where, values.flatten(), start * kind.list_size)
        return inner.reshape(len(values), kind.list_size, *inner.shape[1:])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.diff(values.offsets.to_numpy())
        if len(values) and (lengths != lengths[0]).any():
            row = int(np.flatnonzero(lengths != lengths[0])[0])
            raise ConfigError(
                f"{where}: a list of {lengths[row]} values in row {start + row}, after lists of {lengths[0]}",
                hint="pad or cut them to one length",
            )
        width = int(lengths[0]) if len(values) else 0
        inner = numbers(where, values.flatten(), start * width)
        return inner.reshape(len(values), width, *inner.shape[1:])
    if pa.types.is_decimal(kind):
        return numbers(where, values.cast(pa.float64()), start)
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        shown = str(values[0])[:40] if len(values) else "nothing"
        raise ConfigError(
            f"{where}: values of the type {kind}, such as {shown!r}, where numbers are wanted",
            hint="number them in the file, or read it in a function of your own: data.source: data.py:load",
        )
    found = values.to_numpy(zero_copy_only=False)
    return np.asarray(found, np.uint8) if found.dtype == bool else np.asarray(found)


def cast(where: str, array: Array, dtype: np.dtype[Any], start: int) -> tuple[Array, bool]:
    """An array in another dtype, and whether floats were rounded for it.

    Raises:
        ConfigError: The dtype cannot hold whole numbers of the array, or has no place for its fractions.
    """
    if array.dtype == dtype:
        return array, False
    if (array.dtype.kind, dtype.kind) == ("f", "f"):
        with np.errstate(over="ignore"):
            there = array.astype(dtype)
        return there, bool((there != array)[np.isfinite(array)].any())
    if lost := not_held(array, dtype):
        raise ConfigError(
            f"{where}: {array.dtype} values that {dtype}, which the model computes with, cannot hold: {lost}, counted from row {start}",
            hint="scale them in the file, or read it in a function of your own: data.source: data.py:load",
        )
    return array.astype(dtype), False


def texts(where: str, values: Any, start: int) -> NDArray[np.str_] | None:
    """A column of text, or ``None`` if it is none.

    Raises:
        ConfigError: Values are missing.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        return texts(where, values.dictionary_decode(), start)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return None
    if values.null_count:
        row = start + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise ConfigError(f"{where}: a missing value in row {row}", hint="leave its example out of the file")
    return np.array(values.to_pylist(), dtype=str)


def are_images(kind: Any) -> bool:
    """Whether values of an Arrow type may be encoded images: bytes, or ``{bytes, path}`` as Hugging Face writes them."""
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and are_images(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def encoded(where: str, values: Any, start: int) -> list[bytes | None]:
    """The bytes of every image of a column; ``None`` where there is none.

    Args:
        where: Which column, for messages.
        values: An Arrow array.
        start: How many rows came before.

    Raises:
        ConfigError: It holds something else, or only says where an image lies.
    """
    kind = values.type
    if not are_images(kind):
        raise ConfigError(
            f"{where}: values of the type {kind}, after images",
            hint="all files of one source have the same columns",
        )
    if not pa.types.is_struct(kind):
        return list(values.to_pylist())
    found: list[bytes | None] = []
    for row, value in enumerate(values.to_pylist(), start):
        image, path = (None, None) if value is None else (value["bytes"], value.get("path"))
        if image is None and path:
            raise ConfigError(
                f"{where}: row {row} says where an image lies ({path[:80]!r}) and does not hold it",
                hint="write the images into the file: datasets' to_parquet does it; or name their folder: images:FOLDER",
            )
        found.append(image)
    return found
