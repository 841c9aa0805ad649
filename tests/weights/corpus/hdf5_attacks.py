"""Hostile HDF5 files, made with h5py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.weights.corpus.case import Case, codes

Fill = Callable[[Any, Path], None]


def attacks() -> Iterator[Case]:
    """All of them."""
    for label, fill, expected in _files():
        yield Case(f"hdf5: {label}", "x.h5", _builder(fill), expected)
    yield from _bytes()


def _builder(fill: Fill) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / "x.h5"
        with h5py.File(path, "w") as file:
            fill(file, folder)
        return path

    return build


def _external(file: Any, folder: Path) -> None:
    (folder / "secret").write_bytes(b"0123456789abcdef")
    file.create_dataset("w", (16,), "u1", external=[(str(folder / "secret"), 0, 16)])


def _external_passwd(file: Any, _: Path) -> None:
    file.create_dataset("w", (16,), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _virtual(file: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["d"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "d", (4,))
    file.create_virtual_dataset("w", layout)


def _virtual_here(file: Any, _: Path) -> None:
    file["d"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(".", "d", (4,))
    file.create_virtual_dataset("w", layout)


def _external_link(file: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["d"] = np.arange(4.0)
    file["w"] = h5py.ExternalLink("other.h5", "d")


def _dangling(file: Any, _: Path) -> None:
    file["w"] = h5py.SoftLink("/nowhere")


def _soft(file: Any, _: Path) -> None:
    file["d"] = np.arange(4.0)
    file["w"] = h5py.SoftLink("/d")


def _cycle(file: Any, _: Path) -> None:
    file.create_group("a/b")
    file["a/b/c"] = file["a"]


def _root_cycle(file: Any, _: Path) -> None:
    file["a"] = file["/"]


def _diamond(file: Any, _: Path) -> None:
    file.create_group("g0")
    for level in range(30):
        file[f"g{level}"].create_group("x")
        file[f"g{level}/y"] = file[f"g{level}/x"]
        file[f"g{level + 1}"] = file[f"g{level}/x"]


def _deep(file: Any, _: Path) -> None:
    group = file
    for _level in range(60):
        group = group.create_group("g")
    group["w"] = np.arange(4.0)


def _huge(file: Any, _: Path) -> None:
    file.create_dataset("w", (1 << 33,), "f8", chunks=(1 << 16,), compression="gzip")


def _huge_contiguous(file: Any, _: Path) -> None:
    file.create_dataset("w", (1 << 33,), "f8")


def _many_large(file: Any, _: Path) -> None:
    for index in range(100):
        file.create_dataset(f"w{index}", (1 << 20,), "f8", chunks=(1 << 16,), compression="gzip")


def _wide_chunk(file: Any, _: Path) -> None:
    file.create_dataset(
        "w", (4, 1 << 24), "f4", maxshape=(None, 1 << 24), chunks=(2, 1 << 24), compression="gzip"
    )
    file["w"][0, :4] = 1


def _bomb(file: Any, _: Path) -> None:
    file.create_dataset(
        "w", data=np.zeros((200 << 20,), np.uint8), chunks=(1 << 20,), compression="gzip", compression_opts=9
    )


def _lzf(file: Any, _: Path) -> None:
    file.create_dataset("w", data=np.zeros((64, 64)), chunks=(8, 8), compression="lzf")


def _scale_offset(file: Any, _: Path) -> None:
    file.create_dataset("w", data=np.zeros((64, 64), np.int32), chunks=(8, 8), scaleoffset=4)


def _dtype(data: Any, dtype: Any = None) -> Fill:
    def fill(file: Any, _: Path) -> None:
        file.create_dataset("w", data=data, dtype=dtype)

    return fill


def _ragged(file: Any, _: Path) -> None:
    file.create_dataset("w", (1,), h5py.vlen_dtype(np.int32))[0] = np.arange(3, dtype=np.int32)


def _reference(file: Any, _: Path) -> None:
    file["d"] = np.arange(4.0)
    file.create_dataset("w", data=np.array([file["d"].ref], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)


def _null(file: Any, _: Path) -> None:
    file.create_dataset("w", dtype="f4")


def _named(name: str) -> Fill:
    def fill(file: Any, _: Path) -> None:
        file[name] = np.arange(4.0)

    return fill


def _many_objects(file: Any, _: Path) -> None:
    group = h5py.h5g.create(file.id, b"g")
    data = h5py.Dataset(h5py.h5d.create(group, b"d", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((1,))))
    for index in range(210_000):
        group.links.create_hard(f"a{index}".encode(), group, b"d")
    del data


def _typed(file: Any, _: Path) -> None:
    file["t"] = np.dtype("f8")
    file["w"] = np.arange(4.0)


def _vlen_attribute(file: Any, _: Path) -> None:
    file["w"] = np.arange(4.0)
    file.attrs["keras_version"] = "x" * 50_000
    file.attrs["backend"] = np.arange(1000)


def _good(file: Any, _: Path) -> None:
    file["layers/dense/vars/0"] = np.arange(4.0)
    file.create_dataset(
        "c",
        data=np.arange(100.0).reshape(10, 10),
        chunks=(3, 4),
        compression="gzip",
        shuffle=True,
        fletcher32=True,
    )


def _files() -> Iterator[tuple[str, Fill, frozenset[str]]]:
    outside, links = codes("hdf5-external"), codes("hdf5-links")
    kinds, large = codes("dtype"), codes("expansion")
    yield "bytes of another file", _external, outside
    yield "bytes of a system file", _external_passwd, outside
    yield "view of another file", _virtual, outside
    yield "view of itself", _virtual_here, outside
    yield "link to another file", _external_link, links
    yield "link to nothing", _dangling, links
    yield "soft link", _soft, links
    yield "group in itself", _cycle, links
    yield "root in itself", _root_cycle, links
    yield "diamonds", _diamond, links
    yield "sixty groups deep", _deep, links
    yield "64 GiB of nothing", _huge, large
    yield "64 GiB contiguous", _huge_contiguous, large
    yield "a hundred of 8 MiB", _many_large, large
    yield "chunk of 64 MiB", _wide_chunk, large
    yield "bomb", _bomb, large
    yield "filter lzf", _lzf, codes("hdf5-filter")
    yield "filter scale-offset", _scale_offset, codes("hdf5-filter")
    yield "a text", _dtype("abc"), kinds
    yield "many texts", _dtype(["abc", "d"], h5py.string_dtype()), kinds
    yield "fixed text", _dtype(np.array([b"abc"])), kinds
    yield "ragged", _ragged, kinds
    yield "records", _dtype(np.zeros(3, [("a", "f4"), ("b", "i4")])), kinds
    yield "opaque", _dtype(np.zeros(3, "V7")), kinds
    yield "arrays", _dtype(np.zeros(3, [("a", "f4", (2,))])), kinds
    yield "long double", _dtype(np.zeros(3, np.longdouble)), kinds
    yield "dates", _dtype(np.zeros(3, "M8[s]").astype(h5py.opaque_dtype("M8[s]"))), kinds
    yield "references", _reference, kinds
    yield "no value", _null, kinds
    yield "rank of 20", _dtype(np.zeros((1,) * 20)), codes("bad-shape")
    yield "escape in a name", _named("a\x1b[2J"), codes("bad-name")
    yield "long name", _named("a" * 600), codes("bad-name")
    yield "too many objects", _many_objects, codes("too-many-tensors", "parser-stopped", "header-too-large")
    yield "a named type", _typed, codes()
    yield "long attributes", _vlen_attribute, codes()
    yield "nothing wrong", _good, codes()
    yield "no datasets", lambda *_: None, codes()


def _bytes() -> Iterator[Case]:
    import io

    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        _good(file, Path())
    good = memory.getvalue()
    any_code = codes(
        "bad-hdf5",
        "truncated",
        "size-mismatch",
        "hdf5-links",
        "dtype",
        "expansion",
        "parser-stopped",
        "bad-shape",
    )
    for part in (9, 40, 100, 500, 800, len(good) // 2, len(good) - 1):
        yield Case(f"hdf5: cut at {part}", "x.h5", good[:part], any_code)
    yield Case("hdf5: signature alone", "x.h5", good[:8], any_code)
    yield Case("hdf5: text", "x.h5", b"hello", any_code)
    yield Case("hdf5: zeros", "x.weights.h5", good[:8] + bytes(4000), any_code)
    yield Case("hdf5: ones", "x.weights.h5", good[:8] + b"\xff" * 4000, any_code)
    for at in (8, 9, 13, 14, 24, 40, 48, 56, 64, 72):
        broken = good[:at] + b"\xff\xff\xff\xff" + good[at + 4 :]
        # Some of these bytes matter to nobody: then the file is read.
        yield Case(f"hdf5: superblock broken at {at}", "x.h5", broken, any_code | codes(""))
