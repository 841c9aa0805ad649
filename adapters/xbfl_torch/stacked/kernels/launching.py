"""Kernels are launched here, or compiled side by side before the first launch: one after the other takes a second each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

_WAITING: list[tuple[ThreadPoolExecutor, list[Future[Any]]]] = []


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch a kernel on a grid; inside :func:`compiling`, let it be compiled and leave its results as they are."""
    if not _WAITING:
        kernel[grid](*arguments, **options)
        return
    pool, waiting = _WAITING[-1]
    waiting.append(pool.submit(_compile, kernel, grid, torch.cuda.current_device(), arguments, options))


def _compile(kernel: Any, grid: Any, device: int, arguments: Any, options: Any) -> None:
    torch.cuda.set_device(device)
    kernel.warmup(*arguments, grid=grid, **options)


@contextmanager
def compiling() -> Iterator[None]:
    """What is launched inside is compiled, all at once, and does not run."""
    with ThreadPoolExecutor(16) as pool:
        waiting: list[Future[Any]] = []
        _WAITING.append((pool, waiting))
        try:
            yield
        finally:
            _WAITING.pop()
        for future in waiting:
            future.result()
