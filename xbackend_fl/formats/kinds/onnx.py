"""The initializers of an ONNX model (``.onnx``), read without running or checking its graph.

Field numbers: ``onnx/onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from xbackend_fl.formats.archive import Archive, Array, Entry, array_of, check_shape, checked
from xbackend_fl.formats.dtypes import ONNX, DType
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.limits import MAX_TENSORS
from xbackend_fl.formats.protobuf import count_varints, fields, packed_varints, signed, text
from xbackend_fl.formats.source import Source, open_beside, open_source, shown

NAME = "onnx"

_MODEL_PRODUCER, _MODEL_VERSION, _MODEL_GRAPH, _MODEL_PROPERTY = 2, 3, 7, 14
_GRAPH_INITIALIZER, _GRAPH_SPARSE = 5, 15
_DIMS, _TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
_FLOATS, _INT32S, _STRINGS, _INT64S, _DOUBLES, _UINT64S = 4, 5, 6, 7, 10, 11
_TYPED = {"float32": _FLOATS, "complex64": _FLOATS, "float64": _DOUBLES, "complex128": _DOUBLES} | {
    "int64": _INT64S,
    "uint32": _UINT64S,
    "uint64": _UINT64S,
}
"""Field of the values by dtype; all others stand in ``int32_data``."""


@dataclass
class _Tensor:
    """The fields of a ``TensorProto``, as they come."""

    name: str = ""
    type: int = 0
    dims: list[int] = field(default_factory=list)
    raw: memoryview | None = None
    typed: dict[int, list[Any]] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    elsewhere: bool = False


@dataclass
class _Others:
    """The files that hold the tensors which a model keeps elsewhere."""

    source: Source
    allowed: bool
    opened: dict[str, Source] = field(default_factory=dict)


def read(path: Path, *, external: bool = False) -> Archive:
    """Read the initializers; those with raw data are views of the file.

    Args:
        path: The model.
        external: Also read tensors from other files, if they lie in the same folder or below.

    Raises:
        FormatRefused: The file breaks the format, keeps tensors elsewhere (``external-data``), or says one key of its metadata twice (``duplicate-name``).
    """
    source = open_source(path)
    metadata: dict[str, str] = {}
    properties: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    for number, _, value in fields(source, source.view):
        if number == _MODEL_GRAPH and isinstance(value, memoryview):
            _graph(_Others(source, allowed=external), value, entries)
        elif number in (_MODEL_PRODUCER, _MODEL_VERSION):
            metadata["producer" if number == _MODEL_PRODUCER else "producer_version"] = text(source, value)
        elif number == _MODEL_PROPERTY:
            pair = {part: text(source, item) for part, _, item in fields(source, _message(source, value))}
            if (key := pair.get(1, "")) in properties:
                source.refuse("duplicate-name", f"has the key {shown(key)} of its metadata twice")
            properties[key] = pair.get(2, "")
    metadata |= properties
    if not entries and not metadata:
        source.refuse("bad-protobuf", "is no ONNX model: it names neither a producer nor a tensor")
    return checked(Archive(path, NAME, entries, metadata))


def _message(source: Source, value: object) -> memoryview:
    if not isinstance(value, memoryview):
        source.refuse("bad-protobuf", "a number stands where a message is expected")
    return value


def _graph(others: _Others, view: memoryview, entries: dict[str, Entry]) -> None:
    source = others.source
    for number, _, value in fields(source, view):
        if number == _GRAPH_SPARSE:
            source.refuse("dtype", "holds a sparse tensor")
        if number == _GRAPH_INITIALIZER:
            tensor = _tensor(source, _message(source, value))
            if tensor.name in entries:
                source.refuse("duplicate-name", f"holds two tensors named {shown(tensor.name)}")
            if len(entries) >= MAX_TENSORS:
                source.refuse("too-many-tensors", f"holds more than {MAX_TENSORS} tensors", limit=MAX_TENSORS)
            entries[tensor.name] = _entry(others, tensor)


def _tensor(source: Source, view: memoryview) -> _Tensor:
    tensor = _Tensor()
    for number, wire, value in fields(source, view):
        if number == _DIMS:
            whole = np.dtype(np.int64)
            new = [signed(value)] if wire == 0 else packed_varints(source, value[:1000], whole).tolist()
            tensor.dims += new
        elif number == _TYPE and wire == 0:
            tensor.type = value
        elif number == _NAME:
            tensor.name = text(source, value)
        elif number == _RAW:
            tensor.raw = _message(source, value)
        elif number == _LOCATION:
            tensor.elsewhere = value == 1
        elif number == _EXTERNAL:
            pair = {key: text(source, item) for key, _, item in fields(source, _message(source, value))}
            tensor.external[pair.get(1, "")] = pair.get(2, "")
        elif number in (_SEGMENT, _STRINGS):
            source.refuse("dtype", "a tensor holds text or is split in segments")
        elif number in (_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S):
            tensor.typed.setdefault(number, []).append(value)
    return tensor


def _entry(others: _Others, tensor: _Tensor) -> Entry:
    source = others.source
    what, shape = f"tensor {shown(tensor.name)}", tuple(tensor.dims)
    dtype = ONNX.get(tensor.type)
    if dtype is None:
        source.refuse("dtype", f"{what} has the element type {tensor.type}", value=tensor.type)
    size = check_shape(source.path, tensor.name, shape) * dtype.itemsize
    if tensor.elsewhere:
        if not others.allowed:
            source.refuse("external-data", f"{what} is kept in the file {_place(tensor)}")
        raw = _outside(others, tensor, size, what)
    elif tensor.raw is not None:
        raw = tensor.raw
    else:
        return Entry(shape, dtype, _typed(source, tensor, dtype, what))
    if len(raw) != size:
        source.refuse("size-mismatch", f"{what} needs {size} bytes and has {len(raw)}")
    return Entry(shape, dtype, partial(array_of, raw, dtype, shape))


def _place(tensor: _Tensor) -> str:
    return shown(tensor.external.get("location", ""))


def _outside(others: _Others, tensor: _Tensor, size: int, what: str) -> memoryview:
    keys = tensor.external
    location = keys.get("location", "")
    if location not in others.opened:
        others.opened[location] = open_beside(others.source.path, location)
    numbers = {}
    for key, default in (("offset", 0), ("length", size)):
        plain = keys.get(key, str(default))
        if not (plain.isascii() and plain.isdigit() and len(plain) < 19):
            others.source.refuse("bad-header", f"{what} has the {key} {shown(plain)}")
        numbers[key] = int(plain)
    return others.opened[location].read(numbers["offset"], numbers["length"], what)


def _typed(source: Source, tensor: _Tensor, dtype: DType, what: str) -> Callable[[], Array]:
    """Reads the values of a tensor that is not stored raw, after their number was checked."""
    field_number = _TYPED.get(dtype.name, _INT32S)
    chunks = tensor.typed.pop(field_number, [])
    if any(tensor.typed.values()):
        source.refuse("bad-protobuf", f"{what} holds values of another type")
    shape = tuple(tensor.dims)
    wide = field_number in (_FLOATS, _DOUBLES)
    if wide:
        packed = [chunk for chunk in chunks if isinstance(chunk, memoryview)]
        count, rest = divmod(sum(map(len, packed)), dtype.itemsize)
    else:
        count, rest = sum(count_varints(c) if isinstance(c, memoryview) else 1 for c in chunks), 0
    if count != prod(shape) or rest:
        source.refuse("size-mismatch", f"{what} needs {prod(shape)} values and has {count}")

    def floats() -> Array:
        return np.frombuffer(b"".join(map(bytes, packed)), dtype).reshape(shape)

    def integers() -> Array:
        # Small floats are stored as the integer with the same bits.
        plain = dtype if dtype.kind in "iu" else np.dtype(f"u{dtype.itemsize}")
        parts = [
            packed_varints(source, c, plain) if isinstance(c, memoryview) else _single(c, plain)
            for c in chunks
        ]
        return np.concatenate([np.zeros(0, plain), *parts]).view(dtype).reshape(shape)

    return floats if wide else integers


def _single(value: int, dtype: DType) -> Array:
    return np.array([signed(value)], np.int64).astype(dtype)


FORMAT = Format(NAME, read, (".onnx",), read_beside=partial(read, external=True))
