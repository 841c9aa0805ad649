"""A distributed script takes part: rank 0 speaks, and all others train from the weights that it was sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from tests.federation.test_script import FILES, QUORUM
from xbackend_fl.federation.flower.processes import free_port
from xbackend_fl.weights import load_weights


@pytest.fixture
def room(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def started(room: Path, *arguments: str, **more: str) -> list[subprocess.CompletedProcess[str]]:
    """Both ranks, to their end."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tests.federation.ranks", str(room), *arguments]
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [
        subprocess.CompletedProcess(command, one.returncode, out, err)
        for one in both
        for out, err in [one.communicate(timeout=120)]
    ]


def seen(room: Path, rank: int) -> list[Any]:
    found: list[Any] = torch.load(room / f"rank-{rank}.pt", weights_only=True)
    return found


@pytest.mark.slow
def test_all_ranks_train_from_the_weights_of_the_round(room: Path) -> None:
    done = started(room)
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    first, second = seen(room, 0), seen(room, 1)
    assert [entry[0] for entry in first] == [1, 2]
    for one, other in zip(first, second, strict=True):
        assert one[:2] == other[:2], "round and seed"
        for one_weights, other_weights in zip(one[2:], other[2:], strict=True):
            assert all(torch.equal(value, other_weights[name]) for name, value in one_weights.items())
    # What lyon gave is in it too: it is no rank's own result.
    last = load_weights(room / "run" / "last.safetensors")
    assert not torch.equal(torch.from_numpy(last["0.weight"]), first[-1][3]["0.weight"])
    assert not torch.equal(first[1][2]["0.weight"], first[0][3]["0.weight"])


@pytest.mark.slow
def test_all_ranks_leave_when_rank_0_does(room: Path) -> None:
    done = started(room, "break", QUORUM)
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    assert [len(seen(room, rank)) for rank in range(2)] == [1, 1]


@pytest.mark.slow
def test_an_algorithm_that_adds_to_every_step_is_refused_in_all_ranks(room: Path) -> None:
    for one in started(room, "federate.algorithm=fedprox"):
        assert one.returncode
        assert "fedprox adds to every step, and steps of a distributed script" in one.stderr
