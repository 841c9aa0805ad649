"""A column gives the bits that the library behind it gives, in any order of rows, and does not stay in memory."""

from __future__ import annotations

import os
import resource
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl.data import Column, Dataset, Sliced, blocks, column, content, not_finite
from xbackend_fl.data.column import is_stored, prefetch, read
from xbackend_fl.data.examine import extreme_values

pytestmark = pytest.mark.quick

ARRAY = np.random.default_rng(0).standard_normal((40, 3, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Column]:
    folder = tmp_path_factory.mktemp("forms")
    np.save(folder / "array.npy", ARRAY)
    with h5py.File(folder / "array.h5", "w") as file:
        file.create_dataset("x", data=ARRAY, chunks=(7, 3, 2))
    stored = zarr.create_array(folder / "array.zarr", shape=ARRAY.shape, chunks=(9, 3, 1), dtype="float32")
    stored[:] = ARRAY
    return {
        "array": ARRAY,
        "mapped": np.load(folder / "array.npy", mmap_mode="r"),
        "hdf5": Sliced(h5py.File(folder / "array.h5")["x"]),
        "zarr": Sliced(zarr.open_array(folder / "array.zarr", mode="r")),
    }


@given(st.lists(st.integers(0, 39), max_size=60), st.integers(0, 45), st.integers(0, 45))
@settings(max_examples=25, deadline=None)
def test_every_form_gives_the_bits_of_the_array(
    forms: dict[str, Column], places: list[int], first: int, last: int
) -> None:
    rows = np.array(places, np.intp)
    for form in forms.values():
        assert read(form, rows).tobytes() == ARRAY[rows].tobytes()
        assert read(form, slice(first, last)).tobytes() == ARRAY[first:last].tobytes()


def test_every_form_has_one_content(forms: dict[str, Column]) -> None:
    assert {content(form) for form in forms.values()} == {content(ARRAY)}
    data = [Dataset((form,), np.arange(40)).subset(np.arange(5, 30)) for form in forms.values()]
    assert len({part.gather(np.array([3, 1])).inputs[0].tobytes() for part in data}) == 1


class Counting:
    """An array that counts the rows that were read of it, one row a chunk."""

    shape, dtype, chunks = ARRAY.shape, ARRAY.dtype, (1, 3, 2)

    def __init__(self) -> None:
        self.rows = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.rows += len(ARRAY[rows])
        return ARRAY[rows]


def test_a_small_array_is_read_once_and_a_larger_one_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "_HELD_BYTES", ARRAY.nbytes)
    monkeypatch.setattr(column, "_held", weakref.WeakKeyDictionary())
    held, other = Counting(), Counting()
    small, second = Sliced(held), Sliced(other)
    for _ in range(3):
        for rows in (np.array([5, 2, 39]), np.array([0, 0])):
            assert small[rows].tobytes() == second[rows].tobytes() == ARRAY[rows].tobytes()
    assert held.rows == len(ARRAY)
    assert other.rows == 3 * 4, "there is room for one of them"
    del small
    assert Sliced(other)[np.array([7])].tobytes() == ARRAY[7:8].tobytes()
    assert other.rows == 3 * 4 + len(ARRAY), "the room of what is gone is free again"


def test_what_is_in_memory_is_not_taken_for_stored() -> None:
    class Frame:
        dtype, shape = np.dtype(float), (3,)

        def __getitem__(self, label: Any) -> Any: ...

    assert not any(map(is_stored, (ARRAY, np.float32(1), [1, 2], Frame())))


def _mapped_mib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0]) >> 10


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_mapped_file_does_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shuffled: bool
) -> None:
    monkeypatch.setattr(column, "_PAGES_BYTES", 24 << 20)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(160 << 20)
    mapped = np.asarray(np.memmap(tmp_path / "large", np.uint8, "r", shape=(2560, 64 << 10)))
    rows = np.random.default_rng(0).permutation(2560) if shuffled else None
    before, most = _mapped_mib(), 0
    for _, block in blocks(mapped, rows):
        assert not block.any()
        most = max(most, _mapped_mib() - before)
    assert most < 80


@pytest.mark.parametrize(
    "view",
    [
        lambda whole: whole,
        lambda whole: whole[5:].transpose(0, 2, 1),
        lambda whole: whole[::2, ::-1],
        lambda whole: whole[::-1],
    ],
    ids=["whole", "transposed", "steps", "backwards"],
)
def test_rows_that_are_announced_are_in_memory_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: Callable[[np.ndarray], np.ndarray]
) -> None:
    """The kernel counts what it had to wait for: nothing, of rows that were announced."""
    monkeypatch.setattr(column, "_PAGES_BYTES", 0)
    np.save(tmp_path / "x.npy", np.arange(200 * 64 * 64).reshape(200, 64, 64))
    rows = np.array([3, 90, 41, 12, 77])

    def waited(*, announce: bool) -> int:
        mapped = view(np.load(tmp_path / "x.npy", mmap_mode="r"))
        with (tmp_path / "x.npy").open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if announce:
            prefetch(mapped, rows)
            time.sleep(0.2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        found = read(mapped, rows)
        count = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before
        assert found.tobytes() == np.array(mapped)[rows].tobytes()
        return count

    if not waited(announce=False):
        pytest.skip("this file system keeps files in memory")
    assert not waited(announce=True)


def test_changes_that_are_in_memory_alone_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "_PAGES_BYTES", 1000)
    np.save(tmp_path / "x.npy", np.zeros(5000))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[7] = 3
    assert read(mapped, slice(0, 5000)).sum() == 3
    assert mapped[7] == 3


def test_what_takes_time_to_be_read_is_read_once(forms: dict[str, Column]) -> None:
    class Counted:
        shape, dtype, chunks, reads = ARRAY.shape, ARRAY.dtype, (1,), 0

        def __getitem__(self, rows: slice) -> np.ndarray:
            Counted.reads += 1
            return ARRAY[rows]

    counted, plain = Sliced(Counted()), forms["array"]
    assert content(counted) == content(plain)
    assert extreme_values(counted) == extreme_values(plain)
    assert not_finite(counted) is None
    assert Counted.reads == len([*blocks(plain)])
