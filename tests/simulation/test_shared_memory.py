"""Messages keep every bit, share memory, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from xbackend_fl.simulation.shared_memory import BufferRef, SharedBuffer, SharedValues, receive, send
from xbackend_fl.weights import Weights


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own: other processes send mail too."""
    monkeypatch.setattr("xbackend_fl.simulation.shared_memory._MEMORY", tmp_path)
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


def _read_twice(connection: Connection) -> None:
    for _ in range(2):
        weights = connection.recv().read()
        connection.send((weights.digest, weights["a"].flags.writeable))


@pytest.mark.parametrize("values", [10, 400_000])
def test_a_desk_is_used_again(values: int, memory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    reader = context.Process(target=_read_twice, args=(theirs,))
    reader.start()
    buffer, refs = SharedBuffer(), []
    for seed in range(2):
        weights = Weights({"a": np.random.default_rng(seed).standard_normal(values)}, "x")
        refs.append(buffer.write(weights))
        ours.send(refs[-1])
        assert ours.recv() == (weights.digest, values == 10)
    reader.join()
    assert refs[0].buffer == refs[1].buffer
    assert len(list(memory.iterdir())) == (values != 10)
    buffer.close()
    assert not list(memory.iterdir())


def test_a_desk_grows(memory: Path) -> None:
    buffer = SharedBuffer()
    small, large = (buffer.write(np.full(values, 3.0)).read() for values in (200_000, 300_000))
    assert (small == 3.0).all(), "who reads an old buffer can go on"
    assert (large == 3.0).all()
    assert len(list(memory.iterdir())) == 1
    assert isinstance(buffer.write(large), BufferRef)
    buffer.close()


def test_what_is_shared_is_written_once(memory: Path) -> None:
    shared, first, second = SharedValues(), np.full(400_000, 1.0), np.full(400_000, 2.0)
    shared.publish(first)
    assert not list(memory.iterdir()), "nothing is written that no call carries"
    number, ref, other = shared.refs((3, first, second))
    assert number == 3
    assert other is second, "what is not shared is sent by value"
    assert (ref.read() == first).all()
    assert shared.refs((first,))[0] is ref
    shared.publish(second, first)
    refs = shared.refs((first, second))
    assert [one.read()[0] for one in refs] == [1.0, 2.0]
    assert refs[1].buffer == ref.buffer
    shared.close()
    assert not list(memory.iterdir())
