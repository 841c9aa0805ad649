"""Shows a run as it happens: a live table, plain lines, or one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from xbackend_fl.cli.console import answer, echo
from xbackend_fl.events import Event, Observer, to_line
from xbackend_fl.report import LiveTable, describe


@contextmanager
def view(*, as_json: bool) -> Iterator[Observer]:
    """The observer that fits where the output goes."""
    console = Console()
    if as_json:
        yield lambda event: answer(to_line(event))
    elif not console.is_terminal:
        yield _print_line
    else:
        table = LiveTable()
        with Live(table.render(), console=console, refresh_per_second=8) as live:

            def observe(event: Event) -> None:
                table.add(event)
                live.update(table.render())

            yield observe


def _print_line(event: Event) -> None:
    line = describe(event)
    if line:
        echo(line)
