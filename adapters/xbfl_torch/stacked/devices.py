"""Which kernels compute stacked layers on the device where a tensor lies."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray


def kernels(name: str, tensor: torch.Tensor) -> Any | None:
    """A module of :mod:`xbfl_torch.stacked.kernels`, if it computes with tensors like this one."""
    if tensor.device.type != "cuda" or tensor.dtype != torch.float32:
        return None
    return _module(name)


@functools.cache
def _module(name: str) -> Any | None:
    try:
        return importlib.import_module(f"xbfl_torch.stacked.kernels.{name}")
    except ModuleNotFoundError:  # PyTorch brings Triton where it supports it
        return None


def lined_up(vectors: torch.Tensor | None) -> torch.Tensor | None:
    """``[participants, values]`` whose values lie side by side; how far apart participants lie is told to kernels."""
    return vectors if vectors is None or vectors.stride(-1) == 1 else vectors.contiguous()


def put(target: torch.Tensor, array: NDArray[Any]) -> None:
    """Write an array to the device, behind what that has to do before; the array may change at once."""
    target.copy_(torch.from_numpy(array), non_blocking=True)


def pair(given: Any) -> tuple[int, int]:
    """What kernels are told of two axes, where a function of PyTorch takes one number or several."""
    numbers = (given,) if isinstance(given, int) else tuple(given)
    return numbers[0], numbers[-1]


def begin_compiling() -> None:
    """Begin what comes before the first kernel that is compiled, in threads."""
    launching = _module("launching")
    if launching is not None:
        launching.begin()


def compiled(step: Callable[[], None], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Compile all kernels of a step side by side, and do something else ``meanwhile``; what the step computes has no meaning."""
    launching = _module("launching")
    if launching is not None:
        with launching.compiling(meanwhile):
            step()
