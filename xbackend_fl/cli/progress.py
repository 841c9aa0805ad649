"""The bar that long work shows on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal


@contextmanager
def progress_bar(
    what: str, unit: Literal["items", "bytes"] = "items", *, shown: bool = True
) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, silence elsewhere.

    Args:
        what: What is done, as a word before the bar.
        unit: What is counted; bytes are shown with their speed.
        shown: False for work that is too short for a bar, or whose output a program reads.

    Yields:
        To be called with how much is done, and of how much.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield lambda _, __: None
        return
    columns = (
        (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        if unit == "bytes"
        else Progress.get_default_columns()
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield on_progress
