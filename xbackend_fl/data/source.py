"""Where examples come from: what a kind of source must do, and what it is told."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from xbackend_fl.data.dataset import Dataset, Splits
from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import resolve
from xbackend_fl.registry import files_of

_PACKAGE = "xbackend_fl.data.sources"
_CODE = "code"

Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Reading:
    """How a course reads data.

    Attributes:
        base: Folder that relative files start from.
        inputs: One example of every input of the model, in ONNX layout and batch first; its values mean nothing. Empty if nobody knows.
        names: What the course calls its inputs, in order.
        seed: The course's seed.
        splits: Shares of training, validation and test.
        split_by: The column that says which of them a row belongs to; replaces ``splits``.
        owners: The column that says whose a row is.
        classes: The classes of targets that are text, in the order of their numbers; sorted if left out.
        shared: Whether everybody has these data. What one participant has alone does not tell which classes there are.
        deduplicate: LEAF: drop examples that a user has twice.
        on_error: What becomes of an example that cannot be read.
        cache: Folder for what was read into arrays; beside the data if left out.
        heads: Names of several outputs with a loss, and targets, each, in order; empty where a course has one loss.
    """

    base: Path
    inputs: tuple[np.ndarray[Any, Any], ...] = ()
    names: Sequence[str] = ()
    seed: int = 0
    splits: Shares = (0.6, 0.2, 0.2)
    split_by: str | None = None
    owners: str | None = None
    classes: tuple[str, ...] | None = None
    shared: bool = True
    deduplicate: bool = False
    on_error: Literal["stop", "skip"] = "stop"
    cache: Path | None = None
    heads: Sequence[str] = ()

    @property
    def num_inputs(self) -> int | None:
        """How many inputs the model takes, if that is known."""
        return len(self.inputs) or None


class Source(Protocol):
    """A kind of source: the object that a file of :mod:`xbackend_fl.data.sources` calls ``SOURCE``."""

    is_code: bool
    """Whether reading runs code of the user's, which may return something else the next time."""
    keys: frozenset[str]
    """Keys of a course's section ``data`` that it reads, beside its place."""

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        """Training, validation and test examples.

        Args:
            place: What follows the kind: a file, a folder, perhaps columns after ``#``.
            how: How the course reads data.
            anew: Execute code again, as another process would.

        Raises:
            ConfigError: They are missing, broken or uneven; the message names the place and what is there.
        """
        ...

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        """All examples of one participant, to train on; arguments and errors as of :meth:`splits`."""
        ...


READING_KEYS = ("splits", "split_by", "owners", "classes", "deduplicate", "on_error", "cache")
"""Keys of a course's section ``data`` that only some sources read."""


@functools.cache
def kinds() -> tuple[str, ...]:
    """What may stand before the colon of a source, sorted."""
    return tuple(name for name in files_of(importlib.import_module(_PACKAGE)) if name != _CODE)


def source_of(text: str) -> tuple[Source, str]:
    """The kind of a source, and the place.

    Args:
        text: ``KIND:PLACE``, or ``FILE_OR_MODULE:CALLABLE``.

    Raises:
        ConfigError: A library that this kind reads with is not installed.
    """
    kind, _, place = text.partition(":")
    if kind not in kinds():
        kind, place = _CODE, text
    try:
        found: Source = importlib.import_module(f"{_PACKAGE}.{kind}").SOURCE
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{text}: {kind} data are read with {error.name}, which is not installed",
            hint='pip install "xbackend-fl[data]"',
        ) from error
    return found, place


def absolute(text: str, base: Path) -> str:
    """A source that means the same from any folder; a path alone is an ``.npz`` file.

    Raises:
        ConfigError: The file of a callable does not exist.
    """
    kind, colon, place = text.partition(":")
    if kind in kinds():
        file, mark, columns = place.partition("#")
        return f"{kind}:{(base / file).resolve()}{mark}{columns}"
    if not colon or text.endswith(".npz"):
        return f"npz:{(base / text).resolve()}"
    return resolve(text, base)
