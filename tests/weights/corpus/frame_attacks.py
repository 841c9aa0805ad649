"""Hostile frames, and paths that are no files."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack
from blake3 import blake3

from tests.weights.corpus.case import Case, codes

MAGIC = b"\x89XBF\r\n\x1a\n"


def frame(
    header: Any,
    body: bytes = bytes(64),
    *,
    magic: bytes = MAGIC,
    major: int = 1,
    flags: int = 0,
    crc: int | None = None,
    body_length: int | None = None,
    total: int | None = None,
    spare: bytes = bytes(24),
    gap: bytes | None = None,
    digest: bytes | None = None,
) -> bytes:
    """A frame with anything in it."""
    raw = header if isinstance(header, bytes) else msgpack.packb(header)
    padding = bytes(-len(raw) % 64) if gap is None else gap
    length = 64 + len(raw) + len(padding) + len(body) + 32
    prefix = magic + struct.pack(
        "<HHIIIQQ",
        major,
        0,
        flags,
        len(raw),
        google_crc32c.value(raw) if crc is None else crc,
        len(body) if body_length is None else body_length,
        length if total is None else total,
    )
    content = prefix + spare + raw + padding + body
    return content + (blake3(content).digest() if digest is None else digest)


def head(*tensors: Any, about: Any = None) -> dict[str, Any]:
    return {"about": {} if about is None else about, "tensors": list(tensors)}


def tensor(
    name: Any = "w", dtype: Any = "float32", shape: Any = (4,), offset: Any = 0, length: Any = 16
) -> list[Any]:
    return [name, dtype, list(shape) if isinstance(shape, tuple) else shape, offset, length]


def attacks() -> Iterator[Case]:
    """All of them."""
    for label, content, expected in _frames():
        yield Case(f"frame: {label}", "x.xbf", content, expected)
    yield from _paths()


def _frames() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    header, size = codes("bad-header"), codes("size-mismatch")
    good = frame(head(tensor()))
    yield "nothing wrong", good, codes()
    for part in (1, 63, 64, 80, len(good) - 32, len(good) - 1):
        yield f"cut at {part}", good[:part], codes("truncated", "size-mismatch")
    yield "more behind", good + b"x", size
    yield "two frames", good + good, size
    yield "other magic", frame(head(tensor()), magic=b"\x89XBF\n\n\x1a\n"), codes("not-a-frame")
    yield "line ends changed", good.replace(b"\r\n", b"\n"), codes("not-a-frame", "truncated")
    yield "spare not zero", frame(head(tensor()), spare=b"\1" + bytes(23)), codes("not-a-frame")
    yield "version 2", frame(head(tensor()), major=2), codes("frame-version")
    yield "unknown feature", frame(head(tensor()), flags=1 << 16), codes("frame-version")
    yield "hint nobody needs", frame(head(tensor()), flags=1), codes()
    yield "header checksum", frame(head(tensor()), crc=1), codes("checksum")
    yield "checksum", frame(head(tensor()), digest=bytes(32)), codes("checksum")
    yield "a changed bit", good[:-90] + b"\1" + good[-89:], codes("checksum")
    yield "total too large", frame(head(tensor()), total=1 << 60), size
    yield "body too large", frame(head(tensor()), body_length=1 << 60), size
    yield "padding not zero", frame(head(tensor()), gap=b"\1" * 29), codes("bad-header", "size-mismatch")
    for label, raw in {
        "no msgpack": b"\xc1",
        "nothing": b"",
        "cut": b"\x82\xa5about",
        "two objects": b"\x80\x80",
        "a list": b"\x90",
        "a number": b"\x05",
        "long form": b"\xde\0\0",
        "map of a billion": b"\xdf\x3b\x9a\xca\0",
        "list of a billion": b"\xdd\x3b\x9a\xca\0",
        "text of 4 GB": b"\xdb\xff\xff\xff\xff",
        "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
        "extension": b"\xd4\x05\0",
        "a date": b"\xd6\xff\0\0\0\0",
        "depth": b"\x91" * 5000 + b"\x90",
        "key twice": b"\x82\xa1a\x01\xa1a\x01",
        "key a number": b"\x81\x01\x01",
        "text not UTF-8": b"\x81\xa1\xff\x01",
        "NaN": b"\x81\xa1a\xcb\x7f\xf8\0\0\0\0\0\0",
    }.items():
        yield f"header {label}", frame(raw), header
    yield "huge header", frame(b"\xc0" * ((8 << 20) + 1)), codes("header-too-large")
    for label, content in {
        "without tensors": {"about": {}},
        "without about": {"tensors": []},
        "with more": {**head(tensor()), "x": 1},
        "about of numbers": head(tensor(), about={"round": 1}),
        "about out of order": head(tensor(), about={"b": "x", "a": "x"}),
        "keys out of order": {"tensors": [], "about": {}},
        "about a list": head(tensor(), about=[]),
        "tensors a map": {"about": {}, "tensors": {}},
        "tensor of four": head(tensor()[:4]),
        "tensor a map": head({}),
        "name a number": head(tensor(name=1)),
        "name empty": head(tensor(name="")),
        "name long": head(tensor(name="a" * 600)),
        "dtype unknown": head(tensor(dtype="object")),
        "dtype a number": head(tensor(dtype=1)),
        "shape a number": head(tensor(shape=4)),
        "shape of floats": head(tensor(shape=[4.0])),
        "shape with true": head(tensor(shape=[True])),
        "rank of 17": head(tensor(shape=(1,) * 17, length=4)),
        "offset a float": head(tensor(offset=0.0)),
    }.items():
        yield label, frame(content), header
    yield "negative size", frame(head(tensor(shape=(-4,)))), codes("bad-shape")
    yield "huge", frame(head(tensor(shape=(1 << 60,)))), codes("bad-shape")
    yield "length short", frame(head(tensor(length=12))), size
    yield "name with escape", frame(head(tensor(name="a\x1b[2J"))), codes("bad-name")
    yield "one name twice", frame(head(tensor(), tensor(offset=64)), bytes(128)), codes("duplicate-name")
    yield "gap", frame(head(tensor(offset=64)), bytes(128)), codes("overlap")
    yield "overlap", frame(head(tensor(), tensor("v", offset=4)), bytes(64)), codes("overlap")
    yield "same place, other shape", frame(head(tensor(), tensor("v", shape=(2, 2)))), codes("overlap")
    yield "tied", frame(head(tensor(), tensor("v"))), codes()
    yield "negative offset", frame(head(tensor(offset=-64))), codes("overlap")
    yield "body longer", frame(head(tensor()), bytes(128)), codes("trailing-data")
    yield "body shorter", frame(head(tensor(), tensor("v", offset=64)), bytes(64)), codes("truncated")
    yield (
        "hidden in padding",
        frame(head(tensor()), bytes(16) + b"hidden" + bytes(42)),
        codes("trailing-data"),
    )


def _paths() -> Iterator[Case]:
    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "x.safetensors")
        return folder / "x.safetensors"

    def folder_instead(folder: Path) -> Path:
        (folder / "x.pt").mkdir()
        return folder / "x.pt"

    def circle(folder: Path) -> Path:
        (folder / "x.npz").symlink_to("x.npz")
        return folder / "x.npz"

    def device(folder: Path) -> Path:
        (folder / "x.onnx").symlink_to("/dev/zero")
        return folder / "x.onnx"

    def listener(folder: Path) -> Path:
        path = folder / "x.h5"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
        return path

    none = codes("not-a-file", "file")
    for label, build in {
        "pipe": pipe,
        "folder": folder_instead,
        "circle of links": circle,
        "device": device,
        "socket": listener,
        "missing": lambda folder: folder / "x.keras",
        "empty folder": lambda folder: folder,
    }.items():
        yield Case(f"path: {label}", "x", build, none)
