"""What people read on the terminal: all of it goes through here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from xbackend_fl.text import lines

_answers: list[TextIO] = []
"""Where JSON goes, once it has a stream of its own."""


@contextmanager
def stdout_for_json() -> Iterator[None]:
    """What anybody prints goes to stderr, also what C code and processes started later write; :func:`answer` alone reaches stdout.

    A user's model, data or loss may print when it is imported, called or trained, in any process, and when the process ends: the
    stream of a process of our own is never given back.
    """
    shown = sys.stdout
    shown.flush()
    try:
        is_ours = shown.fileno() == 1
    except (OSError, ValueError):
        is_ours = False
    if not is_ours:
        # Somebody looks at what this interpreter prints: a test, a notebook.
        _answers[:] = [shown]
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = shown
            _answers.clear()
        return
    # Other programs do not inherit it.
    own = os.dup(1)
    _answers[:] = [os.fdopen(own, "w", encoding="utf-8", newline="\n")]
    try:
        os.dup2(2, 1)
    except OSError:
        # There is no stderr.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    yield


def answer(text: str) -> None:
    """Print a line of JSON."""
    if not _answers:
        typer.echo(text)
        return
    _answers[0].write(text + "\n")
    _answers[0].flush()


def echo(text: object, *, err: bool = False) -> None:
    """Print text; what of it comes from elsewhere cannot do anything to the terminal.

    Args:
        text: One line or several.
        err: Whether it goes to stderr.
    """
    typer.echo(lines(text), err=err)
