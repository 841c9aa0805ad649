"""Kernels are launched here, or compiled side by side before the first launch: one after the other takes a second each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
import triton

_WAITING: list[dict[Any, Any]] = []


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch a kernel on a grid; inside :func:`compiling`, let it be compiled and leave its results as they are."""
    if not _WAITING:
        kernel[grid](*arguments, **options)
        return
    key = _key(kernel, arguments, options)
    if key not in _WAITING[-1]:
        _WAITING[-1][key] = kernel, grid, _seen(arguments), options


@final
@dataclass(frozen=True)
class _Pointer:
    """What the compiler asks of a tensor: nothing is held until its kernel is compiled."""

    dtype: torch.dtype
    remainder: int

    @staticmethod
    def to(tensor: torch.Tensor) -> _Pointer:
        return _Pointer(tensor.dtype, tensor.data_ptr() % 16)

    def data_ptr(self) -> int:
        return self.remainder


def _seen(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_seen(item) for item in value)
    return _Pointer.to(value) if isinstance(value, torch.Tensor) else value


def _key(kernel: Any, arguments: Any, options: Any) -> Any:
    """What launches have in common for which a kernel is compiled once: two threads would compile it twice."""

    def known(param: Any, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(known(param, item) for item in value)
        if isinstance(value, torch.Tensor):
            return _Pointer.to(value)
        if param.is_constexpr or not isinstance(value, int):
            return value
        return param.do_not_specialize or (value == 1, value % 16 == 0), value > 2**31 - 1

    found = (known(*pair) for pair in zip(kernel.params, arguments, strict=True))
    return kernel, tuple(found), tuple(options.items())


def _length(kernel: Any) -> int:
    """Characters of its source with what it calls, which tell about how long it takes to be compiled."""
    known = kernel.fn.__globals__
    called = [known.get(name) for name in kernel.fn.__code__.co_names]
    return len(kernel.src) + sum(_length(item) for item in called if isinstance(item, type(kernel)))


def _compile(device: int, kernel: Any, grid: Any, arguments: Any, options: Any) -> None:
    torch.cuda.set_device(device)
    # What failed there is done again here: where no process could be started, by which the driver is asked.
    wait(begin())
    # Asked how it is run, a kernel is loaded and the function that launches it compiled, which else its first launch does.
    kernel.warmup(*arguments, grid=grid, **options).run  # noqa: B018


@functools.cache
def begin() -> tuple[Future[Any], ...]:
    """Begin what the compiler does once in a process, on the current device.

    Half a second each: what asks the driver is compiled, and the compiler hashes itself, by which kernels lie on disk. Each of the
    threads that compile would do the latter for itself.
    """
    device, key = torch.cuda.current_device(), getattr(triton.runtime.cache, "triton_key", None)

    def ask() -> None:
        torch.cuda.set_device(device)
        triton.runtime.driver.active.get_current_target()

    pool = ThreadPoolExecutor(2)
    parts = tuple(pool.submit(part) for part in (ask, key) if part is not None)
    pool.shutdown(wait=False)
    return parts


@contextmanager
def compiling(meanwhile: Callable[[], object]) -> Iterator[None]:
    """What is launched inside is compiled afterwards, all at once, and does not run; nor does what is launched ``meanwhile``.

    Threads that compile take Python's lock, for which each operation of a step would wait anew.
    """
    begin()
    waiting: dict[Any, Any] = {}
    _WAITING.append(waiting)
    try:
        yield
        device = torch.cuda.current_device()
        # What takes longest begins first.
        order = sorted(waiting.values(), key=lambda call: -_length(call[0]))
        with ThreadPoolExecutor(16) as pool:
            begun = [pool.submit(_compile, device, *call) for call in order]
            meanwhile()
            for future in begun:
                future.result()
    finally:
        _WAITING.pop()
