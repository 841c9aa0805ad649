"""``xbfl adapters``: backends, and the operators they share."""

from __future__ import annotations

from typing import Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import Json, print_json


def adapters(
    operators: Annotated[bool, typer.Option("--operators", help="List the canonical operators.")] = False,
    as_json: Json = False,
) -> None:
    """List the backends and whether their framework is installed."""
    from xbackend_fl.adapter import load, names
    from xbackend_fl.errors import AdapterError

    if operators:
        _operators(as_json=as_json)
        return
    found: dict[str, str | None] = {}
    problems: dict[str, AdapterError] = {}
    for name in names():
        try:
            found[name] = load(name).version
        except AdapterError as error:
            found[name], problems[name] = None, error
    if as_json:
        print_json(found)
        return
    for name, version in found.items():
        echo(f"{name}: {version}" if version else f"{name}: not installed ({problems[name].hint})")


def _operators(*, as_json: bool) -> None:
    from xbackend_fl.canonical import OPERATORS

    rows = {row.name: [slot.role for slot in row.slots] for row in OPERATORS.values()}
    if as_json:
        print_json(rows)
        return
    for name, roles in rows.items():
        echo(f"{name}: {', '.join(roles)}" if roles else name)
