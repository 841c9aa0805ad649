"""Rows of a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xbackend_fl.text import line


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows that have the same keys; text from files is shown as it is, never as markup."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return "×".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else line(value)
