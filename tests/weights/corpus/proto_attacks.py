"""Hostile ONNX models and TensorFlow checkpoints, encoded by hand."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.weights.corpus.case import Case, codes

PROTO = codes("bad-protobuf")


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """One field: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def initializer(
    name: bytes = b"w",
    dims: tuple[int, ...] = (4,),
    kind: int = 1,
    raw: bytes | None = bytes(16),
    more: bytes = b"",
) -> bytes:
    head = b"".join(field(1, size) for size in dims) + field(2, kind) + field(8, name)
    return head + (b"" if raw is None else field(9, raw)) + more


def model(*tensors: bytes, more: bytes = b"") -> bytes:
    graph = b"".join(field(5, tensor) for tensor in tensors) + more
    return field(1, 8) + field(2, b"test") + field(7, graph)


def external(location: str, **keys: str) -> bytes:
    pairs = {"location": location, **keys}
    entries = b"".join(
        field(13, field(1, key.encode()) + field(2, value.encode())) for key, value in pairs.items()
    )
    return initializer(raw=None, more=entries + field(14, 1))


def attacks() -> Iterator[Case]:
    """All of them."""
    for label, content, expected in _models():
        yield Case(f"onnx: {label}", "x.onnx", content, expected)
    yield from _external()
    yield from _bundles()


def _models() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    size, kinds, shape = codes("size-mismatch"), codes("dtype"), codes("bad-shape")
    good = model(initializer())
    yield "nothing", b"", codes("empty")
    yield "text", b"hello world", PROTO
    yield "zeros", bytes(100), PROTO
    yield "ones", b"\xff" * 100, PROTO
    for part in (1, 5, 9, len(good) // 2, len(good) - 1):
        yield f"cut at {part}", good[:part], PROTO
    yield "group", b"\x0b" + good, PROTO
    yield "field zero", b"\x00\x01" + good, codes()
    yield "field zero with bytes", b"\x02\x01a" + good, PROTO
    yield "length beyond", field(7, b"")[:-1] + varint(1 << 40), PROTO
    yield "length of 2^63", field(7, b"")[:-1] + varint(1 << 63), PROTO
    yield "number of 11 bytes", b"\x08" + b"\xff" * 11, PROTO
    yield "nothing in it", field(1, 8), PROTO
    yield "flood of fields", b"\x08\x01" * 1_100_000, codes("header-too-large")
    yield "two tensors, one name", model(initializer(), initializer()), codes("duplicate-name")
    pair = field(14, field(1, b"round") + field(2, b"5")) + field(14, field(1, b"round") + field(2, b"9"))
    yield "one key of the metadata twice", good + pair, codes("duplicate-name")
    yield "no name", model(initializer(b"")), codes("bad-name")
    yield "name not UTF-8", model(initializer(b"\xff")), PROTO
    yield "name with escape", model(initializer(b"a\x1b[2J")), codes("bad-name")
    yield "name a number", model(initializer() + field(8, 3)), PROTO
    yield "raw a number", model(initializer(raw=None) + field(9, 3)), PROTO
    yield "graph a number", field(2, b"t") + field(7, 3), codes()
    yield "tensor a number", field(2, b"t") + field(7, field(5, 3)), PROTO
    yield "raw short", model(initializer(raw=bytes(15))), size
    yield "raw long", model(initializer(raw=bytes(17))), size
    yield "no data", model(initializer(raw=None)), size
    yield "negative", model(initializer(dims=(-4,))), shape
    yield "two negatives", model(initializer(dims=(-2, -2))), shape
    yield "huge", model(initializer(dims=(1 << 62,))), shape
    yield "overflow", model(initializer(dims=(1 << 32, 1 << 32))), shape
    yield "rank of 40", model(initializer(dims=(1,) * 40, raw=bytes(4))), shape
    yield (
        "packed dims",
        model(field(1, varint(2) + varint(2)) + field(2, 1) + field(8, b"w") + field(9, bytes(16))),
        codes(),
    )
    yield "packed dims cut", model(field(1, b"\xff") + field(2, 1) + field(8, b"w")), PROTO
    yield (
        "a million dims",
        model(field(1, b"\x01" * 1_000_000) + field(2, 1) + field(8, b"w") + field(9, bytes(4))),
        shape,
    )
    for kind in (0, 8, 18, 20, 21, 22, 23, 99, 1 << 40):
        yield f"type {kind}", model(initializer(kind=kind)), kinds
    yield "text data", model(initializer(raw=None, more=field(6, b"abc"))), kinds
    yield "segment", model(initializer(more=field(3, field(1, 0)))), kinds
    yield "sparse", model(more=field(15, b"")), kinds
    yield "floats and raw short", model(initializer(raw=None, more=field(4, bytes(12)))), size
    yield "floats uneven", model(initializer(raw=None, more=field(4, bytes(15)))), size
    yield (
        "values of two types",
        model(initializer(raw=None, more=field(4, bytes(16)) + field(7, b"\x01"))),
        PROTO,
    )
    yield "integers short", model(initializer(kind=7, raw=None, more=field(7, b"\x01\x02\x03"))), size
    yield "integers cut", model(initializer(kind=7, raw=None, more=field(7, b"\x01\x02\x03\x04\xff"))), PROTO
    yield (
        "integer of 12 bytes",
        model(initializer(dims=(1,), kind=7, raw=None, more=field(7, b"\xff" * 12 + b"\x01"))),
        PROTO,
    )
    yield (
        "one by one",
        model(initializer(dims=(2,), kind=7, raw=None, more=field(7, 5) + field(7, -6))),
        codes(),
    )
    yield "graph twice", good + field(7, field(5, initializer(b"v"))), codes()


def _external() -> Iterator[Case]:
    def case(
        label: str, build: Callable[[Path], bytes], expected: frozenset[str], *, allowed: bool = True
    ) -> Case:
        def make(folder: Path) -> Path:
            inner = folder / "inner"
            inner.mkdir()
            (folder / "secret").write_bytes(b"0123456789abcdef")
            (inner / "data").write_bytes(bytes(64))
            content = build(inner)
            (inner / "x.onnx").write_bytes(model(content))
            return inner / "x.onnx"

        return Case(f"onnx external: {label}", "x.onnx", make, expected, {"external_data": allowed})

    outside, size, header = codes("outside"), codes("size-mismatch"), codes("bad-header")

    def link(inner: Path) -> bytes:
        (inner / "link").symlink_to("../secret")
        return external("link")

    def hard_link(inner: Path) -> bytes:
        os.link(inner.parent / "secret", inner / "hard")
        return external("hard")

    def linked_folder(inner: Path) -> bytes:
        (inner / "out").symlink_to("..")
        return external("out/secret")

    def pipe(inner: Path) -> bytes:
        os.mkfifo(inner / "pipe")
        return external("pipe")

    yield case("not asked for", lambda _: external("data"), codes("external-data"), allowed=False)
    yield case("above", lambda _: external("../secret"), outside)
    yield case("above, hidden", lambda _: external("./x/../../secret"), outside)
    yield case("absolute", lambda inner: external(str(inner.parent / "secret")), outside)
    yield case("system file", lambda _: external("/etc/passwd"), outside)
    yield case("link", link, outside)
    yield case("hard link", hard_link, outside)
    yield case("linked folder", linked_folder, outside)
    yield case("pipe", pipe, codes("not-a-file"))
    yield case("folder", lambda _: external("."), codes("outside", "not-a-file"))
    yield case("device", lambda _: external("/dev/zero"), outside)
    yield case("nothing", lambda _: external(""), outside)
    yield case("null in name", lambda _: external("da\0ta"), outside)
    yield case("backslash", lambda _: external("..\\secret"), outside)
    yield case("missing", lambda _: external("nowhere"), codes("file"))
    yield case("offset beyond", lambda _: external("data", offset="60"), codes("truncated"))
    yield case("offset negative", lambda _: external("data", offset="-16"), header)
    yield case("offset text", lambda _: external("data", offset="x"), header)
    yield case("offset huge", lambda _: external("data", offset="9" * 30), header)
    yield case("length short", lambda _: external("data", length="15"), size)
    yield case("length negative", lambda _: external("data", length="-1"), header)
    yield case("in the folder", lambda _: external("data", offset="16", length="16"), codes())


def bundle_entry(
    dtype: int = 1,
    shape: tuple[int, ...] = (4,),
    shard: int = 0,
    offset: int = 0,
    size: int = 16,
    crc: int | None = None,
    more: bytes = b"",
) -> bytes:
    dims = b"".join(field(2, field(1, n)) for n in shape)
    value = masked(bytes(16)) if crc is None else crc
    tail = varint(6 << 3 | 5) + struct.pack("<L", value)
    return (
        field(1, dtype) + field(2, dims) + field(3, shard) + field(4, offset) + field(5, size) + tail + more
    )


def masked(raw: bytes) -> int:
    crc = google_crc32c.value(raw)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(entries: Mapping[bytes, bytes], kind: int = 0) -> bytes:
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries.items())
    return sealed(body + struct.pack("<LL", 0, 1), kind)


def sealed(body: bytes, kind: int = 0) -> bytes:
    return body + bytes([kind]) + struct.pack("<L", masked(body + bytes([kind])))


def table(data: bytes, handle: bytes | None = None, kind: int = 0) -> bytes:
    """An index around one block of entries."""
    place = varint(0) + varint(len(data) - 5) if handle is None else handle
    index = block({b"zzz": place}, kind)
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


HEADER = field(1, 1) + field(3, field(1, 1))


def _bundles() -> Iterator[Case]:
    def case(label: str, index: bytes, expected: frozenset[str], data: bytes | None = bytes(32)) -> Case:
        def build(folder: Path) -> Path:
            (folder / "x.index").write_bytes(index)
            if data is not None:
                (folder / "x.data-00000-of-00001").write_bytes(data)
            return folder / "x.index"

        return Case(f"checkpoint: {label}", "x.index", build, expected)

    def one(entry: bytes, key: bytes = b"w") -> bytes:
        return table(block({b"": HEADER, key: entry}))

    size, header, shape = codes("size-mismatch"), codes("bad-header"), codes("bad-shape")
    good = one(bundle_entry())
    yield case("nothing wrong", good, codes())
    yield case("no data file", good, codes("file"), None)
    yield case("empty data file", good, codes("empty"), b"")
    yield case("short data file", good, codes("truncated"), bytes(8))
    yield case("a changed bit", good, codes("checksum"), b"\1" + bytes(31))
    for part in (1, 20, 47, len(good) // 2, len(good) - 1):
        yield case(f"cut at {part}", good[:part], codes("truncated", "not-a-checkpoint"))
    yield case("other magic", good[:-1] + b"\0", codes("not-a-checkpoint"))
    yield case("a changed bit in the index", good[:5] + bytes([good[5] ^ 1]) + good[6:], codes("checksum"))
    yield case("compressed", table(block({b"": HEADER}, 1)), codes("checkpoint-compression"))
    yield case("compressed index", table(block({b"": HEADER}), kind=1), codes("checkpoint-compression"))
    yield case("block beyond", table(block({b"": HEADER}), varint(0) + varint(1 << 40)), codes("truncated"))
    yield case(
        "block in itself", table(block({b"": HEADER}), varint(1 << 62) + varint(3)), codes("truncated")
    )
    yield case("no header", table(block({b"w": bundle_entry()})), header)
    yield case("header without files", table(block({b"": field(3, b"")})), header)
    yield case("a million files", table(block({b"": field(1, 1 << 30)})), header)
    yield case("big-endian", table(block({b"": field(1, 1) + field(2, 1)})), codes("byte-order"))
    yield case(
        "keys out of order", table(block({b"": HEADER, b"b": bundle_entry(), b"a": bundle_entry()})), header
    )
    twice = sealed(
        b"".join(
            varint(0) + varint(len(k)) + varint(len(v)) + k + v
            for k, v in ((b"", HEADER), (b"a", bundle_entry()), (b"a", bundle_entry()))
        )
        + struct.pack("<LL", 0, 1)
    )
    yield case("one key twice", table(twice), codes("bad-header", "duplicate-name"))
    yield case(
        "shares too much",
        table(sealed(varint(9) + varint(1) + varint(0) + b"a" + struct.pack("<LL", 0, 1))),
        header,
    )
    yield case(
        "value beyond",
        table(sealed(varint(0) + varint(1) + varint(1000) + b"a" + struct.pack("<LL", 0, 1))),
        header,
    )
    yield case("many restarts", table(sealed(struct.pack("<L", 1 << 30))), header)
    yield case("block of nothing", table(sealed(b"")), header)
    yield case("key not UTF-8", one(bundle_entry(), b"\xff"), codes("bad-name"))
    yield case("key with escape", one(bundle_entry(), b"a\x1b[2J"), codes("bad-name"))
    yield case("long key", one(bundle_entry(), b"a" * 3000), codes("bad-header", "bad-name"))
    yield case("size short", one(bundle_entry(size=12)), size)
    yield case("size negative", one(bundle_entry(size=-16)), size)
    yield case("offset beyond", one(bundle_entry(offset=20)), codes("truncated"))
    yield case("offset negative", one(bundle_entry(offset=-4)), codes("truncated"))
    yield case("shard beyond", one(bundle_entry(shard=1)), header)
    yield case("shard negative", one(bundle_entry(shard=-1)), codes("bad-header", "outside", "file"))
    yield case("negative size", one(bundle_entry(shape=(-4,))), shape)
    yield case("huge", one(bundle_entry(shape=(1 << 62,))), shape)
    yield case("overflow", one(bundle_entry(shape=(1 << 32, 1 << 32))), shape)
    yield case("unknown rank", one(field(1, 1) + field(2, field(3, 1)) + field(5, 4)), shape)
    yield case("rank of 40", one(bundle_entry(shape=(1,) * 40, size=4)), shape)
    for dtype in (0, 11, 12, 13, 20, 21, 99, 101):
        yield case(f"type {dtype}", one(bundle_entry(dtype=dtype)), codes("dtype"))
    yield case("slices", one(bundle_entry(more=field(7, b""))), header)
    yield case("entry no message", one(b"\xff\xff\xff"), PROTO)
    graph = b"_CHECKPOINTABLE_OBJECT_GRAPH"
    yield case("graph too long", one(bundle_entry(dtype=7, shape=(), size=30), graph), codes("size-mismatch"))
    yield case(
        "graph of garbage",
        one(bundle_entry(dtype=7, shape=(), size=8), graph),
        codes("bad-protobuf", "size-mismatch"),
        b"\x03" + b"\xff" * 31,
    )
    yield case("only text", one(bundle_entry(dtype=7, shape=(), size=8), b"words"), codes())


def valid_model(arrays: Mapping[str, Any], *, raw: bool) -> bytes:
    """A model by ONNX's own library, with raw or typed data."""
    tensors = []
    for name, array in arrays.items():
        if raw:
            tensors.append(numpy_helper.from_array(array, name))
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensors.append(helper.make_tensor(name, kind, array.shape, np.ravel(array)))
    graph = helper.make_graph([], "g", [], [], tensors)
    return bytes(
        helper.make_model(graph, producer_name="onnx", producer_version=onnx.__version__).SerializeToString()
    )
