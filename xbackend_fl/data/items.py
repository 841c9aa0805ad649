"""Data sets with a length and examples by number, as PyTorch and Hugging Face have them: read when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any, final

import numpy as np

from xbackend_fl.data.column import Array, Column, Rows
from xbackend_fl.data.dataset import Dataset
from xbackend_fl.data.elements import ONE_FORM, Element, Form, article, element_of, forms_text, unread
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import parts_of

_TRIED = 16
_SHOWN = 5
_SKIP = "mend it, or leave it out of the data set; or data.on_error: skip, which counts what it leaves out"
_LATE = (
    "it could be read when the data set was opened, and data.on_error: skip leaves out what cannot be read then; mend it: "
    "a run goes on with --resume"
)


def is_items(value: object) -> bool:
    """Whether ``value`` has examples by number, and is no array, text or mapping."""
    return (
        hasattr(value, "__len__")
        and hasattr(value, "__getitem__")
        and not isinstance(value, str | bytes | Mapping | tuple | list)
        and not hasattr(value, "__array__")
    )


def items_of(where: str, source: Any, how: Reading) -> Dataset:
    """All examples that can be read.

    Args:
        where: Whose they are, for messages.
        source: Gives ``(inputs, target)`` for a number.
        how: The inputs that the model takes, and what becomes of an example that cannot be read.

    Raises:
        ConfigError: An example cannot be read, or is of another shape or dtype than those before.
    """
    items = _Items(where, source, how)
    columns: tuple[Column, ...] = tuple(ItemColumn(items, number) for number in range(len(items.forms) - 1))
    return Dataset(columns, items.targets, notes=tuple(items.notes))


@final
class _Items:
    """Examples of a data set. All are read once, to know their targets and that they have one form."""

    def __init__(self, where: str, source: Any, how: Reading) -> None:
        self._where, self._source, self._how = where, source, how
        self.forms: tuple[Form, ...] = ()
        self._done = Counter[str]()
        self._last: tuple[bytes, tuple[Array, ...]] = (b"", ())
        self._count = count = len(source)
        self._finite = True
        skipped, rows, targets = [], [], []
        for index in range(count):
            try:
                found = self._element(index)
            except ConfigError as error:
                if how.on_error == "stop":
                    raise
                skipped.append((index, error))
                continue
            rows.append(index)
            targets.append(found.targets)
            self._finite = self._finite and all(map(_is_finite, found.inputs))
        if not rows:
            raise skipped[0][1] if skipped else ConfigError(f"{where}: no examples")
        self._rows, self.targets = np.array(rows, np.intp), np.stack(targets)
        self.notes = [f"{where}: {article(source)}, read example by example"]
        self.notes += [f"{where}: {number} images: {what}" for what, number in self._done.items()]
        if skipped:
            listed = ", ".join(str(index) for index, _ in skipped[:_SHOWN]) + (
                ", …" if len(skipped) > _SHOWN else ""
            )
            self.notes.append(
                f"{where}: {len(skipped)} of {count} examples cannot be read and are skipped: {listed} ({skipped[0][1].message})"
            )
        self.is_random = self._differs()
        if self.is_random:
            self.notes.append(
                f"{where}: examples differ each time they are read: no other backend sees the same, nor a run that goes on; data.transform draws the course's random numbers"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: Rows) -> tuple[Array, ...]:
        """The inputs of some examples.

        Raises:
            ConfigError: One cannot be read any more, or is not what it was.
        """
        asked = np.asarray(rows).tobytes()
        if asked != self._last[0]:
            found = tuple(np.empty((len(rows), *shape), dtype) for shape, dtype in self.forms[:-1])
            for place, row in enumerate(rows.tolist()):
                index = int(self._rows[row])
                one = self._element(index, _LATE)
                if not _same(one.targets, self.targets[row : row + 1]):
                    raise ConfigError(
                        f"{self._where}: example {index} had the target {self.targets[row]} and now has {one.targets}",
                        hint="an example must keep its target; data.transform may change both of a batch",
                    )
                if self._finite and not all(map(_is_finite, one.inputs)):
                    raise ConfigError(
                        f"{self._where}: example {index} has NaN or infinity in its inputs, and none had when the data set was opened",
                        hint="let the data set give numbers each time it is asked",
                    )
                for array, value in zip(found, one.inputs, strict=True):
                    array[place] = value
            self._last = (asked, found)
        return self._last[1]

    def _element(self, index: int, late: str | None = None) -> Element:
        """An example; ``late`` is the help if it cannot be read any more."""
        where = f"{self._where}: example {index}"
        try:
            item = self._source[index]
        except IndexError as error:
            raise ConfigError(
                f"{where} is not there: the data set said that it has {self._count}, and ends early",
                hint="let __len__ give the number of examples that __getitem__ has",
            ) from error
        except Exception as error:  # whatever a user's code raises
            raise unread(where, error, late or (_SKIP if self._how.on_error == "stop" else None)) from error
        found = element_of(where, item, self._how, self._done)
        forms = found.forms(batched=False)
        self.forms = self.forms or forms
        if forms != self.forms:
            raise ConfigError(
                f"{where} has {forms_text(forms)}, and those before have {forms_text(self.forms)}",
                hint=ONE_FORM,
            )
        return found

    def _differs(self) -> bool:
        """Whether an example that is read again has other inputs."""
        tried = np.unique(np.linspace(0, len(self) - 1, _TRIED).astype(np.intp))
        first = self.read(tried)
        self._last = (b"", ())
        again = self.read(tried)
        self._last = (b"", ())
        return any(one.tobytes() != two.tobytes() for one, two in zip(first, again, strict=True))


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _same(one: Array, other: Array) -> bool:
    """Whether a target is the only one of an array."""
    pairs = zip(parts_of(one[None]).values(), parts_of(other).values(), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


@final
class ItemColumn:
    """One input of a data set that is read example by example.

    Attributes:
        is_random: Whether an example has other values each time.
    """

    def __init__(self, items: _Items, number: int) -> None:
        shape, self.dtype = items.forms[number]
        self._items, self._number, self.is_random = items, number, items.is_random
        self.shape: tuple[int, ...] = (len(items), *shape)
        self.nbytes = prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Rows, /) -> Array:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)), dtype=np.intp)
        return self._items.read(rows)[self._number]
