"""What people read on the terminal: all of it goes through here."""

from __future__ import annotations

import typer

from xbackend_fl.text import lines


def say(text: object, *, err: bool = False) -> None:
    """Print text; what of it comes from elsewhere cannot do anything to the terminal.

    Args:
        text: One line or several.
        err: Whether it goes to stderr.
    """
    typer.echo(lines(text), err=err)
