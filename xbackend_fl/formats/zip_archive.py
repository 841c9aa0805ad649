"""ZIP archives, read by both of their tables of contents, which must agree.

Readers that trust one table and not the other can be shown different content (APPNOTE.TXT 6.3.10, sections
4.3 and 4.4, describes the records). Members are stored or deflated; nothing is written to disk.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from xbackend_fl.formats.limits import MAX_TENSORS, declared_limit
from xbackend_fl.formats.source import Source, shown

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_FOLLOW = 1, 8
_DIRECTORY = 0x10
_TYPE, _LINK = 0o170000, 0o120000
_OTHER_NAME = 0x7075
_LEADS_OUT = re.compile(r"/|[A-Za-z]:(?!\d+\.npy$)|.*\\|(.*/)?(\.{0,2})/|(.*/)?\.{1,2}$")
"""Absolute, of a drive (but NumPy's ``w:0.npy`` is TensorFlow's variable), or with parts that are no names."""

_FULL = 0xFFFFFFFF
_MAX_MEMBERS = MAX_TENSORS + 1000


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Attributes:
        name: Its name.
        method: 0 stored, 8 deflated.
        crc: CRC-32 of its content; ``None`` if its writer left it out.
        stored: Bytes in the archive.
        size: Bytes of its content.
        header: Offset of its local header.
        offset: Offset of its data.
    """

    name: str
    method: int
    crc: int | None
    stored: int
    size: int
    header: int
    offset: int = 0


def is_zip(head: bytes) -> bool:
    """Whether a file begins as a ZIP archive does."""
    return head.startswith(b"PK")


def members(source: Source) -> dict[str, Member]:
    """The files of an archive by name.

    Nothing is ever unpacked, but a file whose names lead elsewhere lies to whoever does.

    Raises:
        FormatRefused: ``not-a-zip``, ``outside`` or ``bad-name`` for a name that is a way out, ``bad-zip`` where the tables disagree or overlap, ``zip-encrypted``,
            ``zip-method``, ``duplicate-name``, ``too-many-tensors`` or ``expansion``.
    """
    start, size, count = _directory(source)
    found: dict[str, Member] = {}
    for member in _central(source, source.read(start, size, "the table of contents"), count):
        if member.name in found:
            source.refuse("duplicate-name", f"holds {shown(member.name)} twice")
        found[member.name] = _located(source, member)
    spans = sorted((m.header, m.offset + m.stored, m.name) for m in found.values())
    for (_, end, _), (begin, _, name) in pairwise([(0, 0, ""), *spans, (start, start, "")]):
        if begin < end:
            source.refuse("bad-zip", f"{shown(name)} overlaps what is before it", offset=begin)
    if spans and spans[0][0] != 0:
        source.refuse("bad-zip", "holds something before the first file", offset=0)
    total = sum(member.size for member in found.values())
    if total > declared_limit(source.size):
        source.refuse(
            "expansion",
            f"{source.size} bytes would unpack to {total}",
            limit=declared_limit(source.size),
            value=total,
        )
    return found


def unchecked(found: dict[str, Member]) -> dict[str, Member]:
    """The files without their checksums, if every one of them is zero: so PyTorch leaves them out.

    No damage to one place makes all of them zero.
    """
    if any(member.crc for member in found.values()) or not any(member.size for member in found.values()):
        return found
    return {name: replace(member, crc=None) for name, member in found.items()}


def content(source: Source, member: Member) -> memoryview:
    """What a member holds, checked against its CRC: a view, if it is stored.

    Raises:
        FormatRefused: ``bad-zip`` or ``checksum``.
    """
    raw = source.read(member.offset, member.stored, shown(member.name))
    if member.method == _DEFLATED:
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            raw = memoryview(engine.decompress(raw, member.size + 1))
        except zlib.error as error:
            source.refuse("bad-zip", f"{shown(member.name)} is not deflated data: {error}")
        if len(raw) != member.size or not engine.eof:
            source.refuse("bad-zip", f"{shown(member.name)} does not unpack to {member.size} bytes")
    if member.crc is not None and zlib.crc32(raw) != member.crc:
        source.refuse("checksum", f"{shown(member.name)} does not match its checksum", offset=member.offset)
    return raw


def _directory(source: Source) -> tuple[int, int, int]:
    """Offset, size and number of entries of the central directory."""
    if bytes(source.view[:4]) not in (_LOCAL, _END):
        source.refuse("not-a-zip", "is not a ZIP archive")
    tail_at = max(0, source.size - 22 - 0xFFFF)
    tail = bytes(source.view[tail_at:])
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        source.refuse("bad-zip", "has no end record: it was cut short")
    disk, first, here, count, size, start, comment = struct.unpack_from("<HHHHLLH", tail, at + 4)
    end = tail_at + at
    if at + 22 + comment != len(tail):
        source.refuse("trailing-data", "goes on behind its end record", offset=end + 22 + comment)
    if end >= 20 and bytes(source.view[end - 20 : end - 16]) == _LOCATOR64:
        (at64,) = struct.unpack_from("<Q", source.view, end - 20 + 8)
        record = bytes(source.read(at64, 56, "the ZIP64 end record"))
        if record[:4] != _END64 or at64 + 56 != end - 20:
            source.refuse("bad-zip", "has no ZIP64 end record where its locator points")
        disk, first, here, count, size, start = struct.unpack_from("<LLQQQQ", record, 16)
        end = at64
    if disk or first or here != count or start + size != end:
        source.refuse("bad-zip", "its end record does not point at the table of contents before it")
    if count > _MAX_MEMBERS:
        source.refuse("too-many-tensors", f"holds {count} files", limit=_MAX_MEMBERS, value=count)
    return start, size, count


def _central(source: Source, table: memoryview, count: int) -> Iterator[Member]:
    at = 0
    for _ in range(count):
        if bytes(table[at : at + 4]) != _CENTRAL or at + 46 > len(table):
            source.refuse("bad-zip", f"its table of contents breaks off at byte {at}")
        flags, method, _, _, crc, stored, size, n, m, k, disk, _, attributes, header = struct.unpack_from(
            "<HHHHLLLHHHHHLL", table, at + 8
        )
        name_at, extra_at = at + 46, at + 46 + n
        at = extra_at + m + k
        if at > len(table):
            source.refuse("bad-zip", "an entry of its table of contents is cut short")
        name = _name(source, bytes(table[name_at:extra_at]))
        if attributes >> 16 & _TYPE == _LINK:
            source.refuse("outside", f"{shown(name)} is a link")
        if attributes & _DIRECTORY:
            # PyTorch's reader then returns memory that nobody has written (found by mutation, PyTorch 2.13).
            source.refuse("bad-zip", f"{shown(name)} is marked as a folder")
        if flags & _ENCRYPTED:
            source.refuse("zip-encrypted", f"{shown(name)} is encrypted")
        if method not in (_STORED, _DEFLATED):
            source.refuse("zip-method", f"{shown(name)} is packed by method {method}", value=method)
        size, stored, header = _wide(
            source, bytes(table[extra_at : extra_at + m]), name, [size, stored, header]
        )
        if disk or (method == _STORED and size != stored):
            source.refuse("bad-zip", f"{shown(name)} is stored and has two sizes")
        yield Member(name, method, crc, stored, size, header)
    if at != len(table):
        source.refuse("bad-zip", "its table of contents goes on behind the last entry")


def _wide(source: Source, extra: bytes, name: str, fields: list[int]) -> list[int]:
    """Fields that do not fit 32 bits stand in an extra field, in this order, only where they are full."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        body = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind == _OTHER_NAME:
            source.refuse("bad-zip", f"{shown(name)} has a second name")
        if kind == 1:
            full = [index for index, value in enumerate(fields) if value == _FULL]
            if len(body) < 8 * len(full):
                source.refuse("bad-zip", f"the ZIP64 field of {shown(name)} is cut short")
            for place, index in enumerate(full):
                (fields[index],) = struct.unpack_from("<Q", body, 8 * place)
            break
    return fields


def _name(source: Source, raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        source.refuse("bad-name", f"the file name {shown(raw)} is not UTF-8")
    if not name or not name.isprintable():
        source.refuse("bad-name", f"the file name {shown(name)} is empty or not printable")
    if _LEADS_OUT.match(name):
        source.refuse("outside", f"holds {shown(name)}, a path that leads out of the archive or around in it")
    return name


def _located(source: Source, member: Member) -> Member:
    """The member with the offset of its data, after its local header was compared."""
    head = bytes(source.read(member.header, 30, f"the header of {shown(member.name)}"))
    if head[:4] != _LOCAL:
        source.refuse("bad-zip", f"{shown(member.name)} has no header", offset=member.header)
    flags, method, _, _, crc, stored, size, n, m = struct.unpack_from("<HHHHLLLHH", head, 6)
    tail = source.read(member.header + 30, n + m, f"the header of {shown(member.name)}")
    size, stored = _wide(source, bytes(tail[n:]), member.name, [size, stored])
    same = (method, bytes(tail[:n]).decode("utf-8", "replace")) == (member.method, member.name)
    local, central = (crc, stored, size), (member.crc, member.stored, member.size)
    follows = flags & _SIZES_FOLLOW and local in ((0, 0, 0), (0, _FULL, _FULL), (0, *central[1:]))
    if not same or flags & _ENCRYPTED or (local != central and not follows):
        source.refuse("bad-zip", f"{shown(member.name)} differs between the two tables of contents")
    offset = member.header + 30 + n + m
    source.read(offset, member.stored, shown(member.name))
    return replace(member, offset=offset)
