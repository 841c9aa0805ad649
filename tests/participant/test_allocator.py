"""A step that allocates what the one before freed gets the same memory, without faults, and what a proof freed goes back; the system counts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

STEPS = """
import resource
import numpy as np
from xbackend_fl.participant.allocator import keep_freed_memory

def step():
    arrays = [np.ones(size, np.uint8) for size in (3 << 20, 5 << 20, 7 << 20, 9 << 20)]
    return sum(int(array[-1]) for array in arrays)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


PROOF = """
from xbackend_fl.participant.allocator import keep_freed_memory, return_free_memory
import numpy as np

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
arrays = [np.ones(20 << 20, np.uint8) for _ in range(6)]
last = np.ones(1 << 10)
while arrays:
    arrays.pop()
freed = resident()
return_free_memory()
print(freed - resident(), last.size)
"""


def counted(**environment: str) -> tuple[int, int]:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    # Large pages would hide what is counted.
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        capture_output=True,
        text=True,
        check=True,
        env=plain | {"NUMPY_MADVISE_HUGEPAGE": "0"} | environment,
    )
    before, after = map(int, done.stdout.split())
    return before, after


@pytest.mark.slow
def test_steps_fault_no_more() -> None:
    before, after = counted()
    assert before > 10_000
    assert after < before / 100


@pytest.mark.slow
def test_whoever_has_chosen_is_left_alone() -> None:
    before, after = counted(MALLOC_MMAP_THRESHOLD_=str(1 << 20))
    assert after > before / 2


@pytest.mark.slow
def test_what_a_proof_freed_goes_back() -> None:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROOF], capture_output=True, text=True, check=True, env=plain
    )
    assert int(done.stdout.split()[0]) > 40 << 20
