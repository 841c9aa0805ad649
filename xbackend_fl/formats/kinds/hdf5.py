"""HDF5 (``.h5``), also in Keras's formats, as data only.

The HDF5 library runs in a confined process; contiguous datasets are then read where they lie in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

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
from xbackend_fl.formats.confined import Reply
from xbackend_fl.formats.dtypes import BFLOAT16, DESCRIPTIONS, DType
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.source import Source, open_source, shown
from xbackend_fl.formats.streams import PIECE

NAME = "hdf5"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ALL_GUARDS = 3


def read(path: Path) -> Archive:
    """Datasets by path; groups are followed through hard links only.

    Raises:
        FormatRefused: The file breaks the format, keeps data elsewhere, or its parser had to be stopped.
    """
    return read_source(open_source(path), NAME, {})


def write(
    file: IO[bytes],
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Write one dataset per tensor, its name a path; tied tensors are two names of one dataset.

    Raises:
        FileError: A dtype or metadata that HDF5 does not have, or names of which one lies inside another.
    """
    import h5py  # noqa: PLC0415  only for writing: reading never loads it here

    aliases = aliases_of(entries)
    with h5py.File(file, "w") as out:
        for key, text in metadata.items():
            try:
                out.attrs[key] = text
            except (ValueError, OSError, RuntimeError) as error:
                raise FileError(
                    f"HDF5 cannot hold the metadata {shown(key)}: it has a zero byte, or is too long",
                    hint="write .safetensors",
                ) from error
        for name, entry in entries.items():
            if entry.dtype not in DESCRIPTIONS.values():
                raise FileError(
                    f"HDF5 has no dtype for the tensor {name!r} of {entry.dtype}", hint="--dtype float32"
                )
            try:
                if name in aliases:
                    out[name] = out[aliases[name]]
                    continue
                dataset = out.create_dataset(name, entry.shape, entry.dtype)
            except (ValueError, OSError) as error:
                raise FileError(
                    f"HDF5 cannot hold a tensor named {name!r} beside the others", hint="--rename"
                ) from error
            _fill(dataset, entry.read(), on_bytes)


def _fill(dataset: Any, array: Array, on_bytes: Callable[[int], None]) -> None:
    if not array.shape:
        dataset[()] = array
        return
    rows = max(1, PIECE * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        dataset[start : start + rows] = part
        on_bytes(part.nbytes)


def read_source(source: Source, name: str, about: Mapping[str, str]) -> Archive:
    """Datasets of a file, or of one inside an archive.

    Args:
        source: Its content.
        name: The format that the archive is said to be.
        about: What is known of it beside what it says.

    Raises:
        FormatRefused: As :func:`read`.
    """
    if bytes(source.view[:8]) != _SIGNATURE:
        source.refuse("bad-hdf5", "does not start as HDF5 files do")
    reply = Reply(source)
    header = reply.header
    if "code" in header:
        reply.refuse(header)
    entries: dict[str, Entry] = {}
    try:
        for index, item in enumerate(header["entries"]):
            entries[item["name"]] = _entry(source, reply, index, item)
        metadata = {**about, **{str(k): str(v) for k, v in header["about"].items()}}
        guards = [str(guard) for guard in header["guards"]]
    except (KeyError, TypeError, AttributeError) as error:
        source.refuse("parser-stopped", f"its parser gave an answer that is none: {shown(str(error))}")
    notes = () if len(guards) == _ALL_GUARDS else (f"the parser was confined in {' and '.join(guards)} only",)
    return checked(Archive(source.path, name, entries, metadata, notes))


def _entry(source: Source, reply: Reply, index: int, item: Mapping[str, Any]) -> Entry:
    what = f"dataset {shown(item['name'])}"
    stored = DESCRIPTIONS.get(item["dtype"])
    shape = tuple(item["shape"])
    if item["marked"] == "bfloat16" and item["dtype"] == "|V2":
        stored = BFLOAT16
    if stored is None:
        source.refuse("dtype", f"{what} has the dtype {shown(item['dtype'])}, which is no number")
    if not all(type(size) is int for size in shape):
        source.refuse("bad-shape", f"{what} has a shape that is none")
    size = check_shape(source.path, item["name"], shape) * stored.itemsize
    dtype = stored.newbyteorder("=")
    offset = item["offset"]
    if type(offset) is int:
        view = source.read(offset, size, what)
        return Entry(shape, dtype, partial(_native, view, stored, shape), item["address"])
    return Entry(shape, dtype, partial(_fetched, reply, index, size, stored, shape), item["address"])


def _native(view: memoryview, stored: DType, shape: tuple[int, ...]) -> Array:
    return array_of(view, stored, shape).astype(stored.newbyteorder("="), copy=False)


def _fetched(reply: Reply, index: int, size: int, stored: DType, shape: tuple[int, ...]) -> Array:
    return _native(reply.data(index, size).toreadonly(), stored, shape)


def _matches(head: bytes, source: Source) -> bool:
    del source
    return head.startswith(_SIGNATURE)


FORMAT = Format(NAME, read, (".h5", ".hdf5"), write, matches=_matches)
