"""What participants keep: which round's it is, how long it stays, and how much of it is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbackend_fl.errors import FileError
from xbackend_fl.participant import ClientStates

pytestmark = pytest.mark.quick


def arrays(value: float, size: int = 4) -> dict[str, Any]:
    return {"control/w": np.full(size, value, np.float32)}


def value_of(states: ClientStates, before: int) -> float | None:
    found = states.read("ada", before)
    return float(found["control/w"][0]) if found else None


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_a_round_reads_what_an_earlier_one_left(memory: int, tmp_path: Path) -> None:
    states = ClientStates(tmp_path, memory, 100)
    assert value_of(states, 9) is None
    for number in (2, 5, 6, 9):
        states.write("ada", number, arrays(number))
    assert [value_of(states, before) for before in (6, 7, 9, 10, 100)] == [5, 6, 6, 9, 9]
    # A round that begins again, and those after it, have left nothing.
    states.forget_from(9)
    assert value_of(states, 100) == 6
    # Another process finds what is on disk.
    assert value_of(ClientStates(tmp_path, memory, 2), 100) == 6


def test_what_no_round_can_need_again_goes(tmp_path: Path) -> None:
    states = ClientStates(tmp_path, 0, 3)
    for number in range(1, 11):
        states.write("ada", number, arrays(number))
    # Rounds 8 to 11 may come next, and read what 7 to 10 left.
    assert sorted(int(path.stem) for path in (tmp_path / "ada").iterdir()) == [7, 8, 9, 10]


def test_memory_is_bounded(tmp_path: Path) -> None:
    states = ClientStates(tmp_path, 100, 1)
    for name in ("ada", "ben", "cem"):
        states.write(name, 1, arrays(1.0, size=10))
    assert states._held <= 100
    states.write("dora", 1, arrays(2.0, size=1000))
    assert states._held <= 100
    assert float(states.read("dora", 2)["control/w"][-1]) == 2.0
    for name in ("ada", "ben", "cem"):
        assert float(states.read(name, 2)["control/w"][0]) == 1.0


def test_a_damaged_state_is_said(tmp_path: Path) -> None:
    ClientStates(tmp_path, 0, 1).write("ada", 1, arrays(1.0))
    (path,) = (tmp_path / "ada").iterdir()
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    with pytest.raises(FileError, match="corrupt"):
        ClientStates(tmp_path, 0, 1).read("ada", 2)
