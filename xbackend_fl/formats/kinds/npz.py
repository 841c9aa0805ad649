"""NumPy's archives: ``.npz``. The format: numpy.lib.format. Object arrays are pickles and are refused."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import FileError
from xbackend_fl.formats.archive import Archive, Entry, array_of, check_shape, checked
from xbackend_fl.formats.dtypes import DESCRIPTIONS
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.source import Source, open_source, shown
from xbackend_fl.formats.streams import write_array
from xbackend_fl.formats.zip_archive import Member, content, is_zip, members

NAME = "npz"
_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 64 << 10
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[^']{1,16})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,19}(?:, \d{1,19})*,?)?)\), \}\s*"
)


def read(path: Path) -> Archive:
    """Read the header of every array; uncompressed arrays are views of the file.

    Raises:
        FormatRefused: The file breaks the format, or an array holds anything but numbers.
    """
    source = open_source(path)
    entries = {}
    for member in members(source).values():
        if not member.name.endswith(".npy"):
            source.refuse("bad-header", f"holds {shown(member.name)}, which is no array")
        entries[member.name.removesuffix(".npy")] = _entry(source, member)
    return checked(Archive(path, NAME, entries))


def write(
    file: IO[bytes],
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Write uncompressed arrays; the format has no place for metadata, and none for ties.

    Raises:
        FileError: A dtype that NumPy itself does not have, or a name that is a path out of the archive.
    """
    del metadata
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, entry in entries.items():
            if entry.dtype not in DESCRIPTIONS.values():
                raise FileError(
                    f"npz cannot hold the tensor {name!r} of dtype {entry.dtype}",
                    hint="--dtype float32, or write .safetensors",
                )
            inner = PurePosixPath(f"{name}.npy")
            if inner.is_absolute() or ".." in inner.parts:
                raise FileError(f"npz cannot hold a tensor named {name!r}", hint="--rename")
            # A bare ZipInfo has no time of writing: equal weights are equal bytes.
            member, large = zipfile.ZipInfo(str(inner)), entry.num_bytes >= 1 << 31
            with archive.open(member, "w", force_zip64=large) as out:
                head = {"descr": entry.dtype.str, "fortran_order": False, "shape": entry.shape}
                buffer = io.BytesIO()
                np.lib.format.write_array_header_1_0(buffer, head)
                out.write(buffer.getvalue())
                write_array(out, entry.read(), on_bytes)


def _entry(source: Source, member: Member) -> Entry:
    head = _head(source, member)
    what = f"array {shown(member.name)}"
    if head[:6] != _MAGIC or len(head) < 10 or head[6] not in (1, 2, 3):
        source.refuse("bad-header", f"{what} does not start as NumPy's arrays do")
    wide = head[6] > 1
    (length,) = struct.unpack_from("<L" if wide else "<H", head.ljust(12, b"\0"), 8)
    start = (12 if wide else 10) + length
    if length > _MAX_HEADER or start > len(head):
        source.refuse("header-too-large", f"the header of {what} has {length} bytes", limit=_MAX_HEADER)
    found = _HEADER.fullmatch(head[12 if wide else 10 : start].decode("latin-1"))
    if found is None and b"'descr': [(" in head[:start]:
        source.refuse("dtype", f"{what} is a structured array, whose records are no numbers")
    if found is None:
        source.refuse("bad-header", f"the header of {what} is not a dtype, an order and a shape")
    dtype = DESCRIPTIONS.get(found["descr"])
    if dtype is None:
        source.refuse("dtype", f"{what} has the dtype {shown(found['descr'])}, which is no number")
    shape = tuple(int(size) for size in found["shape"].replace(",", " ").split())
    size = check_shape(source.path, member.name, shape) * dtype.itemsize
    if start + size != member.size:
        source.refuse("size-mismatch", f"{what} needs {size} bytes and has {member.size - start}")
    little = dtype.newbyteorder("=")
    read_it = partial(_array, source, member, start, dtype, shape, fortran=found["fortran"] == "True")
    return Entry(shape, little, read_it)


def _head(source: Source, member: Member) -> bytes:
    """The first bytes of a member, without unpacking the rest."""
    if member.method == 0:
        return bytes(source.read(member.offset, min(member.size, _MAX_HEADER + 12), shown(member.name)))
    return bytes(content(source, member)[: _MAX_HEADER + 12])


def _array(
    source: Source,
    member: Member,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    fortran: bool,
) -> NDArray[Any]:
    raw = content(source, member)[start:]
    array = array_of(raw, dtype, shape[::-1] if fortran else shape)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.T if fortran else array


def _matches(head: bytes, source: Source) -> bool:
    names = members(source) if is_zip(head) else ()
    return bool(names) and all(name.endswith(".npy") for name in names)


FORMAT = Format(NAME, read, (".npz",), write, matches=_matches)
