"""A deadline for code that is not the toolkit's: wherever it is, it is interrupted there."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_AGAIN_S = 1.0
_GRACE_S = 10.0
"""Seconds after which a worker's process ends that could not be interrupted: it is in code that is not Python's."""


_MARK = b"Timeout ("
"""Begins what ``faulthandler`` writes."""


class Overtime(BaseException):
    """The time is over; no ``except Exception`` of the interrupted code catches it."""


@contextmanager
def ended_after(seconds: float | None, trace: Path | None = None) -> Iterator[None]:
    """Interrupt the block if it takes longer.

    In the main thread whatever waits is interrupted too, a lock or a sleep; in another, Python code alone. A process that a simulation has
    started ends if neither helps.

    Args:
        seconds: How long it may take; any time if left out.
        trace: Where a process that ends writes where it was; standard error if left out.

    Raises:
        Overtime: It took longer.
    """
    if seconds is None:
        yield
    elif threading.current_thread() is threading.main_thread():
        with _by_signal(seconds, trace):
            yield
    else:
        with _by_thread(seconds):
            yield


def has_ended(trace: Path) -> bool:
    """Whether a process has written there that it ends."""
    return trace.is_file() and trace.read_bytes().startswith(_MARK)


@contextmanager
def _by_signal(seconds: float, trace: Path | None) -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise Overtime

    with _process_ends(seconds + _GRACE_S, trace):
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@contextmanager
def _process_ends(seconds: float, trace: Path | None) -> Iterator[None]:
    """The process of a simulation's worker ends if the block takes longer, whatever it waits for."""
    if multiprocessing.parent_process() is None:
        yield
        return
    with ExitStack() as stack:
        file = sys.stderr
        if trace is not None:
            trace.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(trace.open("w"))
            stack.callback(trace.unlink)
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        stack.callback(faulthandler.cancel_dump_traceback_later)
        yield


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    over, ident = threading.Event(), threading.get_ident()

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Overtime))
            wait = _AGAIN_S

    watcher = threading.Thread(target=watch, name="xbfl-overtime", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
