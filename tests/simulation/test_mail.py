"""Messages keep every bit, share memory, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from xbackend_fl.simulation.mail import receive, send
from xbackend_fl.weights import Weights


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own: other processes send mail too."""
    monkeypatch.setattr("xbackend_fl.simulation.mail._MEMORY", tmp_path)
    return tmp_path


@pytest.mark.parametrize("values", [10, 400_000])
def test_arrays_arrive(values: int, memory: Path) -> None:
    one, two = multiprocessing.Pipe()
    arrays = {
        "a": np.random.default_rng(0).standard_normal(values),
        "b": np.arange(7),
        "t": np.ones((3, 4)).T,
    }
    message = ("train", Weights(arrays, "x"), {"scalar": np.float32(2), "none": None})
    send(one, message)
    name, weights, rest = receive(two)
    assert name == "train"
    assert weights.digest == message[1].digest
    assert rest == message[2]
    assert not list(memory.iterdir())
    weights["a"][0] = 5.0
    assert arrays["a"][0] != 5.0, "what the receiver changes stays with it"
    assert values == 10 or not weights["a"].flags.owndata


def test_a_lost_receiver_leaves_no_file(memory: Path) -> None:
    one, two = multiprocessing.Pipe()
    two.close()
    with pytest.raises(OSError, match="Broken pipe"):
        send(one, np.zeros(400_000))
    assert not list(memory.iterdir())
