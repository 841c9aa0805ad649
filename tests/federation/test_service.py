"""The socket of a silo: whoever comes, and whatever they send or do not send, the next message is answered."""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.federation.campaign import write_course
from tests.federation.hostile import harmless
from tests.federation.links import light
from tests.weights.mutations import mutate
from xbackend_fl.federation import Message
from xbackend_fl.federation.silo import service
from xbackend_fl.federation.silo.service import serving

HELLO = Message("hello").to_bytes()
LENGTH = struct.Struct("<Q")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(service, "_PATIENCE_S", 0.3)
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    (silo,) = light(course)
    with serving(silo, tmp_path / "socket") as found:
        _wait(found)
        yield found


def _wait(path: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        with suppress(OSError), service.connect(path):
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answers(path: Path) -> bool:
    return Message.from_bytes(service.ask(path, HELLO), "a silo").kind == "hello"


def sent(*pieces: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        # The other side may have had enough.
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)

    return send


@pytest.mark.parametrize(
    "send",
    [
        sent(),
        sent(b"\x05"),
        sent(LENGTH.pack(2**64 - 1)),
        sent(LENGTH.pack(2**31)),
        sent(LENGTH.pack(2**31 - 1), HELLO),
        sent(LENGTH.pack(len(HELLO)), HELLO[:-1]),
        sent(LENGTH.pack(5), b"\x1b[2J\n"),
        sent(LENGTH.pack(len(HELLO)), HELLO, HELLO),
        sent(HELLO),
    ],
)
@pytest.mark.parametrize("then", ["leaves", "stays"])
def test_whoever_sends_something_else(
    send: Callable[[socket.socket], None], then: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who stays and is silent holds up the next for the patience, and not for the length that was said; memory for that is not there either."""
    began = time.monotonic()
    with service.connect(path) as connection, caplog.at_level(logging.WARNING):
        send(connection)
        if then == "leaves":
            connection.close()
        assert answers(path)
    assert all(harmless(record.getMessage()) for record in caplog.records)
    assert time.monotonic() - began < 10


def test_a_slow_drip_is_cut_off(path: Path) -> None:
    """A byte now and then is no silence."""
    stop = threading.Event()

    def drip() -> None:
        with suppress(OSError), service.connect(path) as connection:
            connection.sendall(LENGTH.pack(1000))
            while not stop.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    try:
        assert answers(path)
        assert time.monotonic() - began < 5
    finally:
        stop.set()
        thread.join()


def test_who_does_not_take_the_answer(path: Path) -> None:
    with service.connect(path) as connection:
        # The answer is longer than what a socket holds.
        service.send(connection, Message("evidence").to_bytes())
        assert answers(path)


def test_thousands_who_come_and_go(path: Path) -> None:
    began = time.monotonic()
    for index in range(3000):
        with service.connect(path) as connection:
            if index % 3:
                connection.sendall(os.urandom(index % 16))
    assert answers(path)
    assert time.monotonic() - began < 60


def test_no_descriptor_is_free(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The silo is there when there is one again."""
    monkeypatch.setattr(service, "_PATIENCE_S", 0.02)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with ExitStack() as stack, suppress(OSError):
            while True:
                stack.enter_context(service.connect(path))
        # On a busy machine a request may take longer than that to begin.
        monkeypatch.undo()
        assert answers(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_frames_of_any_bytes(path: Path) -> None:
    for seed in range(300):
        frame = mutate(HELLO, np.random.default_rng(seed))
        if frame:
            answer = Message.from_bytes(service.ask(path, frame), "a silo")
            assert harmless(answer.reason)
    assert answers(path)
