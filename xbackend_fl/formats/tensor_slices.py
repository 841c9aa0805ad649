"""Variables that TensorFlow 1 stored in parts: where each part lies in the whole, and under which key of the index.

Parts: ``tensorflow/core/framework/tensor_slice.proto``. Keys: ``EncodeTensorNameSlice`` in
``tensorflow/core/util/saved_tensor_slice_util.cc``, over ``tensorflow/core/lib/strings/ordered_code.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xbackend_fl.formats.protobuf import fields, signed
from xbackend_fl.formats.source import Source

PREFIX = b"\x00"
"""How the key of a part begins, and no other."""

_FULL = -1
_LONG = 64


@dataclass(frozen=True)
class TensorSlice:
    """A box in a tensor: per axis its start and length, -1 for the whole axis."""

    extents: tuple[tuple[int, int], ...]

    def box(self, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
        """The part of a tensor of ``shape``; ``None`` if it does not lie in it."""
        if len(self.extents) != len(shape):
            return None
        ends = [
            size if length == _FULL else start + length
            for (start, length), size in zip(self.extents, shape, strict=True)
        ]
        found = [slice(start, end) for (start, _), end in zip(self.extents, ends, strict=True)]
        inside = all(0 <= box.start <= box.stop <= size for box, size in zip(found, shape, strict=True))
        return tuple(found) if inside else None

    def key(self, name: str) -> bytes:
        """The key of this part of the variable ``name``."""
        # UTF-8 has no byte 255, and names no zero: nothing in them needs an escape.
        text = name.encode()
        numbers = b"".join(_signed(number) for extent in self.extents for number in extent)
        return PREFIX + text + b"\x00\x01" + _number(len(self.extents)) + numbers


def parse_slice(source: Source, view: memoryview) -> TensorSlice:
    """A ``TensorSliceProto``."""
    extents = []
    for number, _, value in fields(source, view):
        if number == 1 and isinstance(value, memoryview):
            plain = {key: signed(item) for key, wire, item in fields(source, value) if wire == 0}
            extents.append((plain.get(1, 0), plain.get(2, _FULL)))
    return TensorSlice(tuple(extents))


def size_of(box: tuple[slice, ...]) -> int:
    """Number of values of a part."""
    return prod(axis.stop - axis.start for axis in box)


def _number(value: int) -> bytes:
    """``WriteNumIncreasing``: the number of bytes, then the bytes, the highest first."""
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(raw)]) + raw


def _signed(value: int) -> bytes:
    """``WriteSignedNumIncreasing``: as many leading ones as bytes, then the bits in two's complement."""
    size = value if value >= 0 else ~value
    if size < _LONG:
        return bytes([(0x80 ^ value) & 0xFF])
    length = next(n for n in range(2, 11) if size < 1 << (7 * n - 1))
    raw = bytearray((value & ((1 << (8 * length)) - 1)).to_bytes(length, "big"))
    head = ((1 << length) - 1) << (16 - length)
    raw[0] ^= head >> 8
    raw[1] ^= head & 0xFF
    return bytes(raw)
