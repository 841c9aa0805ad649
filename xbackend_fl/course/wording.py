"""What is wrong with one value, in plain words: what should stand there, and what does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from xbackend_fl.course.compose import named_kind
from xbackend_fl.course.excerpt import printed
from xbackend_fl.objects import is_registered

_MAPPING, _LIST, _WHOLE, _NUMBER = "a mapping of keys", "a list in brackets", "a whole number", "a number"
_KINDS = {
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"), _MAPPING
    ),
    **dict.fromkeys(("list_type", "tuple_type"), _LIST),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_unicode", "string_sub_type"), "a text"),
    "finite_number": "a finite number",
}
"""What should stand where a value is of another kind, by pydantic's name of the mistake."""
_SIZES = {
    "too_short": "has {actual_length} entries, and needs {min_length} at least",
    "too_long": "has {actual_length} entries, and may have {max_length}",
    "string_too_short": "has fewer than {min_length} characters",
    "string_too_long": "has more than {max_length} characters",
}
FORMS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a name of letters, digits, '.', '_' and '-' that begins with a letter or a digit",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "a name of letters, digits and '_' that begins with a letter",
}
"""Patterns of fields in words."""
CODE = "FILE_OR_MODULE:CALLABLE"
"""Begins the description of a field that names code."""
_EXAMPLES = ("data", "source")
_KEY = re.compile(r"`([\w.]+)`")


def said(
    detail: ErrorDetails,
    path: Sequence[int | str],
    field: FieldInfo | None = None,
    objects: Mapping[str, Any] | None = None,
) -> str:
    """A mistake in the value at a path.

    Args:
        detail: The mistake, as pydantic has it.
        path: Keys that lead to the value.
        field: The key's, if it is known.
        objects: What stood where a course in Python has these texts now.
    """
    where, received = dotted(path), detail["input"]
    kind, context = detail["type"], detail.get("ctx", {})
    if detail["loc"][-1:] == ("[key]",) or kind == "invalid_key":
        return f"`{where}`: keys are texts, got {shown(received, objects)}"
    if kind in _SIZES:
        return f"{f'`{where}`' if where else 'it'} {_SIZES[kind].format(**context)}"
    message = detail["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    if kind == "string_pattern_mismatch":
        message = f"input should be {FORMS[context['pattern']]}"
    elif kind in _KINDS:
        message = (
            f"input should be {_code(path) if kind == 'string_type' and _is_code(field) else _KINDS[kind]}"
        )
    return f"`{where}`: {message}, got {shown(received, objects)}" if where else message


def hint_for(detail: ErrorDetails, field: FieldInfo | None = None) -> str | None:
    """What was probably meant, where a kind of mistake tells it."""
    received, kind = detail["input"], detail["type"]
    if kind == "list_type" and isinstance(received, str):
        return f"several stand in brackets, and so does one: [{printed(received)}]"
    if kind == "string_type" and isinstance(received, int | float) and not _is_code(field):
        return "a text that looks like a number or a switch stands in quotes"
    return None


def shown(value: object, objects: Mapping[str, Any] | None = None) -> str:
    """A value that was received, in words."""
    if isinstance(value, str) and objects and value in objects:
        return named_kind(objects[value])
    if isinstance(value, str) and is_registered(value):
        return "an object of Python"
    return printed(repr(value)) if isinstance(value, str | int | float) else named_kind(value)


def whose(path: Sequence[int | str], given: object) -> str:
    """The participant to whom a path leads, by name; empty if it leads to none, or to one without a name.

    Args:
        path: Keys that lead to a mistake.
        given: What was read.
    """
    listed = given.get("participants") if isinstance(given, Mapping) else None
    if len(path) < 2 or path[0] != "participants" or not isinstance(listed, list | tuple):
        return ""
    place = path[1]
    one = listed[place] if isinstance(place, int) and place < len(listed) else None
    name = one.get("name") if isinstance(one, Mapping) else getattr(one, "name", None)
    return name if isinstance(name, str) else ""


def dotted(path: Sequence[int | str]) -> str:
    """Keys as one word."""
    return printed(".".join(map(str, path)))


def as_given(path: tuple[int | str, ...], given: object) -> tuple[int | str, ...]:
    """A path without places in what is read as a list of one, and was given alone."""
    found: list[int | str] = []
    for step in path:
        if isinstance(step, int) and isinstance(given, str | Mapping):
            continue
        found.append(step)
        if isinstance(given, Mapping):
            given = given.get(step)
        else:
            there = isinstance(given, list | tuple) and isinstance(step, int) and step < len(given)
            given = given[step] if there else None  # type: ignore[index]
    return tuple(found)


def in_full(message: str, path: Sequence[int | str]) -> str:
    """A message that begins with a key as a section knows it, with the key as the whole course has it: with places in lists."""
    if (found := _KEY.match(message)) is None:
        return message
    for end in range(len(path), 0, -1):
        short = dotted([step for step in path[:end] if isinstance(step, str)])
        if short == found[1] or short.endswith(f".{found[1]}"):
            return f"`{dotted(path[:end])}`{message[found.end() :]}"
    return message


def _is_code(field: FieldInfo | None) -> bool:
    return field is not None and str(field.description).startswith(CODE)


def _code(path: Sequence[int | str]) -> str:
    what = "examples or a function" if path[-1] in _EXAMPLES else "a function"
    return f"{CODE} (in Python {what}, too)"
