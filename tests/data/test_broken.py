"""Data that are broken in the middle are named with their place and a cure, whatever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr
from pyarrow import parquet

from xbackend_fl.data import Reading, blocks, source_of
from xbackend_fl.data.handed import dataset_of
from xbackend_fl.errors import RefusedInput

pytestmark = pytest.mark.quick

INPUTS = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
TARGETS = np.arange(50) % 3


def how(base: Path, **more: Any) -> Reading:
    return Reading(base, (np.zeros((1, 8), np.float32),), **more)


def damaged_zarr(folder: Path) -> Any:
    array = zarr.create_array(folder / "x.zarr", shape=(50, 8), chunks=(10, 8), dtype="float32")
    array[:] = INPUTS
    chunk = folder / "x.zarr" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    return zarr.open_array(folder / "x.zarr", mode="r")


def damaged_hdf5(folder: Path) -> Any:
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("x", data=INPUTS, chunks=(10, 8), compression="gzip")
        start = stored.id.get_chunk_info(2).byte_offset
    found = bytearray(path.read_bytes())
    found[start : start + 40] = bytes(40)
    path.write_bytes(found)
    return h5py.File(path)["x"]


@pytest.mark.parametrize("make", [damaged_zarr, damaged_hdf5])
def test_a_damaged_piece_is_named_by_its_first_row(tmp_path: Path, make: Any) -> None:
    data = dataset_of("own", (make(tmp_path), TARGETS), how(tmp_path))
    message = "own: inputs: row 20 cannot be read"
    with pytest.raises(RefusedInput, match=message) as refused:
        [*blocks(data.inputs[0])]
    assert refused.value.hint is not None
    with pytest.raises(RefusedInput, match=message):
        data.gather(np.array([3, 47, 25, 20]))


def test_a_file_that_was_closed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=INPUTS)
    with pytest.raises(RefusedInput, match="own: inputs: a Dataset that cannot be read") as refused:
        dataset_of("own", (stored, TARGETS), how(tmp_path))
    assert refused.value.hint is not None
    assert "without `with`" in refused.value.hint


class Uneven:
    def __iter__(self) -> Iterator[Any]:
        yield INPUTS[:10], TARGETS[:10]
        yield INPUTS[10:20], TARGETS[10:13]


def test_lengths_are_said(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="element 1: inputs and targets differ in length: 10 and 3"):
        dataset_of("own", Uneven(), how(tmp_path))


COLUMNS = [f"c{number}" for number in range(8)]


def table(kind: str, path: Path, targets: Any, *, without: str = "", **changed: Any) -> None:
    found = {name: INPUTS[:, number] for number, name in enumerate(COLUMNS)} | {"y": targets} | changed
    found.pop(without, None)
    if kind == "parquet":
        parquet.write_table(pa.table(found), path)
        return
    lines = [",".join(found), *(",".join(map(str, row)) for row in zip(*found.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_second_file_that_differs_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "t").mkdir()
    first, second = (tmp_path / "t" / f"{name}.{kind}" for name in "ab")
    table(kind, first, TARGETS)
    source, place = source_of(f"{kind}:t#{','.join(COLUMNS)}:y")
    table(kind, second, TARGETS, without="c5")
    with pytest.raises(RefusedInput, match=rf"{kind}:t: b.{kind} has no column 'c5', which a.{kind} has"):
        source.own(place, how(tmp_path))
    # In either order: text would be numbered as if it were another file's numbers.
    for one, other, message in ((first, second, "after numbers"), (second, first, "after text")):
        table(kind, one, TARGETS)
        table(kind, other, [f"class {target}" for target in TARGETS])
        with pytest.raises(
            RefusedInput, match=rf"b.{kind}: y: \w+ values from row 0 on, {message}"
        ) as refused:
            source.own(place, how(tmp_path))
        assert refused.value.hint is not None
    table(kind, first, TARGETS)
    table(kind, second, TARGETS)
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2] if kind == "parquet" else b"\xff\xfe" + whole)
    with pytest.raises(RefusedInput, match=rf"{kind}:t: b.{kind}: ") as broken:
        source.own(place, how(tmp_path))
    assert broken.value.hint is not None


def test_a_word_in_a_column_of_numbers_is_named_by_column_and_line(tmp_path: Path) -> None:
    table("csv", tmp_path / "t.csv", TARGETS, c3=["hello" if row == 7 else "1.5" for row in range(50)])
    source, place = source_of("csv:t.csv#*:y")
    with pytest.raises(
        RefusedInput,
        match=r"csv:t.csv: c3: 'hello' in row 7 \(counted from 0, behind the line of names\) is no number",
    ) as refused:
        source.own(place, how(tmp_path))
    assert refused.value.hint is not None


def test_an_archive_without_its_arrays_says_how_one_is_written(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=INPUTS, z=TARGETS)
    source, place = source_of("npz:t.npz")
    with pytest.raises(RefusedInput, match=r"t.npz has no x or no y; it holds x, z") as refused:
        source.own(place, how(tmp_path))
    assert refused.value.hint == "np.savez(FILE, x=inputs, y=targets, …)"
