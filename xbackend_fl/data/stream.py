"""Data sets that are gone through from the beginning, as loaders of the frameworks are: they bring batches and an order of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, final

import numpy as np

from xbackend_fl.data.column import Array, Rows
from xbackend_fl.data.dataset import Dataset, Examples
from xbackend_fl.data.elements import ONE_FORM, Element, Form, article, element_of, forms_text, unread
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError

_KEPT = 256
_SHOWN = 4
_NOT_SKIPPED = "nothing can be skipped in what is gone through: let the data set itself leave it out, or give it a length and __getitem__"


def is_stream(value: object) -> bool:
    """Whether ``value`` can be gone through, and has an order."""
    return (
        hasattr(value, "__iter__")
        and not isinstance(value, str | bytes | Mapping | tuple | list)
        and not hasattr(value, "__array__")
    )


def stream_of(where: str, source: Any, how: Reading) -> Dataset:
    """All examples, in the batches in which they come.

    Args:
        where: Whose they are, for messages.
        source: Gives batches, or examples one by one, from the beginning whenever it is asked.
        how: The inputs that the model takes.

    Raises:
        ConfigError: It cannot be gone through twice, has no end or no order, or its batches differ in shape or dtype.
    """
    stream = _Stream(where, source, how)
    return Dataset(stream.columns, stream.targets, notes=tuple(stream.notes), stream=stream)


def gives_batches(where: str, source: Any, how: Reading) -> Iterable[Any] | None:
    """A data set whose items are batches, as Keras has them, as what is gone through; ``None`` if they are examples."""
    if not len(source):
        return None
    try:
        found = element_of(f"{where}: example 0", source[0], how, Counter())
    except Exception:  # noqa: BLE001  said where it is read
        return None
    shapes = [array.shape for array in found.inputs]
    if [shape[1:] for shape in shapes] != [e.shape[1:] for e in how.inputs] or () in shapes:
        return None
    return _Numbered(source)


@final
class _Numbered:
    """Goes through what has items by number."""

    def __init__(self, source: Any) -> None:
        self.numbered = source

    def __iter__(self) -> Iterator[Any]:
        return (self.numbered[number] for number in range(len(self.numbered)))


@final
class _Stream:
    """Examples that come in batches of their own. All are gone through once, to count them and to know their form.

    Attributes:
        where: Whose they are, for messages.
        columns: The inputs, for looks at every value; they have no rows by number.
        targets: Of all examples, in the order of the first time.
        sizes: Batches by their number of examples; empty if examples come one by one.
        some: The first and the last examples.
        notes: What people may want to know, one line each.
    """

    def __init__(self, where: str, source: Any, how: Reading) -> None:
        self.where, self._source, self._how = where, source, how
        self._check()
        self._forms: tuple[Form, ...] = ()
        self._done = Counter[str]()
        self._one_by_one = False
        targets, sizes = [], Counter[int]()
        first = last = None
        for batch in self._pass(None):
            first = first or batch
            last = batch
            targets.append(batch.targets)
            sizes[len(batch.targets)] += 1
        if first is None or last is None:
            raise ConfigError(f"{where}: no examples")
        self.targets = np.concatenate(targets)
        self.sizes: Mapping[int, int] = {} if self._one_by_one else sizes
        self.columns = tuple(StreamColumn(self, number) for number in range(len(self._forms) - 1))
        self.some = Examples(*_joined([first, last] if first is not last else [first]))
        shown = ", ".join(map(str, sorted(sizes)[:_SHOWN])) + (", …" if len(sizes) > _SHOWN else "")
        brings = (
            "examples one by one, which become batches of training.batch_size"
            if self._one_by_one
            else f"{sizes.total()} batches of its own (of {shown}); training.batch_size is not used"
        )
        kind = article(source.numbered if isinstance(source, _Numbered) else source)
        self.notes = [
            f"{where}: {kind} that brings {brings}; their order is its own: no other backend need see the same, nor a run that goes on"
        ]
        self.notes += [f"{where}: {number} images: {what}" for what, number in self._done.items()]

    def __len__(self) -> int:
        return len(self.targets)

    def form(self, number: int) -> Form:
        """Shape and dtype of an example of an input."""
        return self._forms[number]

    def batches(self, batch_size: int) -> Iterator[Examples]:
        """All examples once.

        Args:
            batch_size: Examples of a batch, if they come one by one; others come as they are.

        Raises:
            ConfigError: They are others than at first: fewer, more, or of another shape or dtype.
        """
        count = 0
        waiting: Element | None = None
        for batch in self._pass(batch_size):
            count += len(batch.targets)
            if waiting is not None and count <= len(self):
                yield Examples(*waiting)
            waiting = batch
        # Before the last batch is handed out: whoever wants no more would not hear of it.
        if count != len(self):
            raise ConfigError(
                f"{self.where}: ended after {count} examples, and had {len(self)} when the course began",
                hint="let it give as many each time",
            )
        assert waiting is not None
        yield Examples(*waiting)

    def num_batches(self, batch_size: int) -> int:
        """Batches of one pass."""
        return -(-len(self) // batch_size) if self._one_by_one else sum(self.sizes.values())

    def _check(self) -> None:
        source = self._source
        if isinstance(source, set | frozenset):
            raise ConfigError(
                f"{self.where}: a {type(source).__name__} has no order", hint="hand over a list"
            )
        if iter(source) is source:
            raise ConfigError(
                f"{self.where}: a {type(source).__name__} can be gone through once, and every round begins anew",
                hint="hand over an object whose __iter__ begins anew: a data loader, or a class with def __iter__(self): yield …",
            )
        try:
            len(source)
        except TypeError as error:
            if "infinite" in str(error):
                raise ConfigError(
                    f"{self.where}: a data set without an end", hint="end it: .take(1000)"
                ) from error

    def _pass(self, batch_size: int | None) -> Iterator[Element]:
        """Batches; or examples one by one in batches of ``batch_size``, of many if left out."""
        waiting: list[Element] = []
        for number, value in enumerate(self._values()):
            found = element_of(f"{self.where}: element {number}", value, self._how, self._done)
            if not self._forms:
                self._one_by_one = not found.targets.ndim or (
                    [a.shape for a in found.inputs] == [e.shape[1:] for e in self._how.inputs]
                )
                self._forms = found.forms(batched=not self._one_by_one)
            forms = found.forms(batched=not self._one_by_one)
            if forms != self._forms:
                raise ConfigError(
                    f"{self.where}: element {number} has {forms_text(forms)}, and those before have {forms_text(self._forms)}",
                    hint=ONE_FORM,
                )
            if not self._one_by_one:
                lengths = {len(array) for array in (*found.inputs, found.targets)}
                if len(lengths) != 1:
                    sizes = ", ".join(str(len(array)) for array in found.inputs)
                    raise ConfigError(
                        f"{self.where}: element {number}: inputs and targets differ in length: {sizes} and {len(found.targets)}",
                        hint="every example of a batch has one of each",
                    )
                yield found
                continue
            waiting.append(Element(tuple(array[None] for array in found.inputs), found.targets[None]))
            if len(waiting) == (batch_size or _KEPT):
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)

    def _values(self) -> Iterator[Any]:
        number, source = 0, iter(self._source)
        while True:
            try:
                value = next(source)
            except StopIteration:
                return
            except Exception as error:  # whatever a user's code raises
                raise unread(f"{self.where}: element {number}", error, _NOT_SKIPPED) from error
            yield value
            number += 1


@final
class StreamColumn:
    """One input of a stream."""

    is_random = True

    def __init__(self, stream: _Stream, number: int) -> None:
        shape, self.dtype = stream.form(number)
        self._stream, self._number = stream, number
        self.shape: tuple[int, ...] = (len(stream), *shape)
        self.nbytes = prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Rows, /) -> Array:
        raise ConfigError(
            "a data set that is gone through from the beginning has no examples by number",
            hint="hand over a data set with a length and __getitem__",
        )

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """Its batches, each with the number of the first example."""
        start = 0
        for batch in self._stream.batches(_KEPT):
            yield start, batch.inputs[self._number]
            start += len(batch.targets)


def _joined(parts: list[Element]) -> Element:
    inputs = zip(*(part.inputs for part in parts), strict=True)
    return Element(tuple(map(np.concatenate, inputs)), np.concatenate([part.targets for part in parts]))
