"""Which participant does which step of a cohort in lockstep."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xbackend_fl.adapter import ClientWork
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.schedule import by_steps, rounded, schedule


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(1, 4), max_size=5), min_size=1, max_size=6))
def test_schedules(sizes: list[list[int]]) -> None:
    """Every participant sees its batches, in order, while it is active; active ones come first."""
    work = [ClientWork(tuple(np.arange(n) + 10 * k for k, n in enumerate(part)), 1) for part in sizes]
    plan = schedule(work, by_steps(work), len(work) + 1, 4)
    assert sorted(plan.order) == list(range(len(work)))
    assert list(plan.active) == sorted(plan.active, reverse=True)
    for slot, index in enumerate(plan.order):
        for step, rows in enumerate(work[index].batches):
            assert slot < plan.active[step]
            np.testing.assert_array_equal(plan.rows[step, slot, : plan.counts[step, slot]], rows)
        assert not plan.counts[len(work[index].batches) :, slot].any()


@given(st.integers(1, 10_000))
def test_rounding(count: int) -> None:
    assert count <= rounded(count) <= 1.25 * count
    assert rounded(rounded(count)) == rounded(count)


def test_tensors_and_rows_begin_at_multiples_of_sixteen_values() -> None:
    """Of a stride Triton asks whether 16 divides it; where not, kernels load one value at a time."""
    sizes = {"a": (10,), "b": (7, 3), "c": (62, 9), "d": (), "e": (5, 1), "f": (3, 2, 2, 2)}
    tensors = {name: torch.zeros(size) for name, size in sizes.items()}
    packing = Packing.from_tensors(tensors, ["a", "b", "f"], ["c"], ["e"])
    begins = [start for start, _ in packing.places.values()]
    assert all(number % 16 == 0 for number in (*begins, packing.reach, packing.width, packing.size))
