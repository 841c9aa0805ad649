"""A hook of mkdocs: tables that the code holds already, and cross references as docstrings write them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from typer.models import ArgumentInfo, OptionInfo

from xbackend_fl.canonical import OPERATORS
from xbackend_fl.canonical.row import Effect, Operator
from xbackend_fl.cli.main import app
from xbackend_fl.course import Course
from xbackend_fl.weights.refusals import CODES

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?(?:[\w.]+\.)?(\w+)</code>")
_EMPHASIS = {Effect.FUNCTION: "**{}**", Effect.TRAINING: "*{}*"}


def _operator(row: Operator) -> str:
    slots = "<br>".join(f"`{slot.role}` {slot.axes}" for slot in row.slots)
    attributes = ", ".join(
        _EMPHASIS.get(effect, "{}").format(name) for name, effect in row.attributes.items()
    )
    properties = ", ".join(str(item.name).lower() for item in row.properties)
    return f"| `{row.name}` | {slots} | {attributes} | {properties} |"


def _operators() -> str:
    head = "| operator | parameters | attributes | properties |\n|---|---|---|---|\n"
    return head + "\n".join(_operator(row) for row in OPERATORS.values())


def _codes() -> str:
    head = "| code | what was found | what to do |\n|---|---|---|\n"
    return head + "\n".join(f"| `{code}` | {item.meaning} | {item.cure} |" for code, item in CODES.items())


def _options(callback: Callable[..., object]) -> Iterator[str]:
    for parameter in inspect.signature(callback, eval_str=True).parameters.values():
        # What Typer gives by itself, its context, has none.
        for info in getattr(parameter.annotation, "__metadata__", ()):
            meaning = (info.help or "").replace("|", "\\|")
            if isinstance(info, OptionInfo):
                # Typer keeps the first name that stands in Annotated where a default would stand.
                given = [info.default, *(info.param_decls or ())]
                names = [name for name in given if isinstance(name, str)]
                names = names or [f"--{parameter.name.replace('_', '-')}"]
                yield f"| `{'`, `'.join(names)}` | {meaning} |"
            elif isinstance(info, ArgumentInfo):
                yield f"| {info.metavar or parameter.name.upper()} | {meaning} |".replace(
                    "FILE|RUN|MODEL", "FILE, RUN or MODEL"
                )


def _all_commands() -> Iterator[tuple[str, Callable[..., object]]]:
    groups = [(f"{group.name} ", group.typer_instance) for group in app.registered_groups]
    for before, program in [("", app), *groups]:
        for command in program.registered_commands if program else ():
            if command.callback is not None:
                yield f"{before}{command.name}", command.callback


def _commands() -> str:
    sections = []
    for name, callback in _all_commands():
        said = (inspect.getdoc(callback) or "").replace("\b\n", "")
        rows = "\n".join(_options(callback))
        sections.append(f"## xbfl {name}\n\n{said}\n\n| option | meaning |\n|---|---|\n{rows}\n")
    return "\n".join(sections)


def _keys_of(model: type[BaseModel], before: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if sections:
            many = "[]" if get_origin(field.annotation) is list else ""
            yield from _keys_of(sections[0], f"{before}{name}{many}.")
            continue
        default = (
            ""
            if field.is_required()
            else f"`{json.dumps(to_jsonable_python(field.get_default(call_default_factory=True)))}`"
        )
        words = [f"`{word}`" for kind in kinds for word in get_args(kind) if get_origin(kind) is Literal]
        words = words or [f"`{word}`" for word in kinds if isinstance(word, str)]
        meaning = "; ".join(filter(None, [field.description, ", ".join(words)]))
        yield f"| `{before}{name}` | {default} | {meaning} |"


def _keys() -> str:
    return "| key | default | meaning |\n|---|---|---|\n" + "\n".join(_keys_of(Course, ""))


_TABLES = {
    "<!-- table: commands -->": _commands,
    "<!-- table: keys -->": _keys,
    "<!-- table: operators -->": _operators,
    "<!-- table: codes -->": _codes,
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Tables in the place of their marks."""
    for mark, table in _TABLES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """``:meth:`~package.Class.name``` as ``name``."""
    return _ROLE.sub(r"<code>\1</code>", html)
