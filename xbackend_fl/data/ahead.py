"""Reads ahead: the next batches are made in a thread while one is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
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
