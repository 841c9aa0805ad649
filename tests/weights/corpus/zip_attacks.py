"""Hostile ZIP archives: PyTorch's, NumPy's and Keras's files."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from tests.weights.corpus.case import Case, codes, on_demand
from tests.weights.corpus.pickle_attacks import Evil, archive, state, tensor, text, torch_file

ZIP = codes("bad-zip", "truncated", "trailing-data", "not-a-zip", "checksum")


def attacks() -> Iterator[Case]:
    """All of them."""
    yield from _structure()
    yield from _numpy()
    yield from _keras()


def _patched(content: bytes, signature: bytes, offset: int, new: bytes, *, last: bool = False) -> bytes:
    at = (content.rfind if last else content.find)(signature) + offset
    return content[:at] + new + content[at + len(new) :]


def _structure() -> Iterator[Case]:
    good = torch_file(state(tensor()))
    central, local, end = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
    changed = {
        "cut before the end": good[:-30],
        "cut in the middle": good[: len(good) // 2],
        "only a header": good[:60],
        "something behind": good + b"more",
        "something before": b"MZ" + good,
        "two archives": good + good,
        "cut comment": good[:-2] + b"\x05\0more",
        "other method in the table": _patched(good, central, 10, b"\x08\0"),
        "other method in the header": _patched(good, local, 8, b"\x08\0"),
        "other name in the table": _patched(good, central, 46, b"N"),
        "other name in the header": _patched(good, local, 30, b"N"),
        "other size in the table": _patched(good, central, 24, b"\x01\0\0\0"),
        "other size in the header": _patched(good, local, 22, b"\x01\0\0\0"),
        "other checksum in both": _patched(_patched(good, central, 16, b"abcd"), local, 14, b"abcd"),
        "other checksum in the table": _patched(good, central, 16, b"abcd"),
        "offset of the table": _patched(good, end, 16, b"\x01\0\0\0"),
        "size of the table": _patched(good, end, 12, b"\x01\0\0\0"),
        "count of the table": _patched(good, end, 10, b"\x01\0"),
        "huge count": _patched(_patched(good, end, 10, b"\xff\xff"), end, 8, b"\xff\xff"),
        "another disk": _patched(good, end, 4, b"\x01\0"),
        "entry on another disk": _patched(good, central, 34, b"\x01\0"),
        "header beyond the end": _patched(good, central, 42, b"\xf0\xff\xff\x7f"),
        "ZIP64 without field": _patched(good, central, 42, b"\xff\xff\xff\xff"),
        "two entries, one header": _patched(good, central, 42, bytes(4), last=True),
        "storage marked as a folder": _patched(good, central, 38, b"\x10\0\0\0"),
        "long name": _patched(good, central, 28, b"\xff\x7f"),
        "ZIP64 locator to nowhere": good[:-22]
        + b"PK\x06\x07"
        + bytes(4)
        + b"\xff" * 8
        + bytes(4)
        + good[-22:],
        "all zero": b"PK\x03\x04" + bytes(1000),
    }
    for label, content in changed.items():
        yield Case(f"zip: {label}", "x.pt", content, ZIP | codes("duplicate-name"))
    yield Case("zip: encrypted", "x.pt", _patched(good, central, 8, b"\x01\0"), codes("zip-encrypted"))
    yield Case(
        "zip: bzip2", "x.pt", archive({"net/data.pkl": state()}, zipfile.ZIP_BZIP2), codes("zip-method")
    )
    yield Case("zip: lzma", "x.pt", archive({"net/data.pkl": state()}, zipfile.ZIP_LZMA), codes("zip-method"))
    yield Case("zip: a comment", "x.pt", good[:-2] + b"\x04\0more", codes())
    unused = good.replace(b"net/byteorder", b"net/byteorde2")
    yield Case("zip: a file nobody needs", "x.pt", unused, codes())
    flat = io.BytesIO()
    with zipfile.ZipFile(flat, "w") as out:
        out.writestr("net/data.pkl", state(tensor()))
        out.writestr("net/data.pkX", state())
        out.writestr("net/data/0", bytes(16))
    yield Case(
        "zip: one name twice",
        "x.pt",
        flat.getvalue().replace(b"data.pkX", b"data.pkl"),
        codes("duplicate-name"),
    )
    for label, size, code in (
        ("bomb", 200 << 20, "expansion"),
        ("bomb of a pickle", 60 << 20, "pickle-limit"),
    ):
        bomb = partial(_zeros, {"net/data.pkl": size})
        yield Case(f"zip: {label}", "x.pt", on_demand("x.pt", bomb), codes(code))
    wrong = _deflated(b"net/data.pkl", state(), claimed=len(state()) + 5)
    yield Case("zip: unpacks to less", "x.pt", wrong, codes("bad-zip"))
    wrong = _deflated(b"net/data.pkl", state(), claimed=3)
    yield Case("zip: unpacks to more", "x.pt", wrong, codes("bad-zip"))
    wrong = _deflated(b"net/data.pkl", state(), claimed=len(state()), broken=True)
    yield Case("zip: broken deflate", "x.pt", wrong, codes("bad-zip"))
    yield Case(
        "zip: name not UTF-8", "x.pt", good.replace(b"net/version", b"net/versi\xff\xfe"), codes("bad-name")
    )
    yield Case("zip: without pickle", "x.pt", archive({"a": b"x"}), codes("not-pytorch"))
    yield Case(
        "zip: two pickles",
        "x.pt",
        archive({"a/data.pkl": state(), "b/data.pkl": state()}),
        codes("not-pytorch"),
    )
    yield Case("zip: empty", "x.pt", archive({}), codes("not-pytorch"))
    yield Case(
        "zip: big-endian",
        "x.pt",
        archive({"a/data.pkl": state(), "a/byteorder": b"big"}),
        codes(),
    )
    yield Case(
        "zip: another byte order",
        "x.pt",
        archive({"a/data.pkl": state(), "a/byteorder": b"middle"}),
        codes("bad-header"),
    )
    untyped = tensor(
        count=16, storage="torch.storage\nUntypedStorage", call="torch._utils\n_rebuild_tensor_v3"
    ).replace(b")RtR", b")Rctorch\nfloat32\ntR")
    yield Case(
        "zip: big-endian values of no width",
        "x.pt",
        archive({"a/data.pkl": state(untyped), "a/byteorder": b"big", "a/data/0": bytes(16)}),
        codes("byte-order"),
    )
    yield Case(
        "zip: TorchScript", "x.pt", torch_file(state(), {}, **{"constants.pkl": b"."}), codes("torchscript")
    )
    yield Case(
        "zip: TorchScript code", "x.pt", torch_file(state(), {}, **{"code/x.py": b"."}), codes("torchscript")
    )
    yield Case("zip: exported program", "x.pt", archive({"a/models/model.json": b"{}"}), codes("torchscript"))
    yield from _old_format()
    yield from _names(good)
    yield Case("bare pickle", "x.pt", b"\x80\x02cos\nsystem\n(X\x05\0\0\0touchtR.", codes("pytorch-legacy"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        out.addfile(tarfile.TarInfo("../../x"))
    yield Case("tar", "x.pt", buffer.getvalue(), codes("pytorch-legacy"))
    yield Case("random", "x.bin", bytes(range(256)) * 20, codes("not-a-zip"))


def _deflated(name: bytes, content: bytes, claimed: int, *, broken: bool = False) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    raw = engine.compress(content) + engine.flush()
    if broken:
        raw = b"\xff" + raw[1:]
    crc = zlib.crc32(content)
    sizes = struct.pack("<LLL", crc, len(raw), claimed)
    head = (
        b"PK\x03\x04"
        + struct.pack("<HHHHH", 20, 0, 8, 0, 0)
        + sizes
        + struct.pack("<HH", len(name), 0)
        + name
    )
    entry = b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
    entry += struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, 0, 0) + name
    at = len(head) + len(raw)
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entry), at, 0)
    return head + raw + entry + end


def npy(
    descr: str = "<f4", shape: str = "(4,)", body: bytes = bytes(16), version: int = 1, tail: str = ", }"
) -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}{tail}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    length = struct.pack("<H" if version == 1 else "<L", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + length + head + body


def _numpy() -> Iterator[Case]:
    header, size = codes("bad-header"), codes("size-mismatch")
    objects = io.BytesIO()
    np.save(objects, np.array([Evil(print, "canary")], object), allow_pickle=True)
    for label, content, expected in (
        ("objects", objects.getvalue(), codes("dtype")),
        ("40 GB", npy(shape="(10000000000,)"), size),
        ("2^62", npy(shape=f"({1 << 62},)"), codes("bad-shape")),
        ("product overflows", npy(shape=f"({1 << 32}, {1 << 32})"), codes("bad-shape")),
        ("negative", npy(shape="(-4,)"), header),
        ("shape a call", npy(shape="(print(1),)"), header),
        ("shape a list", npy(shape="[4]"), header),
        ("shape with names", npy(shape="(x,)"), header),
        ("rank of 40", npy(shape="(" + "1, " * 40 + ")"), codes("bad-shape", "bad-header")),
        ("more keys", npy(tail=", 'x': 1, }"), header),
        ("no end", npy(tail=""), header),
        ("code behind", npy(tail=", }; import os"), header),
        ("short", npy(body=bytes(15)), size),
        ("long", npy(body=bytes(17)), size),
        ("nothing", b"", header),
        ("magic alone", b"\x93NUMPY", header),
        ("version 9", npy(version=9), header),
        ("header beyond", b"\x93NUMPY\x01\0\xff\xff{", codes("header-too-large", "bad-header")),
        ("header of 4 GB", b"\x93NUMPY\x02\0\xff\xff\xff\xff{", codes("header-too-large")),
        ("deep header", b"\x93NUMPY\x01\0\x10\x27" + b"(" * 10_000, header),
    ):
        yield Case(f"npz: {label}", "x.npz", archive({"a.npy": content}), expected)
    for descr in (
        "|O",
        "|V8",
        "<U4",
        "|S4",
        "<M8[s]",
        "<m8",
        "<f16",
        "x",
        "f4",
        "|b2",
        "<i3",
        "[('a', '<f4')]",
    ):
        expected = codes("dtype", "bad-header")
        yield Case(f"npz: dtype {descr}", "x.npz", archive({"a.npy": npy(descr)}), expected)
    yield Case("npz: another file", "x.npz", archive({"a.npy": npy(), "b.pkl": b"x"}), header)
    yield Case("npz: no name", "x.npz", archive({".npy": npy()}), codes("bad-name"))
    for label, count, size, expected in (
        ("bomb", 1, 200 << 20, codes("expansion")),
        ("2 large zeros", 2, 16 << 20, codes()),
        ("10 large zeros", 10, 16 << 20, codes("expansion")),
    ):
        arrays = partial(_zeros, {f"{i}.npy": size for i in range(count)}, npy("|u1", f"({size},)", b""))
        yield Case(f"npz: {label}", "x.npz", on_demand("x.npz", arrays), expected)
    yield Case("npz: path in a name", "x.npz", archive({"../a.npy": npy()}), codes("outside"))


def _zeros(sizes: Mapping[str, int], head: bytes = b"") -> bytes:
    """An archive of compressed members of so many zeros each, behind a head."""
    return archive({name: head + bytes(size) for name, size in sizes.items()}, zipfile.ZIP_DEFLATED)


def _keras() -> Iterator[Case]:
    parts = {"metadata.json": b'{"keras_version": "3.15.1"}', "config.json": b"{}"}
    lambda_layer = json.dumps({"class_name": "Lambda", "config": {"function": ["gASV", None, None]}}).encode()
    missing = codes("not-keras")
    bad = codes("bad-hdf5")
    yield Case("keras: no weights", "x.keras", archive(parts), missing)
    yield Case("keras: no configuration", "x.keras", archive({"model.weights.h5": b"x"}), missing)
    yield Case("keras: weights no HDF5", "x.keras", archive({**parts, "model.weights.h5": b"x" * 100}), bad)
    yield Case("keras: empty weights", "x.keras", archive({**parts, "model.weights.h5": b""}), bad)
    yield Case(
        "keras: weights an HDF5 signature",
        "x.keras",
        archive({**parts, "model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(200)}),
        bad,
    )
    packed = archive({**parts, "model.weights.h5": bytes(1000)}, 8)
    yield Case("keras: compressed weights", "x.keras", packed, codes("zip-method"))
    yield Case(
        "keras: configuration no JSON",
        "x.keras",
        archive({**parts, "config.json": b"{"}),
        codes("bad-header"),
    )
    deep = b'{"a":' * 30_000 + b"1" + b"}" * 30_000
    yield Case(
        "keras: deep configuration", "x.keras", archive({**parts, "config.json": deep}), codes("bad-header")
    )
    yield Case(
        "keras: a Lambda",
        "x.keras",
        archive({**parts, "config.json": lambda_layer, "model.weights.h5": b"x" * 99}),
        bad,
    )
    yield Case("keras: HDF5 instead", "x.keras", b"\x89HDF\r\n\x1a\n" + bytes(100), codes("not-a-zip"))


def _old_format() -> Iterator[Case]:
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = {"protocol_version": 1001, "little_endian": True}
    version, about, keys = (pickle.dumps(thing, 2) for thing in (1001, system, ["0"]))
    values = (4).to_bytes(8, "little") + bytes(16)
    root = state(tensor())
    cases = {
        "valid": (magic + version + about + root + keys + values, codes()),
        "only the beginning": (magic + version, codes("bad-pickle")),
        "another version": (
            magic + pickle.dumps(1002, 2) + about + root + keys + values,
            codes("bad-header"),
        ),
        "no system": (magic + version + version + root + keys + values, codes("bad-header")),
        "big-endian": (
            magic + version + pickle.dumps({"little_endian": False}, 2) + root + keys + values,
            codes("byte-order"),
        ),
        "keys no list": (magic + version + about + root + version + values, codes("bad-header")),
        "an unknown storage": (
            magic + version + about + root + pickle.dumps(["1"], 2) + values,
            codes("bad-header"),
        ),
        "a storage twice": (
            magic + version + about + root + pickle.dumps(["0", "0"], 2) + values * 2,
            codes("bad-header"),
        ),
        "no storage": (magic + version + about + root + pickle.dumps([], 2), codes("size-mismatch")),
        "a storage cut short": (magic + version + about + root + keys + values[:-1], codes("truncated")),
        "a storage of other size": (
            magic + version + about + root + keys + (3).to_bytes(8, "little") + bytes(12),
            codes("size-mismatch"),
        ),
        "a storage of huge size": (
            magic + version + about + root + keys + (1 << 62).to_bytes(8, "little") + bytes(16),
            codes("truncated"),
        ),
        "a storage of negative size": (
            magic + version + about + root + keys + b"\xff" * 8 + bytes(16),
            codes("truncated"),
        ),
        "more behind": (magic + version + about + root + keys + values + b"x", codes("trailing-data")),
        "a command": (magic + version + about + b"\x80\x02cos\nsystem\n.", codes("pickle-global")),
        "source code": (
            magic + version + about + b"\x80\x02(" + text("module") + text("x.py") + b"tQ.",
            codes("pickle-model"),
        ),
    }
    for label, (content, expected) in cases.items():
        yield Case(f"old format: {label}", "x.pt", content, expected)


def _names(good: bytes) -> Iterator[Case]:
    """Members whose names are paths out of the archive, or deceive whoever sees them."""
    outside, bad = codes("outside"), codes("bad-name")
    names = {
        "leaves its folder": ("../../etc/cron.d/x", outside),
        "leaves its folder later": ("net/../../x", outside),
        "absolute": ("/etc/passwd", outside),
        "of a drive": ("C:/windows/x", outside),
        "relative to a drive": ("c:x", outside),
        "with a backslash": ("..\\..\\x", outside),
        "of another machine": ("//host/share/x", outside),
        "the folder itself": ("net/./x", outside),
        "an empty part": ("net//x", outside),
        "two dots": ("..", outside),
        "of nothing": ("net/x\0.txt", bad),
        "with a line end": ("net/x\ny", bad),
        "with an escape": ("net/\x1b[2J", bad),
        "that reads backwards": ("net/\u202egpj.exe", bad),
    }
    others = {
        "x.pt": good,
        "x.npz": archive({"a.npy": npy()}),
        "x.keras": archive({"metadata.json": b"{}", "config.json": b"{}"}),
    }
    for file, content in others.items():
        for label, (name, expected) in names.items():
            placeholder = "@" * len(name.encode())
            buffer = io.BytesIO(content)
            with zipfile.ZipFile(buffer, "a") as out:
                out.writestr(placeholder, b"")
            raw = buffer.getvalue().replace(placeholder.encode(), name.encode())
            yield Case(f"zip: {file} with a name {label}", file, raw, expected)
    link = zipfile.ZipInfo("net/link")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO(good)
    with zipfile.ZipFile(buffer, "a") as out:
        out.writestr(link, b"/etc/passwd")
    yield Case("zip: a link", "x.pt", buffer.getvalue(), outside)
    second = zipfile.ZipInfo("net/other")
    second.extra = b"\x75\x70\x09\0\x01\0\0\0\0evil"
    buffer = io.BytesIO(good)
    with zipfile.ZipFile(buffer, "a") as out:
        out.writestr(second, b"")
    yield Case("zip: a member with two names", "x.pt", buffer.getvalue(), codes("bad-zip"))
