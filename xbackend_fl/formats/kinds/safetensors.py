"""safetensors: a JSON header and raw bytes. The format: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from xbackend_fl.errors import FileError
from xbackend_fl.formats.archive import (
    Archive,
    Entry,
    aliases_of,
    array_of,
    check_count,
    check_shape,
    checked,
)
from xbackend_fl.formats.dtypes import SAFETENSORS
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.limits import MAX_HEADER
from xbackend_fl.formats.source import Source, open_source, shown
from xbackend_fl.formats.streams import write_array
from xbackend_fl.formats.strict_json import parse

NAME = "safetensors"
_PLAIN_KEYS = {"format", "fingerprint", "digest", "kinds", "round", "history", "cases"}
_NAMES = {dtype: name for name, dtype in SAFETENSORS.items()}


def read(path: Path) -> Archive:
    """Read the header; tensors are views of the file.

    A key of the metadata that names no tensor, with a value that does, is an alias: so PyTorch's
    ``safetensors.torch.save_model`` stores tied weights.

    Raises:
        FormatRefused: The file breaks the format.
    """
    source = open_source(path)
    length = int.from_bytes(source.read(0, 8, "the length of the header"), "little")
    if length > MAX_HEADER:
        source.refuse("header-too-large", f"the header has {length} bytes", limit=MAX_HEADER, value=length)
    raw = bytes(source.read(8, length, "the header"))
    if raw[:1] != b"{":
        source.refuse("bad-header", "the header does not start with an opening brace")
    header = parse(source, raw, "the header")
    metadata = _metadata(source, header.pop("__metadata__", {}))
    body = source.window(8 + length, source.size - 8 - length, "the data")
    check_count(path, len(header))
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for name, item in header.items():
        entries[name], span = _entry(body, name, item)
        spans.append(span)
    _check_spans(body, spans)
    for alias, owner in list(metadata.items()):
        if owner in entries and alias not in entries and alias not in _PLAIN_KEYS:
            entries[owner] = replace(entries[owner], identity=owner)
            entries[alias] = entries[owner]
            del metadata[alias]
    return checked(Archive(path, NAME, entries, metadata))


def write(
    file: IO[bytes],
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Write tensors one after the other; a tied tensor is written once and named in the metadata."""
    aliases = aliases_of(entries)
    header: dict[str, Any] = {"__metadata__": {**metadata, **aliases}} if metadata or aliases else {}
    end = 0
    # The largest items first, as the reference writer does: every tensor is aligned to its item size.
    kept = sorted((n for n in entries if n not in aliases), key=lambda n: -entries[n].dtype.itemsize)
    for name in kept:
        entry = entries[name]
        if name == "__metadata__" or entry.dtype not in _NAMES:
            raise FileError(f"safetensors cannot hold the tensor {name!r} of dtype {entry.dtype}")
        start, end = end, end + entry.num_bytes
        header[name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in kept:
        write_array(file, entries[name].read(), on_bytes)


def _metadata(source: Source, metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        source.refuse("bad-header", "the metadata is not a map of text to text")
    return metadata


def _entry(body: Source, name: str, item: object) -> tuple[Entry, tuple[int, int]]:
    what = f"tensor {shown(name)}"
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        body.refuse("bad-header", f"{what} is not described by dtype, shape and data_offsets")
    dtype = SAFETENSORS.get(item["dtype"]) if isinstance(item["dtype"], str) else None
    if dtype is None:
        body.refuse("dtype", f"{what} has the dtype {shown(item['dtype'])}")
    shape, offsets = _integers(body, item["shape"], what), _integers(body, item["data_offsets"], what)
    size = check_shape(body.path, name, shape) * dtype.itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        body.refuse("size-mismatch", f"{what} of {size} bytes has the offsets {shown(list(offsets))}")
    view = body.read(offsets[0], size, what)
    return Entry(shape, dtype, partial(array_of, view, dtype, shape)), (offsets[0], offsets[1])


def _integers(body: Source, value: object, what: str) -> tuple[int, ...]:
    plain = isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
    if not plain or not isinstance(value, list):
        body.refuse("bad-header", f"{what}: {shown(value)} is not a list of sizes")
    return tuple(value)


def _check_spans(body: Source, spans: list[tuple[int, int]]) -> None:
    """Tensors cover the data without gap or overlap, as the format demands."""
    ordered = sorted(spans)
    for (_, end), (start, _) in pairwise([(0, 0), *ordered]):
        if start != end:
            word = "overlap" if start < end else "leave a gap"
            body.refuse("overlap", f"tensors {word} at byte {min(start, end)} of the data", offset=start)
    end = ordered[-1][1] if ordered else 0
    if end != body.size:
        body.refuse(
            "trailing-data", f"{body.size - end} bytes after the last tensor belong to none", offset=end
        )


def _matches(head: bytes, source: Source) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= source.size - 8


FORMAT = Format(NAME, read, (".safetensors",), write, matches=_matches)
