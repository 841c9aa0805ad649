"""Settings that replace what a course file says: ``a.b=value``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xbackend_fl.course.compose import MAX_DEPTH, plain
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.reading import read_text
from xbackend_fl.errors import ConfigError

Path = tuple[int | str, ...]
"""Keys of mappings and indices of lists, from the top of a course."""

_EXAMPLE = "for example --set training.batch_size=16"


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: As messages call it: ``--set a.b=value``.
        path: Keys that lead to what it replaced.
    """

    name: str
    path: Path


def apply(course: dict[str, Any], texts: Sequence[str]) -> list[Setting]:
    """Replace parts of a course as a file says it, in order.

    Args:
        course: Changed in place.
        texts: ``a.b=value``; a part of the path may be the index of a list, and values are YAML.

    Raises:
        ConfigError: A text is no setting, or its path leads nowhere; the message says which.
    """
    return [_apply(course, text) for text in texts]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every single value by its dotted path."""
    if isinstance(value, dict):
        pairs = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        pairs = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {path: value}
    return {k: v for key, inner in pairs for k, v in flat(inner, f"{path}.{key}" if path else key).items()}


def _apply(course: dict[str, Any], text: str) -> Setting:
    name = f"--set {printed(text)}"
    key, equals, value = text.partition("=")
    steps = key.split(".")
    if not equals or not all(steps):
        raise ConfigError(f"{name} is not KEY=VALUE", hint=_EXAMPLE)
    if len(steps) > MAX_DEPTH:
        raise ConfigError(f"{name}: more than {MAX_DEPTH} keys", hint=_EXAMPLE)
    read = read_text(value, name, located=False)
    section: Any = course
    path: list[int | str] = []
    for step in steps[:-1]:
        key_or_index = _step(section, step, name, path)
        path.append(key_or_index)
        if isinstance(section, dict) and section.get(key_or_index) is None:
            # A section that is left out, or has nothing in it.
            section[key_or_index] = {}
        section = section[key_or_index]
        if not isinstance(section, dict | list):
            raise ConfigError(f"{name}: {printed('.'.join(map(str, path)))} is not a section")
    last = _step(section, steps[-1], name, path)
    section[last] = None if read.root is None else plain(read.root)
    return Setting(name, (*path, last))


def _step(section: dict[str, Any] | list[Any], step: str, name: str, path: Sequence[int | str]) -> int | str:
    if isinstance(section, dict):
        return step
    where = printed(".".join(map(str, path)))
    last = len(section) - 1
    if step.isdecimal() and step.isascii() and len(step) < len(str(last)) + 1 and int(step) <= last:
        return int(step)
    held = f"has the entries 0 to {last}" if section else "is an empty list"
    raise ConfigError(f"{name}: {where} {held}, not {printed(step)!r}")
