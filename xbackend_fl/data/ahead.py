"""Reads ahead: the next batches are made in a thread while one is trained on, or the system is told which rows they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_DEPTH = 3
_END = object()


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, in their order, of which at most three are made before they are asked for."""
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="xbfl-data") as pool:
        waiting = deque(pool.submit(next, source, _END) for _ in range(_DEPTH))
        while (found := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield found  # type: ignore[misc]  # not the end


def announced(items: Iterable[T], announce: Callable[[T], None]) -> Iterator[T]:
    """The items, in their order; each is announced before the three in front of it are handed out."""
    waiting = deque[T]()
    for item in items:
        announce(item)
        waiting.append(item)
        if len(waiting) > _DEPTH:
            yield waiting.popleft()
    yield from waiting
