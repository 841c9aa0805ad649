"""A hook of mkdocs: tables that the code holds already, and cross references as docstrings write them."""

from __future__ import annotations

import re

from xbackend_fl.canonical import OPERATORS
from xbackend_fl.canonical.ops import Effect, Operator
from xbackend_fl.weights.refusals import CODES

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?(?:[\w.]+\.)?(\w+)</code>")
_EMPHASIS = {Effect.FUNCTION: "**{}**", Effect.TRAINING: "*{}*"}


def _operator(row: Operator) -> str:
    slots = "<br>".join(f"`{slot.role}` {slot.axes}" for slot in row.slots)
    attributes = ", ".join(
        _EMPHASIS.get(effect, "{}").format(name) for name, effect in (row.attributes or {}).items()
    )
    return f"| `{row.name}` | {slots} | {attributes} |"


def _operators() -> str:
    head = "| operator | parameters | attributes |\n|---|---|---|\n"
    return head + "\n".join(_operator(row) for row in OPERATORS.values())


def _codes() -> str:
    head = "| code | what was found | what to do |\n|---|---|---|\n"
    return head + "\n".join(f"| `{code}` | {item.meaning} | {item.cure} |" for code, item in CODES.items())


_TABLES = {"<!-- table: operators -->": _operators, "<!-- table: codes -->": _codes}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Tables in the place of their marks."""
    for mark, table in _TABLES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """``:meth:`~package.Class.name``` as ``name``."""
    return _ROLE.sub(r"<code>\1</code>", html)
