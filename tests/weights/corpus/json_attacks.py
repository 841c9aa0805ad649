"""Hostile safetensors files and indexes of shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.weights.corpus.case import Case, codes, on_demand

HEADER = codes("bad-header")


def safetensors(header: Any, body: bytes = bytes(16), length: int | None = None) -> bytes:
    """A file with any header: text as it is, everything else as JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + body


def tensor(start: int = 0, end: int = 16, dtype: Any = "F32", shape: Any = (4,)) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": [start, end],
    }


def attacks() -> Iterator[Case]:
    """All of them."""
    for label, content, expected in _files():
        yield Case(f"safetensors: {label}", "x.safetensors", content, expected)
    many = on_demand("x.safetensors", _many)
    yield Case(
        "safetensors: too many tensors", "x.safetensors", many, codes("too-many-tensors", "header-too-large")
    )
    yield from _indexes()


def _many() -> bytes:
    return safetensors({f"t{i}": tensor(0, 0, shape=(0,)) for i in range(100_001)}, b"")


def _files() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    good = tensor()
    yield "nothing", b"", codes("empty")
    for count in range(1, 8):
        yield f"{count} bytes", bytes(count), codes("truncated")
    yield "empty header", safetensors(b""), HEADER
    yield "header beyond the file", safetensors({"a": good}, length=1000), codes("truncated")
    for power in (23, 24, 31, 32, 62, 63):
        yield (
            f"header of 2^{power}",
            safetensors({"a": good}, length=(1 << power) + 1),
            codes("header-too-large"),
        )
    yield "largest length", b"\xff" * 8 + b"{}", codes("header-too-large")
    for label, raw in {
        "a list": b"[]",
        "a number": b"3",
        "spaces before": b'  {"a": 1}',
        "not JSON": b"{a: 1}",
        "single quotes": b"{'a': 1}",
        "cut": b'{"a": {"dtype"',
        "two objects": b"{}{}",
        "not UTF-8": b'{"\xff": 1}',
        "NaN": b'{"a": NaN}',
        "Infinity": b'{"a": Infinity}',
        "long number": b'{"a": ' + b"9" * 5000 + b"}",
        "depth": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        "depth of lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "byte order mark": b"\xef\xbb\xbf{}",
        "zero bytes": bytes(64),
    }.items():
        yield f"header {label}", safetensors(raw), codes("bad-header", "header-too-large")
    flood = b'{"a":[' + b",".join([b"{}"] * 1_200_000) + b"]}"
    yield "flood of objects", safetensors(flood), codes("header-too-large")
    yield "flood of numbers", safetensors(b'{"a":[' + b"1," * 1_100_000 + b"1]}"), codes("header-too-large")
    same = b'{"a":' + json.dumps(good).encode() + b',"a":' + json.dumps(tensor(0, 16)).encode() + b"}"
    yield "one name twice", safetensors(same), codes("duplicate-name")
    yield (
        "one key twice",
        safetensors(b'{"a":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,16]}}'),
        codes("duplicate-name"),
    )
    for label, item in {
        "without dtype": {"shape": [4], "data_offsets": [0, 16]},
        "without shape": {"dtype": "F32", "data_offsets": [0, 16]},
        "without offsets": {"dtype": "F32", "shape": [4]},
        "with more": {**good, "more": 1},
        "a list": [1],
        "text": "F32",
        "null": None,
        "shape of text": tensor(shape="4"),
        "shape of floats": tensor(shape=[4.0]),
        "shape with true": tensor(shape=[True, 4]),
        "shape nested": tensor(shape=[[4]]),
        "negative size": tensor(shape=[-4]),
        "offsets of text": {**good, "data_offsets": "0"},
        "offsets negative": {**good, "data_offsets": [-16, 0]},
        "offsets floats": {**good, "data_offsets": [0.0, 16.0]},
    }.items():
        yield f"tensor {label}", safetensors({"a": item}), codes("bad-header", "bad-shape")
    for dtype in ("F33", "O", "f32", "", "I4", "F4", "U1", 3, None, ["F32"]):
        yield f"dtype {dtype!r}", safetensors({"a": tensor(dtype=dtype)}), codes("dtype")
    for label, start, end in (
        ("short", 0, 12),
        ("long", 0, 20),
        ("reversed", 16, 0),
        ("one offset more", 0, 17),
    ):
        yield f"offsets {label}", safetensors({"a": tensor(start, end)}), codes("size-mismatch")
    yield "three offsets", safetensors({"a": {**good, "data_offsets": [0, 8, 16]}}), codes("size-mismatch")
    yield "beyond the end", safetensors({"a": tensor(8, 24)}), codes("truncated")
    yield "far beyond", safetensors({"a": tensor(1 << 62, (1 << 62) + 16)}), codes("truncated")
    huge = 1 << 60
    yield "huge", safetensors({"a": tensor(0, 4 * huge, shape=(huge,))}), codes("bad-shape")
    yield "huge by product", safetensors({"a": tensor(0, 16, shape=(1 << 32, 1 << 32))}), codes("bad-shape")
    yield "overflow to zero", safetensors({"a": tensor(0, 0, shape=(1 << 32, 1 << 32))}), codes("bad-shape")
    yield "rank of 65", safetensors({"a": tensor(0, 4, shape=(1,) * 65)}), codes("bad-shape")
    yield "overlap", safetensors({"a": tensor(0, 16), "b": tensor(8, 24)}, bytes(24)), codes("overlap")
    yield "same bytes twice", safetensors({"a": tensor(0, 16), "b": tensor(0, 16)}), codes("overlap")
    yield "gap", safetensors({"a": tensor(0, 16), "b": tensor(20, 36)}, bytes(36)), codes("overlap")
    yield "hidden bytes before", safetensors({"a": tensor(16, 32)}, bytes(32)), codes("overlap")
    yield "hidden bytes after", safetensors({"a": good}, bytes(64)), codes("trailing-data")
    for label, name in {
        "empty": "",
        "escape": "a\x1b[2J",
        "line": "a\nb",
        "null": "a\0b",
        "right to left": "a\u202eb",
        "long": "a" * 600,
    }.items():
        yield f"name {label}", safetensors({name: good}), codes("bad-name")
    yield "metadata of numbers", safetensors({"__metadata__": {"a": 1}, "a": good}), HEADER
    yield "metadata a list", safetensors({"__metadata__": [], "a": good}), HEADER
    yield "metadata text", safetensors({"__metadata__": "x", "a": good}), HEADER
    yield "a ZIP archive", b"PK\x03\x04" + bytes(100), codes("header-too-large", "bad-header", "truncated")
    yield (
        "a pickle",
        b"\x80\x02cos\nsystem\n(S'touch canary'\ntR.",
        codes("header-too-large", "bad-header", "truncated"),
    )
    yield "markup in a name", safetensors({"[red]a": good}), codes()
    yield "empty metadata", safetensors({"__metadata__": {}, "a": good}), codes()
    yield "no tensors", safetensors({}, b""), codes()


def _indexes() -> Iterator[Case]:
    shard = safetensors({"a": tensor()})

    def index(label: str, content: Any, expected: frozenset[str]) -> Case:
        def build(folder: Path) -> Path:
            (folder / "one.safetensors").write_bytes(shard)
            path = folder / "model.safetensors.index.json"
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
            return path

        return Case(f"index: {label}", "model.safetensors.index.json", build, expected)

    for outside in (
        "../one.safetensors",
        "/etc/passwd",
        "folder/one.safetensors",
        "..",
        ".",
        "",
        "a\\b.safetensors",
        "one.safetensors\0",
    ):
        yield index(
            f"names {outside!r}", {"weight_map": {"a": outside}}, codes("outside", "not-a-file", "file")
        )
    yield index("missing file", {"weight_map": {"a": "two.safetensors"}}, codes("file"))
    yield index("missing tensor", {"weight_map": {"b": "one.safetensors"}}, codes("shards"))
    yield index("without map", {}, HEADER)
    yield index("map a list", {"weight_map": []}, HEADER)
    yield index("map of numbers", {"weight_map": {"a": 1}}, HEADER)
    yield index("not JSON", b"{", HEADER)
    yield index("a list", b"[]", HEADER)
    yield index(
        "twice", b'{"weight_map":{"a":"one.safetensors","a":"one.safetensors"}}', codes("duplicate-name")
    )
    yield index(
        "itself",
        {"weight_map": {"a": "model.safetensors.index.json"}},
        codes("header-too-large", "truncated"),
    )
    yield index("good", {"weight_map": {"a": "one.safetensors"}}, codes())
