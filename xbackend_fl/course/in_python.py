"""Courses that are written in Python: objects where a file has texts, and mistakes in the words that a file's have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError

from xbackend_fl.errors import ConfigError
from xbackend_fl.objects import RegisteredObject, file_of, find_object, is_function, register_object
from xbackend_fl.text import shown_names

_PARTS = frozenset({"train", "validation", "test", "owners"})
_DATA = ("data", "source")
"""Keys whose values may be examples."""
_SETTINGS = "settings"
"""The key whose values are a loop's of the user's own."""


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    # It has no public name.
    ModelMetaclass = type(BaseModel)


class SectionMeta(ModelMetaclass):
    """The class of sections: what happens where somebody calls one in Python. A file is read without calling any."""

    def __call__(self: Any, *args: Any, **keys: Any) -> Any:
        """A section; see :class:`~xbackend_fl.course.section.Section`.

        Raises:
            ConfigError: All mistakes at once.
        """
        positional: tuple[str, ...] = self.positional
        if len(args) > len(positional):
            raise ConfigError(
                f"{self.__name__} takes {', '.join(positional) or 'nothing'} by position, received {len(args)} values",
                hint=f"give the rest by name: {', '.join(n for n in self.model_fields if n not in positional)}",
            )
        given = dict(zip(positional, args, strict=False))
        if twice := given.keys() & keys.keys():
            raise ConfigError(f"{self.__name__} received {', '.join(sorted(twice))} twice")
        given |= keys
        # What belongs to one of many is told apart by its name.
        who = given.get("name") if positional else None
        prefix = (who,) if isinstance(who, str) else ()
        # Objects live as long as somebody holds them.
        new: dict[str, Any] = {}
        plain = _texts(given, prefix, new)
        try:
            made = super().__call__(**plain)
        except ValidationError as error:
            # Both need the sections of a course, which are made by this class.
            from xbackend_fl.course import diagnostics, excerpt  # noqa: PLC0415

            objects = {
                text: one.value if isinstance(one, RegisteredObject) else one for text, one in new.items()
            }
            mistakes, count = diagnostics.explain(error, self, plain, objects)
            whose = f"{self.__name__.lower()}{f' {who!r}' if prefix else ''}: " if positional else ""
            blocks = [excerpt.block(f"{whose}{m.message}", (), m.hint) for m in mistakes[: excerpt.SHOWN]]
            raise ConfigError(excerpt.listed(blocks, count)) from error
        return made.with_objects(objects_in(made))


def objects_in(value: Any) -> Iterator[RegisteredObject]:
    """The objects behind the texts of a value, in sections, mappings and sequences, as far as this process has them."""
    if isinstance(value, str):
        if (one := find_object(value)) is not None:
            yield one
        return
    if isinstance(value, BaseModel):
        parts: Iterable[Any] = (item for _, item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        # Of a registry, as a loss of the user's own.
        parts = (getattr(value, field.name) for field in fields(value))
    elif isinstance(value, Mapping):
        parts = value.values()
    else:
        parts = value if isinstance(value, list | tuple) else ()
    for part in parts:
        yield from objects_in(part)


def require_files(course: BaseModel) -> None:
    """Refuse a course with objects: other machines have files.

    Raises:
        ConfigError: It has some; the message names what they are for.
    """
    keys = sorted({one.key for one in objects_in(course)})
    if keys:
        raise ConfigError(
            f"{shown_names(keys)} of this course are objects of Python, which silos do not have",
            hint="write them in a file, from which the course may import them: an importable function goes by its file",
        )


def _text_for(value: Any, path: tuple[str, ...], new: dict[str, Any]) -> Any:
    """A value as a file would have it; what its texts stand for is added to ``new``."""
    if value is None or isinstance(value, str | int | float | BaseModel):
        return value
    if is_function(value) and (text := file_of(value)) is not None:
        new[text] = value
        return text
    if callable(value) or (path[-1] in _DATA and _is_data(".".join(path), value)):
        one = register_object(".".join(path), value)
        new[one.text] = one
        return one.text
    if isinstance(value, Mapping):
        return _texts(value, path, new)
    if isinstance(value, list | tuple):
        return [_text_for(item, (*path, str(index)), new) for index, item in enumerate(value)]
    return value


def _texts(given: Mapping[Any, Any], path: tuple[str, ...], new: dict[str, Any]) -> dict[Any, Any]:
    """Values by their keys as a file would have them."""
    return {
        key: _setting(value, (*path, key)) if key == _SETTINGS else _text_for(value, (*path, str(key)), new)
        for key, value in given.items()
    }


def _setting(value: Any, path: tuple[str, ...]) -> Any:
    """What a loop of the user's own is given, as a file would have it: a number of NumPy is the number, a tuple is a list.

    Raises:
        ConfigError: No file could say it.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return value.item()
    if isinstance(value, Mapping):
        return {key: _setting(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_setting(item, (*path, str(index))) for index, item in enumerate(value)]
    raise ConfigError(
        f"`{'.'.join(path)}` is a {type(value).__name__}; settings are numbers, texts, switches, lists and mappings",
        hint="let the loop hold it: a function that train calls, or a variable around it",
    )


def _is_data(key: str, value: Any) -> bool:
    """Whether a value is examples rather than the keys that say where they are.

    Raises:
        ConfigError: It is a mapping of some parts of examples, and not of all.
    """
    if not isinstance(value, Mapping):
        return not isinstance(value, list | tuple) or not _is_plain(value)
    keys = {*map(str, value)}
    needed = _PARTS - {"owners"}
    if keys & needed and not (needed <= keys <= _PARTS):
        missing, unknown = sorted(needed - keys), sorted(keys - _PARTS)
        what = [f"no {', '.join(missing)}"] * bool(missing) + [f"unknown {shown_names(unknown)}"] * bool(
            unknown
        )
        raise ConfigError(
            f"`{key}`: examples are a mapping with train, validation and test, and this one has {' and '.join(what)}",
            hint=f"rename {unknown[0]!r}; train, validation, test and perhaps owners are read"
            if unknown
            else f"add {' and '.join(missing)}; of files, a source makes all three: data='parquet:FILE#COLUMNS:TARGET'",
        )
    return bool(keys & needed)


def _is_plain(value: Any) -> bool:
    """Whether a sequence holds nothing but what a file could say."""
    return all(item is None or isinstance(item, str | int | float) for item in value)
