"""TensorFlow's checkpoints, also those inside a SavedModel, read without TensorFlow and without the graph.

An index (a sorted table as LevelDB writes it, ``tensorflow/core/lib/io/format.cc``) names the tensors and where
in which data file they lie (``tensorflow/core/protobuf/tensor_bundle.proto``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import google_crc32c
import numpy as np

from xbackend_fl.errors import FileError
from xbackend_fl.formats.archive import Archive, Array, Entry, array_of, check_shape, checked
from xbackend_fl.formats.dtypes import TENSORFLOW, DType
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.limits import MAX_HEADER, MAX_NAME, MAX_TENSORS, declared_limit
from xbackend_fl.formats.protobuf import fields, signed, text, varint
from xbackend_fl.formats.source import Source, open_beside, open_source, shown
from xbackend_fl.formats.tensor_slices import PREFIX, TensorSlice, parse_slice, size_of

NAME = "checkpoint"
GRAPH = "saved_model.pb"
"""What lies in a SavedModel's folder beside its checkpoint."""
_MAGIC = bytes.fromhex("57fb808b247547db")
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SECOND_LIST = "_all_variables/"
_STRING = 7


def read(path: Path) -> Archive:
    """Read the index; tensors are views of the data files.

    Args:
        path: A SavedModel's folder, a folder with one checkpoint, the ``.index`` file, or the path without it.

    Raises:
        FormatRefused: A file breaks the format.
    """
    index = index_file(path)
    source = open_source(index)
    bundle = _Bundle(source)
    names = _names(bundle)
    entries: dict[str, Entry] = {}
    # Keras's export keeps a second list of every variable, in an order that changes from run to run.
    twice = any(key.startswith("variables/") for key in bundle.items)
    for key, item in bundle.items.items():
        if item.dtype == _STRING or (twice and key.startswith(_SECOND_LIST)):
            continue
        name = names.get(key, key.removesuffix(_SUFFIX))
        entries[name] = bundle.entry(key, name, item)
    left = sum(item.dtype == _STRING for item in bundle.items.values())
    notes = (f"{left} values that are no tensors were left out",) if left else ()
    return checked(Archive(path, NAME, entries, {"writer": "TensorFlow checkpoint"}, notes))


def index_file(path: Path) -> Path:
    """The index of the checkpoint that ``path`` means.

    Raises:
        FileError: There is none, or a folder holds several and does not say which.
    """
    if path.is_dir():
        inner = path / "variables" / "variables.index"
        if inner.is_file():
            return inner
        found = sorted(path.glob("*.index"))
        state = path / "checkpoint"
        if len(found) > 1 and state.is_file():
            latest = re.search(r'^model_checkpoint_path: "([^"/\\]{1,255})"', _beginning(state))
            if latest is not None:
                found = [path / f"{latest[1]}.index"]
        if len(found) != 1:
            raise FileError(
                f"{path} holds {len(found)} checkpoints", hint="name one: its file ends in .index"
            )
        return found[0]
    if path.suffix == ".index":
        return path
    return path.with_name(path.name + ".index")


def _beginning(path: Path) -> str:
    with path.open(errors="replace") as file:
        return file.read(4096)


@dataclass(frozen=True)
class _Item:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    parts: tuple[TensorSlice, ...] = ()


class _Bundle:
    """The index of a checkpoint, and its data files."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.items: dict[str, _Item] = {}
        self._parts: dict[bytes, _Item] = {}
        self._shards = 0
        self._opened: dict[int, Source] = {}
        for key, value in _table(source):
            if isinstance(key, bytes):
                self._parts[key] = self._item(value)
            elif key == "":
                self._header(value)
            elif key in self.items:
                source.refuse("duplicate-name", f"its index names {shown(key)} twice")
            else:
                self.items[key] = self._item(value)
        if not self._shards:
            source.refuse("bad-header", "its index has no header")
        whole = {part.key(name) for name, item in self.items.items() for part in item.parts}
        lost = next((key for key in self._parts if key not in whole), None)
        if lost is not None:
            source.refuse("bad-header", f"its index has a part of no variable: {shown(lost)}")

    def entry(self, key: str, name: str, item: _Item) -> Entry:
        dtype = TENSORFLOW.get(item.dtype)
        what = f"tensor {shown(name)}"
        if dtype is None:
            self.source.refuse("dtype", f"{what} has the data type {item.dtype}", value=item.dtype)
        size = check_shape(self.source.path, name, item.shape) * dtype.itemsize
        if item.parts:
            return Entry(item.shape, dtype, self._joined(key, item, dtype, what))
        if size != item.size:
            self.source.refuse("size-mismatch", f"{what} needs {size} bytes and has {item.size}")
        self.data(item, what)
        return Entry(item.shape, dtype, partial(self._array, item, dtype, what))

    def data(self, item: _Item, what: str) -> memoryview:
        """The bytes of a tensor."""
        if item.shard >= self._shards:
            self.source.refuse("bad-header", f"{what} lies in data file {item.shard} of {self._shards}")
        if item.shard not in self._opened:
            stem = self.source.path.name.removesuffix(".index")
            name = f"{stem}.data-{item.shard:05d}-of-{self._shards:05d}"
            self._opened[item.shard] = open_beside(self.source.path, name)
        return self._opened[item.shard].read(item.offset, item.size, what)

    def checked_data(self, item: _Item, what: str) -> memoryview:
        """The bytes of a tensor, compared with their checksum."""
        raw = self.data(item, what)
        if _masked_crc(raw) != item.crc:
            self.source.refuse("checksum", f"{what} does not match its checksum", offset=item.offset)
        return raw

    def _joined(self, key: str, item: _Item, dtype: DType, what: str) -> Callable[[], Array]:
        """Joins the parts of a variable, after each was found and they were counted."""
        boxes: list[tuple[tuple[slice, ...], _Item]] = []
        for part in item.parts:
            box, held = part.box(item.shape), self._parts.get(part.key(key))
            if box is None or held is None:
                self.source.refuse("bad-header", f"{what} has a part outside it, or one that is not there")
            shape = tuple(axis.stop - axis.start for axis in box)
            if (held.dtype, held.shape, held.size) != (item.dtype, shape, size_of(box) * dtype.itemsize):
                self.source.refuse("size-mismatch", f"a part of {what} does not have the values it should")
            self.data(held, what)
            boxes.append((box, held))
        total = sum(size_of(box) for box, _ in boxes)
        if total != prod(item.shape):
            self.source.refuse(
                "size-mismatch", f"{what} needs {prod(item.shape)} values and its parts have {total}"
            )
        stored = sum(opened.size for opened in self._opened.values())
        if total * dtype.itemsize > declared_limit(stored):
            self.source.refuse(
                "expansion", f"{what} would join parts of {stored} bytes to {total * dtype.itemsize}"
            )

        def join() -> Array:
            result = np.empty(item.shape, dtype)
            filled = np.zeros(item.shape, np.bool_)
            for box, held in boxes:
                result[box] = self._array(held, dtype, what)
                filled[box] = True
            if not filled.all():
                self.source.refuse("overlap", f"parts of {what} overlap, and others are missing")
            return result

        return join

    def _array(self, item: _Item, dtype: DType, what: str) -> Array:
        return array_of(self.checked_data(item, what), dtype, item.shape)

    def _header(self, value: memoryview) -> None:
        for number, _, content in fields(self.source, value):
            if number == 1 and isinstance(content, int):
                self._shards = content
            elif number == 2 and content != 0:
                self.source.refuse("byte-order", "was written on a big-endian machine")
        if not 0 < self._shards <= MAX_TENSORS:
            self.source.refuse("bad-header", f"its index says {self._shards} data files")

    def _item(self, value: memoryview) -> _Item:
        plain = {1: 0, 3: 0, 4: 0, 5: 0}
        shape: tuple[int, ...] = ()
        crc = 0
        parts: list[TensorSlice] = []
        for number, wire, content in fields(self.source, value):
            if number == 2 and isinstance(content, memoryview):
                shape = self._shape(content)
            elif number == 6 and isinstance(content, memoryview) and len(content) == 4:
                crc = int.from_bytes(content, "little")
            elif number == 7 and isinstance(content, memoryview):
                parts.append(parse_slice(self.source, content))
            elif number in plain and wire == 0:
                plain[number] = signed(content)
        return _Item(plain[1], shape, plain[3], plain[4], plain[5], crc, tuple(parts))

    def _shape(self, view: memoryview) -> tuple[int, ...]:
        sizes = []
        for number, _, dimension in fields(self.source, view):
            if number == 3 and dimension:
                self.source.refuse("bad-shape", "a tensor has no known rank")
            if number == 2 and isinstance(dimension, memoryview):
                found = [
                    value for key, wire, value in fields(self.source, dimension) if (key, wire) == (1, 0)
                ]
                sizes.append(signed(found[-1]) if found else 0)
        return tuple(sizes)


def _names(bundle: _Bundle) -> dict[str, str]:
    """Names of variables by checkpoint key, as the object graph tells them, where they are unambiguous.

    Keys are positions (``_operations/1/_kernel``); the graph knows what the variable was called.
    """
    item = bundle.items.get(_OBJECTS)
    if item is None or item.dtype != _STRING or item.shape != ():
        return {}
    source = bundle.source
    # A string tensor: the length as a varint, a checksum of the lengths, the text; its CRC covers the text otherwise.
    raw = bundle.data(item, "the object graph")
    if len(raw) > MAX_HEADER:
        source.refuse("header-too-large", f"the object graph has {len(raw)} bytes", limit=MAX_HEADER)
    length, at = varint(source, raw, 0)
    if at + 4 + length != len(raw):
        source.refuse("size-mismatch", "the object graph does not have the length it states")
    found: dict[str, str] = {}
    for number, _, node in fields(source, raw[at + 4 :]):
        if number != 1 or not isinstance(node, memoryview):
            continue
        for kind, _, attribute in fields(source, node):
            if kind == 2 and isinstance(attribute, memoryview):
                plain = {k: v for k, _, v in fields(source, attribute)}
                if 2 in plain and 3 in plain:
                    found[text(source, plain[3])] = text(source, plain[2])
    return _unambiguous(found, bundle.items)


def _unambiguous(found: Mapping[str, str], items: Mapping[str, _Item]) -> dict[str, str]:
    used: dict[str, int] = {}
    for key in items:
        used[found.get(key, "")] = used.get(found.get(key, ""), 0) + 1
    taken = {key.removesuffix(_SUFFIX) for key in items}
    return {
        key: name
        for key, name in found.items()
        if key in items and name and used[name] == 1 and name not in taken and len(name) <= MAX_NAME
    }


def _table(source: Source) -> Iterator[tuple[str | bytes, memoryview]]:
    """Keys and values of a sorted table; the key of a part of a variable is bytes."""
    footer = source.read(source.size - 48, 48, "the footer")
    if bytes(footer[40:]) != _MAGIC:
        source.refuse("not-a-checkpoint", "is not the index of a TensorFlow checkpoint")
    _, _, at = _handle(source, footer, 0)
    offset, size, _ = _handle(source, footer, at)
    total = 0
    for _, value in _block(source, offset, size):
        inner, length, _ = _handle(source, value, 0)
        last = b""
        for key, content in _block(source, inner, length):
            total += 1
            if total > MAX_TENSORS:
                source.refuse("too-many-tensors", f"names more than {MAX_TENSORS} tensors", limit=MAX_TENSORS)
            if total > 1 and key <= last:
                source.refuse("bad-header", f"the keys of its index are not in order at {shown(key)}")
            last = key
            if key.startswith(PREFIX):
                yield key, content
                continue
            try:
                yield key.decode("utf-8"), content
            except UnicodeDecodeError:
                source.refuse("bad-name", f"the key {shown(key)} is not UTF-8")


def _handle(source: Source, view: memoryview, at: int) -> tuple[int, int, int]:
    offset, at = varint(source, view, at)
    size, at = varint(source, view, at)
    return offset, size, at


def _block(source: Source, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    """Entries of a block; each key repeats the first bytes of the one before it."""
    raw = source.read(offset, size + 5, "a block of the index")
    (crc,) = struct.unpack("<L", raw[size + 1 :])
    if _masked_crc(raw[: size + 1]) != crc:
        source.refuse("checksum", f"the block at byte {offset} of its index does not match its checksum")
    if raw[size] != 0:
        source.refuse("checkpoint-compression", f"its index is compressed (method {raw[size]})")
    (restarts,) = (
        struct.unpack("<L", source.read(offset + size - 4, 4, "a block of the index")) if size >= 4 else (0,)
    )
    end = size - 4 - 4 * restarts
    if end < 0:
        source.refuse("bad-header", "a block of its index is cut short")
    at, key = 0, b""
    view = raw[:end]
    while at < end:
        shared, at = varint(source, view, at)
        own, at = varint(source, view, at)
        length, at = varint(source, view, at)
        if shared > len(key) or own > MAX_NAME + 1024 or at + own + length > end:
            source.refuse("bad-header", "an entry of its index does not fit its block")
        key = key[:shared] + bytes(view[at : at + own])
        at += own
        yield key, view[at : at + length]
        at += length


def _masked_crc(view: memoryview) -> int:
    """CRC-32C as LevelDB stores it: rotated and shifted, because a CRC of data with CRCs is weak."""
    crc = 0
    for start in range(0, len(view), 1 << 20):
        crc = google_crc32c.extend(crc, bytes(view[start : start + (1 << 20)]))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _is_at(path: Path) -> bool:
    """A folder that is no SavedModel's, or the path of an index without its ending."""
    if path.is_dir():
        return not (path / GRAPH).is_file()
    return not path.exists() and path.with_name(f"{path.name}.index").is_file()


FORMAT = Format(NAME, read, (".index",), is_at=_is_at)
