"""PyTorch's format from before version 1.6: five pickles, then the storages one after the other.

The format: ``_legacy_save`` in ``torch/serialization.py``; ``torch.save(_use_new_zipfile_serialization=False)`` still
writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from xbackend_fl.formats.pickle_machine import MAX_BYTES, Machine
from xbackend_fl.formats.source import Source, shown

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_VERSION = 1001


@dataclass(frozen=True)
class Block:
    """The bytes of a storage.

    Attributes:
        name: Name of the record that holds them.
        size: Number of bytes.
        read: Returns them.
    """

    name: str
    size: int
    read: Callable[[], memoryview]


def content(source: Source) -> tuple[Any, dict[str, Block], dict[str, str]]:
    """The object, its storages by key, and what the file says about itself.

    Raises:
        FormatRefused: The file breaks the format.
    """
    program = bytes(source.view[:MAX_BYTES])
    found: list[Any] = []
    widths: dict[str, int] = {}
    at = len(MAGIC)
    for _ in range(4):
        machine = Machine(source, program, at)
        found.append(machine.run())
        at = machine.end
        widths |= {key: 1 if dtype is None else dtype.itemsize for key, dtype in machine.storages.items()}
    version, system, root, keys = found
    if version != _VERSION or not isinstance(system, dict):
        source.refuse(
            "bad-header", "does not say that it is of version 1001, as every file of this kind does"
        )
    if system.get("little_endian") is not True:
        source.refuse("byte-order", "was written on a big-endian machine")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        source.refuse("bad-header", "does not list its storages")
    blocks: dict[str, Block] = {}
    for key in keys:
        what = f"storage {shown(key)}"
        if key not in widths or key in blocks:
            source.refuse("bad-header", f"{what} is of no tensor, or stands twice")
        size = int.from_bytes(source.read(at, 8, what), "little", signed=True) * widths[key]
        source.read(at + 8, size, what)
        blocks[key] = Block(key, size, partial(source.read, at + 8, size, what))
        at += 8 + size
    if at != source.size:
        source.refuse(
            "trailing-data", f"{source.size - at} bytes after its last storage belong to none", offset=at
        )
    return root, blocks, {"writer": "PyTorch, format from before version 1.6"}
