"""Finds the Python callable behind ``FILE_OR_MODULE:CALLABLE``, as courses and the command line name it."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

from xbackend_fl.errors import ConfigError, raised, turned
from xbackend_fl.objects import function_of, is_registered, object_of
from xbackend_fl.places import named, place_of

_USER = "xbfl_user_"
_LONGEST = 200


def load_callable(text: str, base: Path) -> Callable[..., Any]:
    """Import a callable.

    Args:
        text: ``path/to/file.py:name`` (relative to ``base``) or ``package.module:name``; or the text of an object of Python, which may be of a class
            with ``__call__``.
        base: Folder that relative files start from.

    Raises:
        ConfigError: The file, the module or the name does not exist.
    """
    if is_registered(text):
        function: Callable[..., Any] = object_of(text)
        return function
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(f"{text!r} is not FILE_OR_MODULE:CALLABLE", hint="for example model.py:build")
    module = _from_file(base / source) if source.endswith(".py") else _from_module(source)
    found = getattr(module, name, None)
    if found is not None and not callable(found):
        raise ConfigError(f"{name!r} of {source} cannot be called: it is of type {type(found).__name__}")
    if found is None:
        close = difflib.get_close_matches(name, dir(module), n=1)
        raise ConfigError(
            f"{source} has no callable {name!r}", hint=f"did you mean {close[0]!r}?" if close else None
        )
    return found  # type: ignore[no-any-return]


def call(text: str, base: Path, *, anew: bool = False) -> Any:
    """Import a callable and call it without arguments.

    Args:
        text: ``path/to/file.py:name`` (relative to ``base``) or ``package.module:name``.
        base: Folder that relative files start from.
        anew: Execute the file or module again, as another process would, instead of taking what is there.

    Raises:
        ConfigError: It does not exist, or it raised; the message says what and where.
    """
    # A model of Python is callable, too, and is not called for its outputs.
    function = function_of(text) if is_registered(text) else load_callable(text, base)
    if anew and not is_registered(text):
        source, _, name = text.rpartition(":")
        with explained(source):
            module = (
                _execute(base / source) if source.endswith(".py") else importlib.reload(_from_module(source))
            )
        function = getattr(module, name)
    with explained(text, function):
        result = function()
    if inspect.iscoroutine(result):
        result.close()
        raise ConfigError(f"{text} is an async function", hint="write a plain one: def, without async")
    return result


def resolve(text: str, base: Path) -> str:
    """``text`` with a relative file made absolute, so that it means the same from any folder.

    Raises:
        ConfigError: The file does not exist.
    """
    source, _, name = text.rpartition(":")
    if not source.endswith(".py"):
        return text
    try:
        path = (base / source).resolve()
        found = path.is_file()
    except (OSError, ValueError) as error:
        # Too long, or with a character that no path has.
        raise ConfigError(f"no such file: {ascii(source)[:_LONGEST]} ({error.args[-1]})") from error
    if not found:
        raise ConfigError(f"no such file: {path}")
    return f"{path}:{name}"


def _from_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    name = _module_name(path)
    return sys.modules[name] if name in sys.modules else _execute(path)


def _module_name(path: Path) -> str:
    # Two files of one name in different folders are different modules.
    return f"{_USER}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"


def _execute(path: Path) -> ModuleType:
    """Run a file as a module; it takes the place of an earlier one only if it could be run."""
    path = path.resolve()
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module, before = importlib.util.module_from_spec(spec), sys.modules.get(name)
    sys.modules[name] = module
    named(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        with explained(str(path)):
            spec.loader.exec_module(module)
    except ConfigError:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def explained(what: str, function: Callable[..., Any] | None = None) -> AbstractContextManager[None]:
    """Whatever a user's code raises becomes one line with its place; the cause stays attached.

    Args:
        what: Whose code it is.
        function: Says where it is, if nothing of it was executed.

    Raises:
        ConfigError: The block raised something that is no error of the toolkit (:func:`~xbackend_fl.errors.turned`).
    """
    return turned(lambda error: ConfigError(raised(what, error, place_of(error, function))))


def _from_module(name: str) -> ModuleType:
    try:
        with explained(name):
            return importlib.import_module(name)
    except ConfigError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError) or cause.name not in _parents(name):
            raise
        raise ConfigError(
            f"no module {name!r}: {cause}", hint="a file ends in .py; a module must be importable from here"
        ) from cause


def _parents(name: str) -> list[str]:
    """The module and the packages it lies in."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
