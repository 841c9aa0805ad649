"""Turns whatever a user's model raises during a course into one line that says when and where."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from xbackend_fl.aggregation import is_finite
from xbackend_fl.errors import DiskFull, Diverged, RunFailed, UpdateRefused, XbflError, raised, turned
from xbackend_fl.places import place_of
from xbackend_fl.writing import in_the_way

T = TypeVar("T")
W = TypeVar("W", bound=Mapping[str, Any])

_NAMED = 3
"""Participants that a message names."""


def failing(when: str) -> AbstractContextManager[None]:
    """End a course in one line, whatever the block raises; the cause stays attached.

    Args:
        when: What was done, for whom and in which round: ``while training participant 'a' (torch) in round 1``.

    Raises:
        RunFailed: The block raised something that is no error of the toolkit (:func:`~xbackend_fl.errors.turned`).
    """

    def failed(error: BaseException) -> RunFailed:
        place = place_of(error)
        return RunFailed(raised(f"{when} the model", error, f"at {place}" if place else ""))

    return turned(failed)


def training(number: int, names: Sequence[str], backend: str) -> str:
    """The words for the training of some participants in a round."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    who = ", ".join(map(repr, names[:_NAMED])) + more
    return f"while training participant{'s' if len(names) > 1 else ''} {who} ({backend}) in round {number}"


def read_for(when: str, steps: Iterable[T], *, goes_on: bool = False) -> Iterator[T]:
    """The steps; if they cannot be read, it is said whose they are.

    Args:
        when: What was done, for whom and in which round.
        steps: Read from data.
        goes_on: Whether the course goes on without the update of whoever cannot read.

    Raises:
        RunFailed: Data are broken, or are not what they were; :class:`UpdateRefused` if the course goes on.
    """
    try:
        yield from steps
    except DiskFull:
        raise
    except XbflError as error:
        kind = UpdateRefused if goes_on else RunFailed
        raise kind(f"{when}: {error.message}", hint=error.hint) from error


@contextmanager
def undone(load: Callable[[], object]) -> Iterator[None]:
    """Load weights again if the block fails: a model that is left with NaN can be proven no more."""
    try:
        yield
    except BaseException:
        load()
        raise


def possible(weights: W, variances: Collection[str] = ()) -> W:
    """The same weights.

    Args:
        weights: Arrays by name.
        variances: Names of those of which no value is negative.

    Raises:
        Diverged: One is NaN or infinite.
        UpdateRefused: A variance is negative.
    """
    for name, array in weights.items():
        if array.dtype.kind == "f" and array.size and not is_finite(array):
            raise Diverged(f"parameter {name!r} holds NaN or infinity after training")
        if name in variances and array.size and (least := float(array.min())) < 0:
            raise UpdateRefused(
                f"parameter {name!r} holds {least:.3g} after training, and no variance is negative"
            )
    return weights


def traceback_kept(folder: Path | None, name: str, error: XbflError) -> str:
    """Write the traceback of what a user's code has raised, for whoever mends it.

    Args:
        folder: Where; nothing is written without one.
        name: Of the file, without a suffix.
        error: What became of it.

    Returns:
        What to say of it behind a message; empty if nobody's code raised.
    """
    cause = error.__cause__
    if folder is None or cause is None or isinstance(cause, XbflError):
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    path.write_text("".join(traceback.format_exception(cause)), encoding="utf-8", errors="replace")
    return f" (traceback: {folder.name}/{path.name})"


@contextmanager
def saving(path: Path, backend: str) -> Iterator[None]:
    """Say in one line why a trained model could not be written, whatever its framework raises then.

    Args:
        path: Where it is written.
        backend: Whose format.

    Raises:
        DiskFull: There is no space.
        RunFailed: Something else is in the way.
    """
    try:
        yield
    except (XbflError, KeyboardInterrupt):
        raise
    except Exception as error:
        cause = error if isinstance(error, OSError) and error.errno else in_the_way(path)
        what = f"the trained model cannot be written in the format of {backend}"
        if cause is None:
            raise RunFailed(raised(f"{what}: saving to {path}", error)) from error
        place, reason = cause.filename or path, cause.strerror
        if cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "make space; --resume writes it again"
            raise DiskFull(f"{what}: {reason} ({place})", hint=hint) from error
        raise RunFailed(
            f"{what}: {reason} ({place})", hint="let this user write there; --resume writes it again"
        ) from error
