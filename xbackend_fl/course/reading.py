"""Reads the YAML of a course, and writes it."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xbackend_fl.course.compose import (
    TOO_DEEP,
    Composer,
    Core,
    Node,
    ReadingError,
    Several,
    named_kind,
    plain,
)
from xbackend_fl.course.excerpt import Location, Source, block, listed, printed
from xbackend_fl.errors import ConfigError

MAX_BYTES = 4 << 20

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LINE = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Dumper(_DUMPER):  # type: ignore[misc, valid-type]  # the C one, where there is one
    """Quotes what the reader would take for something else than a text."""

    yaml_implicit_resolvers = Core.yaml_implicit_resolvers


@dataclass(frozen=True)
class Document:
    """What was read.

    Attributes:
        source: The text, for excerpts.
        root: What it says; ``None`` if nothing.
    """

    source: Source
    root: Node | None


def read_file(path: Path, kind: str) -> Document:
    """Read a YAML file that must be one mapping.

    Args:
        path: The file, in UTF-8, of at most 4 MiB.
        kind: What it is, for messages: ``course``.

    Raises:
        ConfigError: It is missing, or cannot be read; with line and column where there is one.
    """
    try:
        content = b""
        if found := path.is_file():
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the {kind} file {printed(str(path))}: {error.strerror}") from error
    if not found:
        raise ConfigError(f"no such {kind} file: {printed(str(path))}")
    document = read_text(content, printed(path.name))
    root = document.root
    if root is None or not isinstance(root.value, dict):
        received = "nothing" if root is None else named_kind(plain(root))
        raise ConfigError(
            f"{printed(str(path))} must be a mapping, KEY: VALUE on every line, received {received}"
        )
    return document


def read_text(content: bytes | str, name: str, *, located: bool = True) -> Document:
    """Read YAML.

    Args:
        content: One document.
        name: As messages call it.
        located: Whether messages give line and column.

    Raises:
        ConfigError: It is no YAML, or more than a course may be.
    """
    text = ""
    try:
        text = _text(content)
        _check_characters(text)
        root = Composer().compose(text)
    except yaml.YAMLError as error:
        mistakes = [_syntax(error)]
    except ReadingError as error:
        mistakes = [error]
    except Several as error:
        mistakes = error.mistakes
    else:
        return Document(Source(name, _LINE.split(text)), root)
    source = Source(name, _LINE.split(text))
    raise ConfigError(
        listed([block(m.message, source.where(m.location if located else None), m.hint) for m in mistakes])
    )


def _syntax(error: yaml.YAMLError) -> ReadingError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    # libyaml has a limit of its own, and looks ahead.
    reason = TOO_DEEP if "nesting depth" in problem else f"not YAML: {printed(problem)}"
    return ReadingError(reason, mark and Location(mark.line, mark.column))


def _check_characters(text: str) -> None:
    if (bad := _UNREADABLE.search(text)) is not None:
        before = _LINE.split(text[: bad.start()])
        raise ReadingError(f"not YAML: the character {bad[0]!a}", Location(len(before) - 1, len(before[-1])))


def write_text(value: dict[str, Any]) -> str:
    """A mapping as YAML that :func:`read_text` reads as the same."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _text(content: bytes | str) -> str:
    if len(content) > MAX_BYTES:
        raise ReadingError(f"more than {MAX_BYTES >> 20} MiB, which no course needs")
    if isinstance(content, str):
        return content
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        row, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        # The line is not shown: what follows is not known to be text.
        message = f"not UTF-8: byte 0x{content[error.start]:02x} in line {row}, column {column}"
        raise ReadingError(message, hint="save the file as UTF-8") from None
