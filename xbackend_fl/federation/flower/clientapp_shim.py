"""What Flower finds under the name ``flwr-clientapp``: it asks ``forkserver.py`` for a fork, and lives as long as that.

A script that is run alone, by its path, with the standard library only: it must start in milliseconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys

_LOOK_S = 1.0
_ALONE = 5
"""How often it is seen that whoever started this is gone before the fork is ended, which Flower ends by itself if nothing is in its way."""


def main(place: str, program: str, arguments: list[str]) -> None:
    """Let a fork run the program; run it here if nobody forks.

    Args:
        place: The socket of ``forkserver.py``.
        program: Flower's own program.
        arguments: Its arguments.
    """
    starter = os.getppid()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(place)
            socket.send_fds(connection, [json.dumps([program, *arguments]).encode()], [1, 2])
            _wait(connection, starter)
        except OSError:
            # Nobody was there, or ended before it read what was sent: the connection of a fork that has read it ends without an error.
            os.execv(program, [program, *arguments])  # noqa: S606  the program that Flower meant


def _wait(connection: socket.socket, starter: int) -> None:
    """Nothing comes. The connection ends when the fork does, and the fork when this process does, or is alone."""
    connection.settimeout(_LOOK_S)
    alone = 0
    while alone < _ALONE:
        try:
            connection.recv(1)
        except TimeoutError:
            alone += os.getppid() != starter
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
