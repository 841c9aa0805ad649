"""Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from xbackend_fl.cli.console import echo

INTERRUPTED = 130
"""The exit code of a command that was interrupted."""


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends the command at once, without a traceback."""
    signal.signal(signal.SIGINT, _end)


def stop_on_interrupt(notice: str = "") -> Callable[[], bool]:
    """From now on the first Ctrl-C, or a request to terminate, asks the command to stop; a second Ctrl-C ends it at once, and so does SIGHUP.

    SIGHUP is what a command hears whose terminal is closed, or whose rehearsal nobody waits for any more.

    Args:
        notice: What to say of the first.

    Returns:
        Whether it was asked to stop.
    """
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        if notice and not asked:
            echo(notice, err=True)
        asked = True
        if number == signal.SIGINT:
            end_on_interrupt()

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    # Who is started with nohup goes on; and Windows has no such signal.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
        signal.signal(hangup, _end)
    return lambda: asked


def _end(_: int, __: object) -> NoReturn:
    sys.exit(INTERRUPTED)
