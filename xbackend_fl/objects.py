"""Python objects where a course has texts: functions and arrays of a script or a notebook that no file holds.

A course is plain text, which other processes read. An object goes by a text, too, which holds what it is for and a digest of it; whoever has the
course, also in a worker that was sent it, finds the object by that text.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final
from weakref import WeakValueDictionary

import cloudpickle

from xbackend_fl.errors import ConfigError, raised

_SOURCE = "object:"
_DIGITS = 12


@final
@dataclass(frozen=True, eq=False)
class RegisteredObject:
    """An object and its text. Whoever is sent it has the object, by value where no module has it.

    Attributes:
        text: ``object:KEY#DIGEST``.
        value: The object.
    """

    text: str
    value: Any = field(repr=False)

    def __post_init__(self) -> None:
        _REGISTERED[self.text] = self

    @property
    def key(self) -> str:
        """What it is for: ``models.torch``."""
        return key_of(self.text).removeprefix(_SOURCE)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegisteredObject) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, bytes]]:
        return _received, (self.text, cloudpickle.dumps(self.value))


_REGISTERED: WeakValueDictionary[str, RegisteredObject] = WeakValueDictionary()


def _received(text: str, pickled: bytes) -> RegisteredObject:
    return RegisteredObject(text, pickle.loads(pickled))  # noqa: S301  of the process that started this one


def register_object(key: str, value: Any) -> RegisteredObject:
    """Give an object a text.

    Args:
        key: What it is for: ``models.torch``.
        value: Anything that cloudpickle takes.

    Raises:
        ConfigError: Cloudpickle does not take it: an open file, a lock, a generator.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        # Arrays are digested where they lie.
        pickled = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception as error:
        raise ConfigError(
            f"{key}: {raised(f'pickling the {type(value).__name__}', error, '')}",
            hint="workers are processes of their own: give a function that makes it there",
        ) from error
    digest = hashlib.sha256(pickled)
    for buffer in buffers:
        digest.update(buffer.raw())
    return RegisteredObject(f"{_SOURCE}{key}#{digest.hexdigest()[:_DIGITS]}", value)


def is_registered(text: str) -> bool:
    """Whether a text stands for an object."""
    return text.startswith(_SOURCE)


def find_object(text: str) -> RegisteredObject | None:
    """The object behind a text, if it is one that this process has."""
    return _REGISTERED.get(text) if is_registered(text) else None


def key_of(text: str) -> str:
    """The text of an object without its digest, which may differ in another process."""
    return text.partition("#")[0] if is_registered(text) else text


def function_of(text: str) -> Callable[..., Any]:
    """The object behind a text, if that is a function; else a function that returns it: data as they are, a model as a copy of its own.

    Raises:
        ConfigError: This process was never given it.
    """
    found = find_object(text)
    if found is None:
        key = key_of(text).removeprefix(_SOURCE)
        raise ConfigError(
            f"{key} was an object of Python where the course was made, and no file holds it",
            hint="from Python: xbackend_fl.resume_run(RUN, course=COURSE); or write it in a file of its own, which courses name by FILE.py:NAME",
        )
    value = found.value
    if is_function(value):
        return value  # type: ignore[no-any-return]
    # A model that trains must not be the one that the next participant gets.
    return functools.partial(copy.deepcopy if callable(value) else _itself, value)


def _itself(value: Any) -> Any:
    return value


def is_function(value: Any) -> bool:
    """Whether an object is called for what it returns; a model that is called for its outputs is none."""
    return inspect.isroutine(value) or isinstance(value, type | functools.partial)


def file_of(value: Any) -> str | None:
    """``FILE.py:NAME`` or ``MODULE:NAME`` of a function or class that an importable module has; ``None`` if none has it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    found = sys.modules.get(module or "")
    if (
        module == "__main__"
        or found is None
        or not name.isidentifier()
        or getattr(found, name, None) is not value
    ):
        return None
    file = getattr(found, "__file__", None)
    if file and file.endswith(".py") and not getattr(found, "__package__", ""):
        return f"{Path(file).resolve()}:{name}"
    return f"{module}:{name}"
