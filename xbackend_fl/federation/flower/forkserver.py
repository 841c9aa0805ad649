"""A warm start for a program that Flower starts: imported once, and forked whenever Flower starts it.

Flower starts ``flwr-clientapp`` for every message, and that imports for two seconds what it imported for the last one. Here one process per SuperNode has
imported it, and a fork of it takes the message. ``flwr-serverapp``, the server's process, is started once; Flower gives it up if it has not reported within
30 s, which a slow machine needs for the imports alone. What Flower starts instead is ``clientapp_shim.py``, which it finds under the program's name.

The process has one thread when it forks, and a fork is a process of Flower's like any other: it pulls one message, or one run, and ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

_LONGEST = 1 << 16
_PROGRAMS = {
    "flwr-clientapp": ("flwr.supernode.cli", "flwr_clientapp", "client"),
    "flwr-serverapp": ("flwr.superlink.cli", "flwr_serverapp", "server"),
}
"""By name: the module and the function of Flower's program, and our app that it imports."""


def main(path: Path, program: str) -> None:
    """Fork for whoever connects, until ended.

    Args:
        path: A path for the socket that nobody uses, in a folder that only this user may enter.
        program: What Flower calls it.
    """
    module, name, app = _PROGRAMS[program]
    run: Callable[[], None] = getattr(import_module(module), name)
    # What the app imports is imported before the fork too.
    import_module(f"xbackend_fl.federation.flower.{app}")
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
                _run(connection, run)
                return
            connection.close()


def _run(connection: socket.socket, program: Callable[[], None]) -> None:
    """Be the process that a shim stands for: its arguments, its output, its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, outputs, _, _ = socket.recv_fds(connection, _LONGEST, 2)
    for output, number in zip(outputs, (1, 2), strict=True):
        os.dup2(output, number)
        os.close(output)
    sys.argv = json.loads(request)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    program()


def _end_with(connection: socket.socket) -> None:
    """A shim says nothing more; its end is the end of its connection."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
