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
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
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
        unsent: Why no other process can be sent it; ``None`` if one can.
    """

    text: str
    value: Any = field(repr=False)
    unsent: ConfigError | None = field(default=None, repr=False)

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
        if self.unsent is not None:
            raise self.unsent
        return _received, (self.text, cloudpickle.dumps(self.value))


_REGISTERED: WeakValueDictionary[str, RegisteredObject] = WeakValueDictionary()


def _received(text: str, pickled: bytes) -> RegisteredObject:
    return RegisteredObject(text, pickle.loads(pickled))  # noqa: S301  of the process that started this one


def register_object(key: str, value: Any) -> RegisteredObject:
    """Give an object a text.

    Args:
        key: What it is for: ``models.torch``.
        value: Anything. What cloudpickle does not take (an open file, a lock, a ``tf.data.Dataset``) is for this process alone, and
            whoever sends it raises :class:`ConfigError`.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        # Arrays are digested where they lie.
        pickled = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # noqa: BLE001  whatever a library raises
        # Two such objects are never the same.
        text = f"{_SOURCE}{key}#{secrets.token_hex(_DIGITS // 2)}"
        return RegisteredObject(text, value, _unsent(key, value, error))
    digest = hashlib.sha256(pickled)
    for buffer in buffers:
        digest.update(buffer.raw())
    return RegisteredObject(f"{_SOURCE}{key}#{digest.hexdigest()[:_DIGITS]}", value)


def _unsent(key: str, value: Any, error: Exception) -> ConfigError:
    """Why an object cannot be sent, and what to give instead."""
    what, name = value, key
    while isinstance(what, Mapping | tuple | list):
        parts = what.items() if isinstance(what, Mapping) else enumerate(what)
        part = next((place for place, one in parts if not _is_sent(one)), None)
        if part is None:
            break
        name, what = f"{name}: {part}" if isinstance(what, Mapping) else name, what[part]
    hint = f"give a function that makes it in each process: def load(): return …, and {key.rpartition('.')[2]}=load"
    if inspect.isroutine(what):
        hint = "let the function make what it needs, in each process, and not take it from around it"
    elif isinstance(what, Iterator):
        hint = "give what begins anew in every round: an object of a class with def __iter__(self): yield …"
    return ConfigError(
        f"{name}: workers are processes of their own, and a {type(what).__name__} cannot be sent to them ({raised('pickling it', error)})",
        hint=hint
        if isinstance(what, Iterator)
        else f"{hint}; or in_process=True, which has no other processes",
    )


def _is_sent(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, protocol=5, buffer_callback=lambda _: None)
    except Exception:  # noqa: BLE001  as above
        return False
    return True


def is_registered(text: str) -> bool:
    """Whether a text stands for an object."""
    return text.startswith(_SOURCE)


def find_object(text: str) -> RegisteredObject | None:
    """The object behind a text, if it is one that this process has."""
    return _REGISTERED.get(text) if is_registered(text) else None


def key_of(text: str) -> str:
    """The text of an object without its digest, which may differ in another process."""
    return text.partition("#")[0] if is_registered(text) else text


def object_of(text: str) -> Any:
    """The object behind a text.

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
    return found.value


def function_of(text: str) -> Callable[..., Any]:
    """The object behind a text, if that is a function; else a function that returns it: data as they are, a model as a copy of its own.

    Raises:
        ConfigError: This process was never given it.
    """
    value = object_of(text)
    if is_function(value):
        return value  # type: ignore[no-any-return]
    # A model that trains must not be the one that the next participant gets.
    return functools.partial(
        _copied if callable(value) else _itself, value, key_of(text).removeprefix(_SOURCE)
    )


def _copied(value: Any, key: str) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise ConfigError(
            f"{key}: every use gets a copy of its own, and this {type(value).__name__} has none ({raised('copying it', error)})",
            hint="give what makes it, a class or a function without arguments: def build(): return …",
        ) from error


def _itself(value: Any, _: str) -> Any:
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
