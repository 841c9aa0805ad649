"""JSON from a stranger: no duplicate keys, no depth, no flood of small objects."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from xbackend_fl.formats.limits import MAX_HEADER, MAX_HEADER_VALUES
from xbackend_fl.formats.source import Source, shown


def parse(source: Source, content: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FormatRefused: ``header-too-large``, or ``bad-header`` for anything that is not one JSON object
            with unique keys, finite numbers and whole characters.
    """
    # Every value but the last of its list is followed by a comma, and every list has a bracket.
    values = content.count(b",") + content.count(b"{") + content.count(b"[")
    if len(content) > MAX_HEADER or values > MAX_HEADER_VALUES:
        source.refuse(
            "header-too-large",
            f"{what} has {len(content)} bytes and about {values} values",
            limit=MAX_HEADER,
            value=len(content),
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in result if names.count(name) > 1)
            source.refuse("duplicate-name", f"{what} has the key {shown(twice)} twice")
        return result

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is no number")

    try:
        result = json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        source.refuse("bad-header", f"{what} is not JSON: {shown(str(error))}")
    if b"\\u" in content:
        try:
            json.dumps(result, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            source.refuse("bad-header", f"{what} holds half of a character, which is no text")
    if not isinstance(result, dict):
        source.refuse("bad-header", f"{what} is a {type(result).__name__}, not a JSON object")
    return result
