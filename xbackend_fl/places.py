"""Says which line of the user's own code something comes from: an exception, or the calls that made a node of a graph."""

from __future__ import annotations

import functools
import os
import site
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Frames: TypeAlias = Iterable[tuple[str, int]]
"""File and line of each call, the innermost last."""

PLACE = "place"
"""Key of a node's metadata in an ONNX file by a framework's exporter: ``FILE:LINE`` of the user's code, without folders."""

_ROOT = Path(__file__).resolve().parents[1]
_TOOLKIT = tuple(
    f"{folder}{os.sep}"
    for folder in (_ROOT / "xbackend_fl", *_ROOT.glob("xbfl_*"), *_ROOT.glob("adapters/xbfl_*"))
)
_LIBRARIES = tuple(
    {
        f"{folder}{os.sep}"
        for folder in (
            *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
            *site.getsitepackages(),
            site.getusersitepackages(),
        )
    }
)
_FOLDERS = frozenset({"site-packages", "dist-packages"})
_COMPILED = (".pyx", ".pxd", ".pxi")
_NAMED: set[str] = set()


def named(file: Path) -> None:
    """Note that a user named a file: it is theirs wherever it lies."""
    _NAMED.add(str(file))


def is_library(file: str) -> bool:
    """Whether a file is no code of the user's own: a library, the standard one, the toolkit, or no file at all."""
    return file not in _NAMED and _lies_in_library(file)


# Asked of every module that is loaded, for every model that is described.
@functools.cache
def _lies_in_library(file: str) -> bool:
    if file.startswith(("<", *_TOOLKIT, *_LIBRARIES)) or file.endswith(_COMPILED):
        return True
    return not _FOLDERS.isdisjoint(Path(file).parts)


def users_place(frames: Frames) -> str:
    """``FILE:LINE`` of the innermost of some calls that lies in code of the user's own; empty if there is none."""
    every = list(frames)
    # Who called the toolkit is not what it was reading.
    start = next((index for index, (file, _) in enumerate(every) if file.startswith(_TOOLKIT)), 0)
    own = [(file, line) for file, line in every[start:] if not is_library(file)]
    return f"{_short(own[-1][0])}:{own[-1][1]}" if own else ""


def place_of(error: BaseException, owner: object = None) -> str:
    """``FILE:LINE`` of the user's code that an exception went through last; empty if it went through none.

    Args:
        error: The exception. One that could not be parsed lies where Python stopped to read.
        owner: A function, or an object with a class of its own: where it is defined is the place if the exception shows none.
    """
    if isinstance(error, SyntaxError) and error.filename and not is_library(error.filename):
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return users_place(frames) or defined_at(owner)


def defined_at(owner: object) -> str:
    """``FILE:LINE`` of a function of the user's own, or of the class of an object; empty if it is nobody's."""
    methods = (vars(type(owner)).get(name) for name in ("forward", "call", "__call__", "__init__"))
    for function in (owner, *methods):
        code = getattr(function, "__code__", None)
        if code is not None and not is_library(code.co_filename):
            return f"{_short(code.co_filename)}:{code.co_firstlineno}"
    return ""


def shown_place(file: str, line: int) -> str:
    """``FILE:LINE`` of a known place; a file of a library is named from its package on."""
    parts = Path(file).parts
    inside = next((place + 1 for place, part in enumerate(parts) if part in _FOLDERS), 0)
    return f"{Path(*parts[inside:]) if inside else _short(file)}:{line}"


def _short(file: str) -> str:
    """A file as somebody who stands in the current folder would name it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
