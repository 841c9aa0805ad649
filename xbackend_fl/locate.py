"""Finds the Python callable behind ``FILE_OR_MODULE:CALLABLE``, as courses and the command line name it."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from xbackend_fl.errors import ConfigError, XbflError

_LONGEST = 200


def load_callable(text: str, base: Path) -> Callable[..., Any]:
    """Import a callable.

    Args:
        text: ``path/to/file.py:name`` (relative to ``base``) or ``package.module:name``.
        base: Folder that relative files start from.

    Raises:
        ConfigError: The file, the module or the name does not exist.
    """
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(f"{text!r} is not FILE_OR_MODULE:CALLABLE", hint="for example model.py:build")
    module = _from_file(base / source) if source.endswith(".py") else _from_module(source)
    found = getattr(module, name, None)
    if not callable(found):
        close = difflib.get_close_matches(name, dir(module), n=1)
        raise ConfigError(
            f"{source} has no callable {name!r}", hint=f"did you mean {close[0]!r}?" if close else None
        )
    function: Callable[..., Any] = found
    return function


def call(text: str, base: Path) -> Any:
    """Import a callable and call it without arguments.

    Raises:
        ConfigError: It does not exist, or it raised; the message says what and where.
    """
    function = load_callable(text, base)
    with _explained(text):
        return function()


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
    # Two files of one name in different folders are different modules.
    name = f"xbfl_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        with _explained(str(path)):
            spec.loader.exec_module(module)
    except ConfigError:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever a user's code raises becomes one line with its place; the cause stays attached."""
    try:
        yield
    except XbflError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        own = [
            frame
            for frame in frames
            if "site-packages" not in frame.filename and "<frozen" not in frame.filename
        ]
        place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
        text = str(error).strip() or "no message"
        raise ConfigError(f"{what} raised {type(error).__name__}{place}: {text}") from error


def _from_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no module {name!r}: {error}", hint="a file ends in .py; a module must be importable from here"
        ) from error
