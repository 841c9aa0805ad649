"""Protocol buffers from a stranger: the wire format alone, without the library's parser.

The encoding: https://protobuf.dev/programming-guides/encoding. Fields are read where they lie; a tensor's bytes
stay in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.formats.dtypes import DType
from xbackend_fl.formats.source import Source

_MAX_FIELDS = 1_000_000
_BLOCK = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field: TypeAlias = tuple[int, int, Any]
"""Number, wire type, and an integer or a view."""


def fields(source: Source, view: memoryview) -> Iterator[Field]:
    """The fields of a message in their order.

    Raises:
        FormatRefused: ``bad-protobuf``, or ``header-too-large`` for a flood of fields.
    """
    at, end = 0, len(view)
    for _ in range(_MAX_FIELDS):
        if at == end:
            return
        tag, at = varint(source, view, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = varint(source, view, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = varint(source, view, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            source.refuse("bad-protobuf", f"a message has a field of wire type {wire}")
        if number == 0 or size > end - at:
            source.refuse("bad-protobuf", f"a field of {size} bytes does not fit its message of {end}")
        yield number, wire, view[at : at + size]
        at += size
    source.refuse("header-too-large", f"a message has more than {_MAX_FIELDS} fields", limit=_MAX_FIELDS)


def varint(source: Source, view: memoryview, at: int) -> tuple[int, int]:
    """The integer at ``at``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            source.refuse("bad-protobuf", "a message breaks off in a number")
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
    source.refuse("bad-protobuf", "a number has more than ten bytes")


def signed(value: int) -> int:
    """A varint as a signed integer of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def count_varints(view: memoryview) -> int:
    """How many numbers a packed field holds."""
    raw = np.frombuffer(view, np.uint8)
    blocks = range(0, len(raw), _BLOCK)
    return sum(int(np.count_nonzero(raw[start : start + _BLOCK] < 128)) for start in blocks)


def packed_varints(source: Source, view: memoryview, dtype: DType) -> NDArray[Any]:
    """All numbers of a packed field, cast to ``dtype`` modulo its width."""
    raw = np.frombuffer(view, np.uint8)
    parts, start = [np.zeros(0, dtype)], 0
    while start < len(raw):
        block = raw[start : start + _BLOCK]
        ends = np.flatnonzero(block < 128)
        if not len(ends):
            source.refuse("bad-protobuf", "packed numbers break off")
        block = block[: ends[-1] + 1]
        parts.append(_numbers(source, block, ends).astype(np.int64).astype(dtype))
        start += len(block)
    return np.concatenate(parts)


def _numbers(source: Source, block: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.uint64]:
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 10:
        source.refuse("bad-protobuf", "a number has more than ten bytes")
    place = np.arange(len(block)) - np.repeat(starts, lengths)
    parts = (block & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts)


def text(source: Source, view: object) -> str:
    """A field as text."""
    if not isinstance(view, memoryview):
        source.refuse("bad-protobuf", "a number stands where text is expected")
    try:
        return bytes(view).decode("utf-8")
    except UnicodeDecodeError:
        source.refuse("bad-protobuf", "text is not UTF-8")
