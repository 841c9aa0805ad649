"""Leaves what every framework's user has beside weights as it was: generators of random numbers, and plain containers."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def generators_kept() -> Iterator[None]:
    """Python's and NumPy's global generators are afterwards where they were before: a model may draw from them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the global one is what users seed
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  see above


@contextmanager
def settings_kept(settings: Sequence[tuple[Callable[[], Any], Callable[[Any], Any]]]) -> Iterator[None]:
    """What a framework has for a whole process is afterwards as it was before.

    Args:
        settings: How each is read, and how it is set, in the order in which they are set.
    """
    before = [read() for read, _ in settings]
    try:
        yield
    finally:
        for (read, write), value in zip(settings, before, strict=True):
            if read() != value:
                write(value)


class Containers:
    """What lies in the lists, dicts, sets and deques that a model holds, and in those one level inside them.

    Args:
        held: What the model holds; everything else is passed over.
        opened: The plain container behind a framework's own kind of one.
        stays: Whether an item that was added must stay, and its container with it: a layer that was built in the meantime.
    """

    def __init__(
        self,
        held: Iterable[Any],
        opened: Callable[[Any], Any] = lambda held: held,
        stays: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self._items: list[tuple[Any, Any]] = []
        self._stays = stays
        seen: set[int] = set()
        for outer in map(opened, held):
            for each in (outer, *map(opened, _inside(outer))):
                if isinstance(each, list | dict | set | deque) and id(each) not in seen:
                    seen.add(id(each))
                    self._items.append((each, _copy(each)))

    def bring_back(self) -> None:
        """Give each its items again, the same objects in the same order; those that are as they were are not touched."""
        for held, items in self._items:
            now, before = _items(_copy(held)), _items(items)
            same = len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))
            known = set(map(id, before))
            if same or any(self._stays(item) for item in now if id(item) not in known):
                continue
            # By the methods of the plain types: those of a framework's own kinds keep account of it elsewhere.
            plain = _plain(held)
            plain.clear(held)
            (plain.extend if plain in {list, deque} else plain.update)(held, items)


def _plain(held: Any) -> Any:
    """Python's own kind of it. An ordered dict keeps its order beside what a dict holds, and breaks if only that is changed."""
    return next(kind for kind in (list, OrderedDict, dict, set, deque) if isinstance(held, kind))


def _copy(held: Any) -> list[Any] | dict[Any, Any]:
    if isinstance(held, dict):
        return {key: dict.__getitem__(held, key) for key in _plain(held).__iter__(held)}
    return list(_plain(held).__iter__(held))


def _items(held: list[Any] | dict[Any, Any]) -> list[Any]:
    return [*held, *held.values()] if isinstance(held, dict) else held


def _inside(held: Any) -> Iterable[Any]:
    if isinstance(held, dict):
        return list(dict.values(held))
    return list(held) if isinstance(held, list | tuple | deque) else ()
