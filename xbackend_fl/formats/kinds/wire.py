"""The canonical wire frame: a msgpack header, raw tensors, a checksum over all. Specified in ``schemas/wire.v1.md``."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import google_crc32c
import msgpack
import numpy as np
from blake3 import blake3

from xbackend_fl.errors import FileError
from xbackend_fl.formats.archive import (
    Archive,
    Array,
    Entry,
    aliases_of,
    array_of,
    check_shape,
    checked,
)
from xbackend_fl.formats.dtypes import ALLOWED, NAMES
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.limits import MAX_HEADER, MAX_NAME, MAX_RANK, MAX_TENSORS
from xbackend_fl.formats.source import Source, open_source, shown
from xbackend_fl.formats.streams import pieces

NAME = "wire"
MAJOR, MINOR = 1, 0
MAGIC = b"\x89XBF\r\n\x1a\n"
ALIGNMENT = 64
_PREFIX = struct.Struct("<8sHHIIIQQ24x")
_DIGEST = 32
_THREADED = 4 << 20
"""Bytes from which hashing with several threads pays."""


@dataclass(frozen=True)
class Head:
    """What comes before the tensors.

    Attributes:
        about: What the sender says: text by key.
        tensors: Name, dtype, shape, offset in the body and length of each.
        body: Offset of the body in the frame.
        body_length: Its length.
    """

    about: Mapping[str, str]
    tensors: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    body: int
    body_length: int


def encode(arrays: Mapping[str, Array], about: Mapping[str, str] | None = None) -> list[memoryview]:
    """A frame as buffers to send one after the other; contiguous arrays are not copied.

    Raises:
        FileError: A tensor has a dtype that the frame does not know, or the header is too large.
    """
    entries = {name: Entry.from_array(array) for name, array in arrays.items()}
    state = blake3(max_threads=blake3.AUTO)
    frame: list[memoryview] = []
    for part in _parts(entries, about or {}):
        buffer = _bytes(part.read()) if isinstance(part, Entry) else part
        state.update(buffer)
        frame.append(buffer)
    return [*frame, memoryview(state.digest())]


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _parts(entries: Mapping[str, Entry], about: Mapping[str, str]) -> list[memoryview | Entry]:
    """The frame without its checksum: bytes, and tensors where their bytes belong."""
    aliases = aliases_of(entries)
    items: list[list[Any]] = []
    places: dict[str, int] = {}
    body: list[memoryview | Entry] = []
    end = 0
    for name, entry in entries.items():
        if entry.dtype not in NAMES:
            raise FileError(f"a frame cannot hold the tensor {name!r} of dtype {entry.dtype}")
        length = entry.num_bytes
        if name not in aliases:
            places[name] = end
            body += [entry, memoryview(bytes(-length % ALIGNMENT))]
            end += length + -length % ALIGNMENT
        place = places[aliases.get(name, name)]
        items.append([name, NAMES[entry.dtype], list(entry.shape), place, length])
    header = msgpack.packb({"about": dict(sorted(about.items())), "tensors": items})
    if len(header) > MAX_HEADER:
        raise FileError(f"a frame's header would have {len(header)} bytes, more than {MAX_HEADER}")
    gap = bytes(-len(header) % ALIGNMENT)
    total = _PREFIX.size + len(header) + len(gap) + end + _DIGEST
    prefix = _PREFIX.pack(MAGIC, MAJOR, MINOR, 0, len(header), google_crc32c.value(header), end, total)
    return [memoryview(prefix), memoryview(header), memoryview(gap), *body]


def decode(frame: bytes | bytearray | memoryview, path: Path = Path("frame")) -> Archive:
    """The tensors of a frame, as read-only views of it.

    Raises:
        FormatRefused: The frame breaks the specification.
    """
    view = memoryview(frame).toreadonly()
    return _decode(Source(path, view, None))


def digest_of(frame: bytes | memoryview) -> bytes | memoryview:
    """The checksum at the end of a frame: BLAKE3-256 of everything before it."""
    return frame[-_DIGEST:]


def norm_of(data: bytes | memoryview) -> int:
    """The length that a frame states, at most that of ``data``; what stands behind it is not the frame's."""
    if len(data) < _PREFIX.size:
        return len(data)
    stated: int = _PREFIX.unpack_from(data)[-1]
    return min(stated, len(data))


def read(path: Path) -> Archive:
    """A frame in a file; its checksum is compared before anything is returned."""
    return _decode(open_source(path))


def write(
    file: IO[bytes],
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Write a frame; ``metadata`` becomes what the sender says."""
    state = blake3(max_threads=blake3.AUTO)
    for part in _parts(entries, metadata):
        for piece in pieces(part.read()) if isinstance(part, Entry) else [part]:
            state.update(piece)
            file.write(piece)
            if isinstance(part, Entry):
                on_bytes(len(piece))
    file.write(state.digest())


def _hash(view: memoryview) -> bytes:
    threads = blake3.AUTO if len(view) >= _THREADED else 1
    return blake3(view, max_threads=threads).digest()


def _decode(source: Source) -> Archive:
    head = read_head(source)
    end = source.size - _DIGEST
    if _hash(source.view[:end]) != bytes(source.view[end:]):
        source.refuse("checksum", "the frame does not match its checksum")
    body = source.window(head.body, head.body_length, "the body")
    entries: dict[str, Entry] = {}
    for name, dtype_name, shape, offset, length in head.tensors:
        dtype = ALLOWED[dtype_name]
        view = body.read(offset, length, shown(name))
        identity = offset if length else None
        entries[name] = Entry(shape, dtype, partial(array_of, view, dtype, shape), identity)
    return checked(Archive(source.path, NAME, entries, head.about))


def read_head(source: Source) -> Head:
    """Everything before the tensors, checked; the checksum of the whole frame is not.

    Raises:
        FormatRefused: The frame breaks the specification.
    """
    fields = _PREFIX.unpack(source.read(0, _PREFIX.size, "the prefix"))
    magic, major, _, flags, length, crc, body_length, total = fields
    if magic != MAGIC or any(source.view[40 : _PREFIX.size]):
        source.refuse("not-a-frame", "does not start as a frame does")
    if major != MAJOR:
        source.refuse("frame-version", f"is a frame of version {major}; expected {MAJOR}", value=major)
    if flags >> 16:
        source.refuse("frame-version", f"needs features that this version does not have: flags {flags:#x}")
    if length > MAX_HEADER:
        source.refuse("header-too-large", f"its header has {length} bytes", limit=MAX_HEADER, value=length)
    raw = bytes(source.read(_PREFIX.size, length, "the header"))
    start = _PREFIX.size + length + -length % ALIGNMENT
    if total != source.size or start + body_length + _DIGEST != total:
        source.refuse("size-mismatch", f"states {total} bytes and has {source.size}", value=total)
    if google_crc32c.value(raw) != crc:
        source.refuse("checksum", "the header does not match its checksum")
    if any(source.view[_PREFIX.size + length : start]):
        source.refuse("bad-header", "has something between the header and the body")
    header = _unpack(source, raw)
    about, tensors = header.get("about"), header.get("tensors")
    if list(header) != ["about", "tensors"] or not isinstance(about, dict) or not isinstance(tensors, list):
        source.refuse("bad-header", "its header is not a map of 'about' and 'tensors'")
    if list(about) != sorted(about) or not all(isinstance(value, str) for value in about.values()):
        source.refuse("bad-header", "what the sender says is not text in the order of its keys")
    head = Head(about, tuple(_item(source, item) for item in tensors), start, body_length)
    _check_places(source, head)
    return head


def _unpack(source: Source, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key stands twice")
        return result

    def no_extension(code: int, _: bytes) -> NoReturn:
        raise ValueError(f"an extension of type {code}")

    unpacker = msgpack.Unpacker(
        io.BytesIO(raw),
        raw=False,
        strict_map_key=True,
        object_pairs_hook=unique,
        ext_hook=no_extension,
        max_buffer_size=MAX_HEADER,
        max_str_len=MAX_HEADER,
        max_bin_len=0,
        max_array_len=MAX_TENSORS,
        max_map_len=1024,
        max_ext_len=0,
    )
    try:
        header = unpacker.unpack()
        canonical = msgpack.packb(header)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        source.refuse("bad-header", f"its header is not msgpack: {shown(str(error) or type(error).__name__)}")
    if canonical != raw:
        source.refuse("bad-header", "its header is not in the shortest form")
    if not isinstance(header, dict):
        source.refuse("bad-header", "its header is no map")
    return header


def _item(source: Source, item: object) -> tuple[str, str, tuple[int, ...], int, int]:
    match item:
        case [str(name), str(dtype), list(shape), int(offset), int(length)] if (
            dtype in ALLOWED
            and 0 < len(name) <= MAX_NAME
            and len(shape) <= MAX_RANK
            and all(type(size) is int for size in (*shape, offset, length))
        ):
            size = check_shape(source.path, name, tuple(shape)) * ALLOWED[dtype].itemsize
            if size != length:
                source.refuse("size-mismatch", f"tensor {shown(name)} needs {size} bytes and has {length}")
            return name, dtype, tuple(shape), offset, length
        case _:
            source.refuse("bad-header", "a tensor is not name, dtype, shape, offset and length")


def _check_places(source: Source, head: Head) -> None:
    """Tensors lie one after the other; only a tied one repeats the place of an earlier one."""
    end = 0
    known: dict[int, tuple[str, tuple[int, ...]]] = {}
    names: set[str] = set()
    for name, dtype, shape, offset, length in head.tensors:
        if name in names:
            source.refuse("duplicate-name", f"holds two tensors named {shown(name)}")
        names.add(name)
        if offset == end:
            if length:
                known[offset] = (dtype, shape)
            end += length + -length % ALIGNMENT
            padding = head.body + offset + length
            if any(source.read(padding, -length % ALIGNMENT, "padding")):
                source.refuse("trailing-data", f"has something behind the tensor {shown(name)}")
        elif known.get(offset) != (dtype, shape):
            source.refuse(
                "overlap", f"tensor {shown(name)} does not lie behind the one before it", offset=offset
            )
    if end != head.body_length:
        source.refuse("trailing-data", f"{head.body_length - end} bytes of its body belong to no tensor")


def _matches(head: bytes, source: Source) -> bool:
    del source
    return head.startswith(MAGIC)


FORMAT = Format(NAME, read, (".xbf",), write, matches=_matches)
