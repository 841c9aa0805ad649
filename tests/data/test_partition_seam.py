"""A new partition is one file: nothing else names the ones that there are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tests.algorithms.smooth import course_of
from tests.beside import beside, naming
from tests.command import xbfl
from xbackend_fl.data import PARTITIONS
from xbackend_fl.rounds.folder import RunFolder

PACKAGE = "xbackend_fl.data.partitions"
TURNS = """
    from collections.abc import Sequence
    from dataclasses import dataclass
    from typing import Annotated, Literal

    import numpy as np
    from annotated_types import Ge

    from xbackend_fl.data.partition import Partition, Pool, Shards


    @dataclass(frozen=True)
    class Turns(Partition):
        kind: Literal["turns"] = "turns"
        length: Annotated[int, Ge(1)] = 1

        def shards(self, pool: Pool, names: Sequence[str], seed: int) -> Shards:
            turn = np.arange(pool.num_examples) // self.length % len(names)
            return {name: np.flatnonzero(turn == index) for index, name in enumerate(sorted(names))}


    PARTITION = Turns
"""
OWNERS = """
import data

def load():
    parts = data.load()
    return parts | {"owners": [index // 3 % 5 for index in range(len(parts["train"][0]))]}
"""


@pytest.mark.quick
def test_a_partition_is_one_short_file(root: Path) -> None:
    folder = root / "xbackend_fl/data/partitions"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert files.keys() == PARTITIONS.keys()
    for name, path in files.items():
        assert len(path.read_text().splitlines()) <= 100
        assert next(f for f in fields(PARTITIONS[name]) if f.name == "kind").default == name
    assert naming(root, '"' + '"|"'.join(files) + '"', outside="data/partitions/") == []


@pytest.mark.slow
def test_a_file_that_is_there_shares_out_a_courses_data(tmp_path: Path) -> None:
    """It ends with the bits of a course whose data say themselves whose each example is."""
    folder = tmp_path / "course"
    course_of(folder, ["torch"], rounds=2)
    (folder / "owned.py").write_text(OWNERS)

    def arguments(place: Path, partition: str) -> list[object]:
        settings = ("--set", "data.source=owned.py:load", "--set", f"data.partition={partition}")
        return ["run", "course.yaml", "--in-process", "--out", place, *settings]

    asked = arguments(tmp_path / "run", "{kind: turns, length: 3}")
    alone = xbfl(*asked, cwd=folder)
    assert alone.returncode == 2
    assert "`data.partition` is 'turns'; there are by_id, dirichlet," in alone.stderr
    done = xbfl(*asked, cwd=folder, env=beside(tmp_path / "own", PACKAGE, "turns", TURNS))
    assert done.returncode == 0, done.stderr
    done = xbfl(*arguments(tmp_path / "by_id", "by_id"), cwd=folder)
    assert done.returncode == 0, done.stderr
    digests = set()
    for place in ("run", "by_id"):
        state = RunFolder(tmp_path / place).readable(2)
        assert state is not None
        digests.add(state.weights.digest)
    assert len(digests) == 1
