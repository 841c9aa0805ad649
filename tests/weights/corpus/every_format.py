"""What can be wrong in every format: sizes that NumPy multiplies although one of them is zero, halves of characters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from tests.weights.corpus import frame_attacks, json_attacks, pickle_attacks, proto_attacks, zip_attacks
from tests.weights.corpus.case import Case, codes

_SHAPES = {
    "2^40, 2^40, 0": (1 << 40, 1 << 40, 0),
    "0, 2^40, 2^40": (0, 1 << 40, 1 << 40),
    "2^31 and zero": (1 << 31, 1 << 31, 0),
    "2^46, 0": (1 << 46, 0),
}


def attacks() -> Iterator[Case]:
    """All of them."""
    for label, shape in _SHAPES.items():
        for name, content in _shaped(shape).items():
            yield Case(f"shape {label} in {name}", name, content, codes("bad-shape"))
        yield Case(f"shape {label} in x.h5", "x.h5", _dataset(shape), codes("bad-shape"))
        yield Case(f"shape {label} in a checkpoint", "x.index", _bundle(shape), codes("bad-shape"))
    good = json_attacks.tensor()
    for label, header in {
        "in a value": b'{"__metadata__": {"a": "\\ud800"}, "w": %s}',
        "in a key": b'{"__metadata__": {"\\udfff": "a"}, "w": %s}',
        "in the wrong order": b'{"__metadata__": {"a": "\\ude00\\ud83d"}, "w": %s}',
        "in a name": b'{"\\uD800": %s}',
    }.items():
        raw = header % json.dumps(good).encode()
        content = json_attacks.safetensors(raw)
        yield Case(f"half a character {label}", "x.safetensors", content, codes("bad-header"))
    whole = b'{"__metadata__": {"a": "\\ud83d\\ude00"}, "w": %s}' % json.dumps(good).encode()
    yield Case("a whole character of two halves", "x.safetensors", json_attacks.safetensors(whole), codes())
    yield Case(
        "half a character in an index",
        "x.safetensors.index.json",
        b'{"weight_map": {"\\ud800": "x"}}',
        codes("bad-header"),
    )
    about = {"metadata.json": b'{"keras_version": "\\ud800"}', "config.json": b"{}"}
    yield Case("half a character in x.keras", "x.keras", pickle_attacks.archive(about), codes("bad-header"))
    half = b"\x80\x02}X\x03\0\0\0\xed\xa0\x80" + pickle_attacks.tensor() + b"s."
    yield Case("half a character in x.pt", "x.pt", pickle_attacks.torch_file(half), codes("bad-name"))


def _shaped(shape: tuple[int, ...]) -> dict[str, bytes]:
    empty = json_attacks.tensor(0, 0, shape=shape)
    tensor = pickle_attacks.tensor(count=0, shape=shape, strides=(1,) * len(shape))
    array = zip_attacks.npy(shape=f"({', '.join(map(str, shape))})", body=b"")
    raw = b"".join(proto_attacks.field(1, size) for size in shape)
    onnx = raw + proto_attacks.field(2, 1) + proto_attacks.field(8, b"w") + proto_attacks.field(9, b"")
    frame = frame_attacks.frame(frame_attacks.head(frame_attacks.tensor(shape=shape, length=0)), b"")
    return {
        "x.safetensors": json_attacks.safetensors({"w": empty}, b""),
        "x.pt": pickle_attacks.torch_file(pickle_attacks.state(tensor), {"0": b""}),
        "x.npz": pickle_attacks.archive({"w.npy": array}),
        "x.onnx": proto_attacks.model(onnx),
        "x.xbf": frame,
    }


def _dataset(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        with h5py.File(folder / "x.h5", "w") as file:
            file.create_dataset("w", shape, "f4", chunks=(1,) * len(shape), maxshape=(None,) * len(shape))
        return folder / "x.h5"

    return build


def _bundle(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        sizes = b"".join(proto_attacks.field(2, proto_attacks.field(1, size)) for size in shape)
        entry = proto_attacks.field(1, 1) + proto_attacks.field(2, sizes)
        index = proto_attacks.table(proto_attacks.block({b"": proto_attacks.HEADER, b"w": entry}))
        (folder / "x.index").write_bytes(index)
        (folder / "x.data-00000-of-00001").write_bytes(bytes(16))
        return folder / "x.index"

    return build
