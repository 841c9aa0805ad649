"""A warm start for Flower's process of a message: its program, imported once, from which each is forked.

Flower starts ``flwr-clientapp`` for every message, and that imports for two seconds what it imported for the last one. Here one process per SuperNode has
imported it, and a fork of it takes the message. What Flower starts instead is ``visit.py``, which it finds under the program's name.

The process has one thread when it forks, and a fork is a process of Flower's like any other: it pulls one message, answers it and ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from flwr.supernode.cli import flwr_clientapp

from xbackend_fl.deployment.flower import client  # noqa: F401  what the app imports is imported before the fork too

_LONGEST = 1 << 16


def main(path: Path) -> None:
    """Fork for whoever connects, until ended.

    Args:
        path: A path for the socket that nobody uses, in a folder that only this user may enter.
    """
    # Nobody waits for the forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Pages of what is imported stay shared if no collection writes to them.
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _run(connection)
                return
            connection.close()


def _run(connection: socket.socket) -> None:
    """Be the process that a visitor stands for: its arguments, its output, its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, outputs, _, _ = socket.recv_fds(connection, _LONGEST, 2)
    for output, number in zip(outputs, (1, 2), strict=True):
        os.dup2(output, number)
        os.close(output)
    sys.argv = json.loads(request)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    flwr_clientapp()


def _end_with(connection: socket.socket) -> None:
    """A visitor says nothing more; its end is the end of its connection."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
