"""Hostile checkpoints whose variables are stored in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.weights.corpus.case import Case, codes
from tests.weights.corpus.proto_attacks import HEADER, block, field, masked, table

DATA = bytes(range(48))


def _shape(*sizes: int) -> bytes:
    return field(2, b"".join(field(2, field(1, size)) for size in sizes))


def _slice(*extents: tuple[int, int]) -> bytes:
    return field(7, b"".join(field(1, field(1, start) + field(2, length)) for start, length in extents))


def _key(*extents: tuple[int, int]) -> bytes:
    """Written by hand for numbers below 64: each is one byte with its highest bit set."""
    numbers = bytes(0x80 ^ number for extent in extents for number in extent)
    return b"\0w\0\1\1" + bytes([len(extents)]) + numbers


def _part(
    start: int, length: int, shape: int | None = None, dtype: int = 1, offset: int | None = None
) -> bytes:
    at = 4 * start if offset is None else offset
    raw = DATA[at : at + 4 * length]
    crc = bytes([6 << 3 | 5]) + masked(raw).to_bytes(4, "little")
    place = field(4, at) + field(5, 4 * length)
    return field(1, dtype) + _shape(length if shape is None else shape) + place + crc


def _index(parts: Mapping[tuple[int, int], bytes], whole: bytes, name: bytes = b"w") -> bytes:
    keys = sorted((_key(extent), entry) for extent, entry in parts.items())
    return table(block({b"": HEADER, **dict(keys), name: whole}))


def attacks() -> Iterator[Case]:
    """All of them."""
    size, header, overlap = codes("size-mismatch"), codes("bad-header"), codes("overlap")
    whole = field(1, 1) + _shape(12) + _slice((0, 5)) + _slice((5, 7))
    good = {(0, 5): _part(0, 5), (5, 7): _part(5, 7)}
    two = field(1, 1) + _shape(12) + _slice((0, 6)) + _slice((3, 6))
    cases = {
        "nothing wrong": (_index(good, whole), codes()),
        "a part missing": (_index({(0, 5): _part(0, 5)}, whole), header),
        "a part of nothing": (_index(good | {(1, 2): _part(1, 2)}, whole), header),
        "no variable": (_index(good, field(1, 1) + _shape(12), b"v"), header),
        "a hole": (_index({(0, 5): _part(0, 5)}, field(1, 1) + _shape(12) + _slice((0, 5))), size),
        "an overlap": (_index({(0, 6): _part(0, 6), (3, 6): _part(3, 6)}, two), overlap),
        "outside": (_index(good, field(1, 1) + _shape(12) + _slice((0, 5)) + _slice((5, 8))), header),
        "before the beginning": (
            _index(
                good, field(1, 1) + _shape(12) + _slice((0, 5)) + field(7, field(1, field(1, (1 << 64) - 1)))
            ),
            header,
        ),
        "another rank": (_index(good, field(1, 1) + _shape(3, 4) + _slice((0, 5)) + _slice((5, 7))), header),
        "another dtype": (_index({**good, (5, 7): _part(5, 7, dtype=3)}, whole), size),
        "another shape": (_index({**good, (5, 7): _part(5, 7, shape=6)}, whole), size),
        "the data of another": (
            _index({**good, (5, 7): _part(5, 7, offset=44)}, whole),
            codes("truncated", "checksum"),
        ),
        "a huge variable": (
            _index({(0, 5): _part(0, 5)}, field(1, 1) + _shape(1 << 50) + _slice((0, 5))),
            codes("bad-shape"),
        ),
        "one part twice": (
            _index({(0, 6): _part(0, 6)}, field(1, 1) + _shape(12) + _slice((0, 6)) + _slice((0, 6))),
            overlap,
        ),
    }
    for label, (index, expected) in cases.items():

        def build(folder: Path, index: bytes = index) -> Path:
            (folder / "x.index").write_bytes(index)
            (folder / "x.data-00000-of-00001").write_bytes(DATA)
            return folder / "x.index"

        yield Case(f"parts: {label}", "x.index", build, expected)
