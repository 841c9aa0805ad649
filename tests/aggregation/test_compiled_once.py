"""Loops of the mean are compiled once a machine, wherever that can be kept; each process here has a compiler to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="needs Numba")

COUNTS = """
import sys
import numpy as np
from xbackend_fl.aggregation import kernels
array = np.arange(100, dtype=np.float32)
assert kernels.reach(array, many=False) == 99
assert "numba" not in sys.modules, "a small model needs no compiler"
assert kernels.reach(array, many=True) == 99
assert "numba" in sys.modules
from xbackend_fl.aggregation import compiled
kernels.add_scaled(np.zeros(100, "f"), [array], [3], array, many=True)
stats = compiled._reaching("I").stats
print(stats.cache_path, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def started(processes: int, root: Path, **environment: str) -> list[tuple[str, int, int]]:
    """Where each of some processes, started at once, keeps its loops, and how many it found and compiled."""
    variables = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-P", "-c", COUNTS]
    running = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    found = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * processes
    return [(folder, int(hits), int(misses)) for folder, hits, misses in found]


def test_loops_are_compiled_once_a_machine(tmp_path: Path, root: Path) -> None:
    """By one of several processes that start at once, and kept where a folder can be written; small models never load a compiler."""
    first = started(2, root, NUMBA_CACHE_DIR=str(tmp_path))
    assert sorted(found[1:] for found in first) == [(0, 1), (1, 0)]
    assert all(Path(folder).is_relative_to(tmp_path) for folder, _, _ in first)
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # A file that a full disk has cut off is no reason to fail.
    assert started(1, root, NUMBA_CACHE_DIR=str(tmp_path))[0][0] == "None"


def test_an_installation_that_nobody_may_write_to(tmp_path: Path, root: Path) -> None:
    """Loops are kept with the user's files; who has no folder compiles for itself."""
    package = tmp_path / "site" / "xbackend_fl"
    shutil.copytree(root / "xbackend_fl", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "aggregation" / "__pycache__").write_text("no folder")
    home = tmp_path / "home"
    home.mkdir()
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "NUMBA_CACHE_DIR": ""}
    ((folder, _, misses),) = started(1, package.parent, **variables)
    assert (Path(folder).is_relative_to(home), misses) == (True, 1)
    nowhere = home / "file"
    nowhere.write_text("no folder")
    variables |= {"HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere)}
    assert started(1, package.parent, **variables)[0][0] == "None"
