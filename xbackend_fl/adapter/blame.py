"""Turns whatever goes wrong while a model is read or proven into one reason, with a place in the user's own code."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from xbackend_fl.errors import UnsupportedError, XbflError, shortened

Frames: TypeAlias = Iterable[tuple[str, int]]
"""File and line of each call, the innermost last."""

_ROOT = Path(__file__).resolve().parents[2]
_TOOLKITS = tuple(
    f"{folder}{os.sep}"
    for folder in (_ROOT / "xbackend_fl", *_ROOT.glob("xbfl_*"), *_ROOT.glob("adapters/xbfl_*"))
)
_LIBRARIES = (
    *_TOOLKITS,
    *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(f"{folder}{os.sep}" for folder in site.getsitepackages()),
)


@contextmanager
def explained(what: str, model: object = None, frames: Callable[[], Frames] = tuple) -> Iterator[None]:
    """Refuse, with a reason and a place, where the block ends in an exception that nobody foresaw.

    A refusal goes on as it is; if ``frames`` know a place, it is added.

    Args:
        what: What is done, for the message.
        model: The user's model; its class is the place if the exception shows none.
        frames: The calls that led to what the block reads, if the framework remembers them.

    Raises:
        UnsupportedError: The block raised something else than an error of the toolkit.
    """
    try:
        yield
    except XbflError as error:
        place = users_place(frames()) or (place_of(error.__cause__) if error.__cause__ else "")
        place = place or _class_of(model)
        if place and "(at " not in error.message:
            error.message = f"{error.message} (at {place})"
        raise
    except (Exception, SystemExit) as error:
        place = users_place(frames()) or place_of(error, model)
        where = f" (at {place})" if place else ""
        raise UnsupportedError(
            f"{what} failed{where}: {type(error).__name__}: {shortened(error)}",
            hint="the toolkit does not know this form; write it in another way there",
        ) from error


def untraceable(
    what: str, model: object, error: BaseException, tried: Callable[[int], object]
) -> UnsupportedError:
    """The refusal of a model that raised while its graph was made, with what it does with one example alone.

    Args:
        what: Who makes the graph.
        model: The user's model; it was called with two examples.
        error: What was raised.
        tried: Calls the model with so many examples.
    """
    place = place_of(error, model)
    head = (
        f"{what} cannot trace {type(model).__name__}{f' (at {place})' if place else ''}: {shortened(error)}"
    )
    hint = "check that the input shape fits the model; data-dependent control flow has no graph"
    if _runs(tried, 1) and not _runs(tried, 2):
        head += "; it takes one example and not two"
        hint = (
            "take the number of examples from the data wherever it is written out or assumed: "
            "x.reshape(x.shape[0], -1), token.expand(x.shape[0], -1, -1), or tf.shape(x)[0]"
        )
    return UnsupportedError(head, hint=hint)


def _runs(tried: Callable[[int], object], size: int) -> bool:
    try:
        tried(size)
    except (Exception, SystemExit):  # noqa: BLE001  a model may raise anything
        return False
    return True


def place_of(error: BaseException, model: object = None) -> str:
    """``FILE:LINE`` of the user's code that an exception went through last, or of the model's class; empty if neither is theirs."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return users_place(frames) or _class_of(model)


def users_place(frames: Frames) -> str:
    """The innermost of some calls that lies in nobody's library and not in the toolkit; empty if there is none."""
    every = list(frames)
    # Who called the toolkit is not what it was reading.
    start = next((index for index, (file, _) in enumerate(every) if file.startswith(_TOOLKITS)), 0)
    own = [(file, line) for file, line in every[start:] if not is_library(file)]
    return f"{_short(own[-1][0])}:{own[-1][1]}" if own else ""


def is_library(file: str) -> bool:
    """Whether a file is no code of the user's own."""
    return file.startswith(("<", *_LIBRARIES)) or "site-packages" in file or "dist-packages" in file


def _class_of(model: object) -> str:
    for name in ("forward", "call", "__call__", "__init__"):
        code = getattr(vars(type(model)).get(name), "__code__", None)
        if code is not None and not is_library(code.co_filename):
            return f"{_short(code.co_filename)}:{code.co_firstlineno}"
    return ""


def _short(file: str) -> str:
    """A file as somebody who stands in the current folder would name it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
