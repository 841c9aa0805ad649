"""Copies of a model that train a cohort side by side: as many as told, or as measured; fewer where memory ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch

from xbackend_fl.adapter.cohort import ClientWork, CohortResult
from xbackend_fl.adapter.contract import Tensors, TrainConfig
from xbackend_fl.errors import RunFailed
from xbfl_torch import cohort
from xbfl_torch.cohort import Data, Replica
from xbfl_torch.devices import gpu_name
from xbfl_torch.plan import Plan

_LOG = logging.getLogger("xbfl")

_CANDIDATES = (1, 2, 4, 8, 16, 32)
_WORTH = 0.97
"""More copies must bring the time to this part: each needs a model's memory, and makes its own graphs."""


@final
class Replicas:
    """The replicas of one model on one device.

    Args:
        model: The first replica; the others are copies.
        plan: Where its tensors lie.
        dense: Dense layers whose gradients may stay factors.
        data: The examples.
        wanted: How many; ``None`` to measure on the first cohort.
    """

    def __init__(
        self, model: torch.nn.Module, plan: Plan, dense: Sequence[str], data: Data, wanted: int | None
    ) -> None:
        self._model, self._plan, self._dense, self._data = model, plan, dense, data
        self._wanted = wanted
        self._replicas: list[Replica] = []
        self._captured = ""

    def train(self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig) -> CohortResult:
        """Train every part from ``start``.

        Raises:
            RunFailed: One copy does not fit on the device.
        """
        if self._captured != repr(config):
            # A captured step has the values of its capture.
            self._replicas, self._captured = [], repr(config)
        notes: tuple[str, ...] = ()
        if self._wanted is None:
            self._wanted, note = self._measure(start, clients, config)
            del self._replicas[self._wanted :]
            notes = (note,)
        while True:
            count = min(self._wanted, len(clients))
            try:
                return replace(self._run(count, start, clients, config), notes=notes)
            except torch.OutOfMemoryError as error:
                self._replicas.clear()
                if count == 1:
                    raise RunFailed(
                        _too_small(count),
                        hint="a smaller training.batch_size, a larger federate.device_memory_mib, or federate.device: cpu",
                    ) from error
                self._wanted = count // 2
                _LOG.warning("%s; going on with %d", _too_small(count), self._wanted)
            # Outside the handler: the exception holds what is to be freed.
            torch.cuda.empty_cache()

    def _run(
        self, count: int, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig
    ) -> CohortResult:
        while len(self._replicas) < count:
            model = cohort.copied(self._model) if self._replicas else self._model
            self._replicas.append(cohort.make_replica(model, self._plan, self._dense, self._data, config))
        return cohort.train(self._replicas[:count], self._plan, start, clients, config)

    def _measure(self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig) -> tuple[int, str]:
        """The number of copies that is fastest on a cohort, and a line that says so."""
        seconds: dict[int, float] = {}
        tight = False
        for count in _CANDIDATES:
            if count > len(clients):
                break
            try:
                self._run(count, start, clients, config)  # makes graphs
                began = time.perf_counter()
                self._run(count, start, clients, config)
            except torch.OutOfMemoryError:
                self._replicas.clear()
                tight = True
                break
            took = time.perf_counter() - began
            best = min(seconds.values(), default=float("inf"))
            seconds[count] = took
            if took > best * _WORTH:
                break
        if tight:
            torch.cuda.empty_cache()
        pick = chosen(seconds)
        tried = ", ".join(f"{count}: {1000 * took:.0f} ms" for count, took in seconds.items())
        more = "; more do not fit" if tight else ""
        return pick, f"{pick} replicas train side by side, by a cohort's time ({tried}{more})"


def chosen(seconds: dict[int, float]) -> int:
    """The smallest number that no larger one beats by more than it costs; 1 if nothing was measured."""
    pick = 1
    for count in sorted(seconds):
        if seconds[count] < seconds.get(pick, float("inf")) * _WORTH or pick not in seconds:
            pick = count
    return pick


def _too_small(replicas: int) -> str:
    """What was tried, and what there was."""
    what = f"{replicas} {'copy' if replicas == 1 else 'copies'} of the model with their steps do not fit on {gpu_name()}"
    if not torch.cuda.is_available():
        return what
    free, total = (value / (1 << 20) for value in torch.cuda.mem_get_info())
    peak = torch.cuda.max_memory_allocated() / (1 << 20)
    return f"{what}: {total:,.0f} MiB, {free:,.0f} MiB of them free, {peak:,.0f} MiB allocated at most"
