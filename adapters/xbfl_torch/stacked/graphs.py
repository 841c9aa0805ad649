"""A step for every number of participants, recorded once and replayed in every round."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch

from xbfl_torch.stacked.devices import compiled
from xbfl_torch.stacked.schedule import rounded
from xbfl_torch.stacked.wave import Wave


@final
class Graphs:
    """The recorded steps of a wave; on a processor they are made anew each time.

    Args:
        wave: Whose steps; what it holds is changed by recording them.
        meanwhile: What may be done while kernels are compiled, of which none runs; it may change what the wave holds.
    """

    def __init__(self, wave: Wave, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._wave = wave
        self._found: dict[int, Any] = {}
        if not wave.totals.is_cuda:
            return
        compiled(wave.rehearse, meanwhile)
        stream, pool = _recording(torch.cuda.current_device()), None
        stream.wait_stream(torch.cuda.current_stream())
        # The largest first: it asks for the memory that all others find room in.
        counts = sorted({rounded(n + 1) for n in range(wave.room.slots)}, reverse=True)
        with torch.cuda.stream(stream), _without_waiting():
            for count in counts:
                wave.rewind()
                wave.step(count)  # libraries choose kernels and allocate on first use
        stream.synchronize()
        # What these steps took is not what a recording may take.
        torch.cuda.empty_cache()
        for count in counts:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                wave.step(count)
            pool = pool or graph.pool()
            self._found[count] = graph

    @property
    def recorded(self) -> bool:
        """Whether steps run without the model."""
        return bool(self._found)

    def step(self, active: int) -> None:
        """One step of the first ``active`` participants."""
        if self._found:
            self._found[rounded(active)].replay()
        else:
            self._wave.step(active)


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Inside, waiting for the device is a ``RuntimeError``: no recording holds it, and one that fails leaves PyTorch as if it went on."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode(before)


@functools.cache
def _recording(device: int) -> Any:
    """The stream in which steps are recorded: libraries keep memory for each that they have seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def step_alone(wave: Wave, count: int) -> None:
    """Allocate what a step allocates, as its first one, and compile its kernels, which do not run."""
    wave.rewind()
    compiled(partial(wave.step, count))
