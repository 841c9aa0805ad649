"""A silo that stays: it holds framework and model, and short-lived processes bring it messages over a socket of this machine.

Flower starts a new process for every message, which would import the framework and build the model each time. That process only carries
a frame here and the answer back, which is why this module imports nothing of the project.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xbackend_fl.deployment.silo import Silo


_LOG = logging.getLogger("xbfl")
_LONGEST = (1 << 31) - 1
"""Bytes of a frame at most: what Flower carries."""


def serve(silo: Silo, socket: Path, should_stop: Callable[[], bool]) -> None:
    """Answer messages until told to stop; one at a time, as the model can.

    Args:
        silo: Answers.
        socket: A path that nobody uses, in a folder that only this user may enter.
        should_stop: Asked after every message; :func:`wake` sends an empty one.
    """
    with Listener(str(socket), "AF_UNIX") as listener:
        while not should_stop():
            with listener.accept() as connection:
                _answer(silo, connection)


def _answer(silo: Silo, connection: Connection) -> None:
    try:
        frame = connection.recv_bytes(_LONGEST)
        if not frame:
            return
        connection.send_bytes(silo.reply(frame))
    except (EOFError, OSError) as error:
        # The other process is gone; the server will ask again, or go on without this answer.
        _LOG.warning("%s: a message was cut off: %s", silo.name, error)


def ask(socket: Path, frame: bytes) -> bytes:
    """Bring a frame to the silo of this machine, and its answer back.

    Raises:
        OSError: It is not there.
    """
    with Client(str(socket), "AF_UNIX") as connection:
        connection.send_bytes(frame)
        return connection.recv_bytes(_LONGEST)


def wake(socket: Path) -> None:
    """Let :func:`serve` ask whether it should stop."""
    with Client(str(socket), "AF_UNIX") as connection:
        connection.send_bytes(b"")
