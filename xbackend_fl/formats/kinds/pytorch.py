"""PyTorch's files (``.pt``, ``.pth``, ``.bin``): a ZIP archive with a pickle and raw storages, without PyTorch."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from xbackend_fl.errors import FileError
from xbackend_fl.formats import pytorch_old
from xbackend_fl.formats.archive import Archive, Array, Entry, aliases_of, check_shape, checked
from xbackend_fl.formats.dtypes import NAMES, TORCH_STORAGES
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.limits import MAX_TENSORS, declared_limit
from xbackend_fl.formats.pickle_machine import MAX_BYTES, Machine
from xbackend_fl.formats.pickle_names import Global, Other, StridedTensor
from xbackend_fl.formats.pytorch_old import Block
from xbackend_fl.formats.source import Source, open_source, shown
from xbackend_fl.formats.streams import write_array
from xbackend_fl.formats.zip_archive import Member, content, is_zip, members, unchecked

NAME = "pytorch"
_STORAGE_NAMES = {dtype: name for name, dtype in TORCH_STORAGES.items()}
_MAX_DEPTH = 16
_MAX_LEAVES = 4 * MAX_TENSORS


def read(path: Path) -> Archive:
    """Read the pickle as data; tensors are strided views of the file.

    Nested containers are flattened: ``{"state_dict": {"fc.weight": …}}`` gives ``state_dict.fc.weight``. Tensors
    that share their storage keep one identity.

    Raises:
        FormatRefused: The file breaks the format, or its pickle names anything but tensors and containers.
    """
    source = open_source(path)
    head = bytes(source.view[:512])
    if head[257:262] == b"ustar":
        source.refuse("pytorch-legacy", "is a tar, as PyTorch wrote before version 0.1.10")
    if head.startswith(pytorch_old.MAGIC):
        root, blocks, about = pytorch_old.content(source)
        return _archive(source, root, blocks, about, (), swapped=False)
    if head[:1] == b"\x80":
        source.refuse("pytorch-legacy", "is a bare pickle, which no version of PyTorch writes")
    found = members(source)
    plain = unchecked(found)
    folder = _folder(source, plain)
    program = bytes(content(source, _small(source, plain[f"{folder}/data.pkl"])))
    order = plain.get(f"{folder}/byteorder")
    written = "little" if order is None else bytes(content(source, _small(source, order))).decode("latin-1")
    if written not in ("little", "big"):
        source.refuse("bad-header", f"says that its byte order is {shown(written)}")
    begin = f"{folder}/data/"
    blocks = {
        name.removeprefix(begin): Block(name, member.size, partial(content, source, member))
        for name, member in plain.items()
        if name.startswith(begin)
    }
    notes = () if plain is found else ("it was written without checksums: damage to it would not be seen",)
    about = _provenance(source, plain, folder)
    return _archive(source, Machine(source, program).run(), blocks, about, notes, swapped=written == "big")


def _archive(
    source: Source,
    root: Any,
    blocks: Mapping[str, Block],
    about: Mapping[str, str],
    notes: tuple[str, ...],
    *,
    swapped: bool,
) -> Archive:
    """The tensors of an object, and where their bytes are."""
    entries: dict[str, Entry] = {}
    others = 0
    for name, value in _leaves(source, root):
        if not isinstance(value, StridedTensor):
            others += 1
        elif name in entries:
            source.refuse("duplicate-name", f"holds two tensors named {shown(name)}")
        else:
            entries[name] = _entry(source, name, value, blocks.get(value.storage.key), swapped=swapped)
    total = sum(entry.num_bytes for entry in entries.values())
    if total > declared_limit(source.size):
        source.refuse("expansion", f"{source.size} bytes would expand to {total}", value=total)
    if others:
        notes = (*notes, f"{others} values that are no tensors were left out")
    return checked(Archive(source.path, NAME, entries, about, notes))


def write(
    file: IO[bytes],
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Write a state dict as ``torch.save`` does; tied tensors share a storage. Metadata has no place.

    Raises:
        FileError: A dtype that PyTorch does not have.
    """
    del metadata
    aliases = aliases_of(entries)
    keys: dict[str, str] = {name: str(i) for i, name in enumerate(n for n in entries if n not in aliases)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        owners = {name: keys[aliases.get(name, name)] for name in entries}
        # A bare ZipInfo has no time of writing: equal weights are equal bytes.
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), _program(entries, owners))
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), b"little")
        for name, key in keys.items():
            large = entries[name].num_bytes >= 1 << 31
            with archive.open(zipfile.ZipInfo(f"archive/data/{key}"), "w", force_zip64=large) as out:
                write_array(out, entries[name].read(), on_bytes)
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")


def _folder(source: Source, found: Mapping[str, Member]) -> str:
    pickles = [name for name in found if name.endswith("/data.pkl") and name.count("/") == 1]
    scripts = [name for name in found if name.endswith("/constants.pkl") or "/code/" in f"/{name}"]
    if scripts or any(name.endswith(("/model.json", "archive_format")) for name in found):
        source.refuse("torchscript", "holds a TorchScript or exported program, which is code")
    if len(pickles) != 1:
        source.refuse("not-pytorch", "is a ZIP archive without exactly one data.pkl")
    return pickles[0].partition("/")[0]


def _small(source: Source, member: Member) -> Member:
    if member.size > MAX_BYTES:
        source.refuse(
            "pickle-limit",
            f"{shown(member.name)} has {member.size} bytes",
            limit=MAX_BYTES,
            value=member.size,
        )
    return member


def _leaves(source: Source, root: Any) -> Iterator[tuple[str, Any]]:
    """Values of nested containers with their dotted names, with bounded depth and number."""
    seen = 0
    stack: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", iter([("", root)]))]
    while stack:
        name, items = stack[-1]
        key, value = next(items, (None, None))
        if key is None:
            stack.pop()
            continue
        seen += 1
        if len(stack) > _MAX_DEPTH or seen > _MAX_LEAVES:
            source.refuse("pickle-limit", "its containers are too many or nested too deeply")
        full = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            stack.append((full, ((_name(inner), item) for inner, item in value.items())))
        elif isinstance(value, list | tuple):
            stack.append((full, ((str(index), item) for index, item in enumerate(value))))
        else:
            yield full or "tensor", value


def _name(key: Any) -> str:
    """A key of a dict as text: what is none, as Python writes it."""
    match key:
        case str():
            return key
        case Other(what) | Global(what):
            return what
        case np.dtype():
            return f"torch.{key}"
        case _:
            return repr(key)


def _entry(source: Source, name: str, tensor: StridedTensor, block: Block | None, *, swapped: bool) -> Entry:
    storage, item = tensor.storage, tensor.dtype.itemsize
    count = check_shape(source.path, name, tensor.shape)
    width = storage.dtype.itemsize if storage.dtype is not None else 1
    stored, begin = storage.size * width, storage.offset * width
    what = f"tensor {shown(name)}"
    if block is None or block.size != stored:
        held = "no record" if block is None else f"a record of {block.size}"
        source.refuse("size-mismatch", f"{what} lies in a storage of {stored} bytes, and has {held}")
    if swapped and storage.dtype is None:
        source.refuse(
            "byte-order", f"{what} was written on a big-endian machine, without the width of its values"
        )
    if count:
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        if begin + (tensor.offset + reach + 1) * item > stored:
            source.refuse(
                "size-mismatch",
                f"{what} reaches beyond its storage of {stored} bytes",
                offset=tensor.offset,
                limit=stored,
            )
    identity: Hashable = (block.name, tensor)
    read_it = partial(_array, block, tensor, begin, swapped=swapped)
    return Entry(tensor.shape, tensor.dtype, read_it, identity if count else None)


def _array(block: Block, tensor: StridedTensor, begin: int, *, swapped: bool) -> Array:
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, tensor.dtype)
    # A storage may be longer than a whole number of items: an untyped one has any number of bytes.
    item = tensor.dtype.itemsize
    raw = block.read()[begin:]
    # Strides are applied to plain items: NumPy's tool does not know the dtypes that others add.
    bits = np.dtype(f"u{item}") if item <= 8 else tensor.dtype
    flat = np.frombuffer(raw[: len(raw) // item * item], bits)
    if swapped:
        # A complex number is two numbers, each of them turned.
        part = np.dtype(f"u{item // 2 if tensor.dtype.kind == 'c' else item}")
        flat = flat.view(part).byteswap().view(bits)
    if not flat.flags.aligned:
        flat = flat.copy()
    strides = tuple(stride * item for stride in tensor.strides)
    array = as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False).view(tensor.dtype)
    if tensor.conjugated:
        array = array.conj()
    return np.negative(array) if tensor.negated else array


def _provenance(source: Source, found: Mapping[str, Member], folder: str) -> dict[str, str]:
    version = found.get(f"{folder}/version")
    if version is None or version.size > 16:
        return {}
    return {
        "writer": f"PyTorch file version {shown(bytes(content(source, version)).decode('latin-1').strip())}"
    }


def _program(entries: Mapping[str, Entry], keys: Mapping[str, str]) -> bytes:
    """The pickle of an ordered dict of tensors, protocol 2, as ``torch.save`` would write it."""
    out = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for name, entry in entries.items():
        storage = _STORAGE_NAMES.get(entry.dtype)
        if entry.dtype not in NAMES:
            raise FileError(f"PyTorch has no dtype for the tensor {name!r} of {entry.dtype}")
        count = prod(entry.shape)
        if storage is not None:
            call, held, size, tail = "_rebuild_tensor_v2", f"torch\n{storage}", count, b""
        else:
            call, held, size = "_rebuild_tensor_v3", "torch.storage\nUntypedStorage", entry.num_bytes
            tail = f"ctorch\n{NAMES[entry.dtype]}\n".encode()
        strides = _contiguous(entry.shape)
        out += [
            _text(name),
            f"ctorch._utils\n{call}\n((".encode(),
            _text("storage"),
            f"c{held}\n".encode(),
            _text(keys[name]),
            _text("cpu"),
            _integer(size),
            b"tQK\x00",
            b"(" + b"".join(map(_integer, entry.shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)R" + tail + b"tR",
        ]
    return b"".join(out) + b"u."


def _contiguous(shape: tuple[int, ...]) -> list[int]:
    return [prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape))]


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a" + struct.pack("<B", len(raw)) + raw


def _matches(head: bytes, source: Source) -> bool:
    if is_zip(head):
        return any(name.endswith("/data.pkl") for name in members(source))
    # The length of a safetensors header may begin with the byte of a pickle, and ends in zeros.
    return (head.startswith(b"\x80") and head[4:9] != b"\0\0\0\0{") or head[257:262] == b"ustar"


FORMAT = Format(NAME, read, (".pth.tar", ".pt.tar", ".pt", ".pth", ".bin", ".ckpt"), write, matches=_matches)
