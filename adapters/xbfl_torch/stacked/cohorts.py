"""Trains whole cohorts in lockstep."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import final

import numpy as np
import torch

from xbackend_fl.adapter.contract import ClientWork, CohortResult, LossSum, Tensors, TrainConfig
from xbackend_fl.errors import RunFailed
from xbackend_fl.losses import NativeLoss
from xbfl_torch.cohort import Data
from xbfl_torch.stacked.dense import few_enough
from xbfl_torch.stacked.graphs import Graphs
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.proof import CannotStack, prove
from xbfl_torch.stacked.schedule import by_steps, largest_batch, rounded, schedule
from xbfl_torch.stacked.step import lockstep
from xbfl_torch.stacked.wave import Room, Wave, weights_of
from xbfl_torch.steps import dropout_rates

_LOG = logging.getLogger("xbfl")


@final
class Lockstep:
    """Participants of one model on one device, all of them one step at a time.

    Args:
        model: The model, on the device of the data.
        tensors: Its averaged tensors of floats, by native name.
        dense: Names of dense layers whose weights are their own and that are called once.
        data: The examples.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tensors: dict[str, torch.Tensor],
        dense: Sequence[str],
        data: Data,
    ) -> None:
        self._model, self._tensors, self._data = model, tensors, data
        self._trained = [name for name, tensor in tensors.items() if tensor.requires_grad]
        weights = {f"{name}.weight" if name else "weight" for name in dense}
        self._dense = [name for name in self._trained if name in weights]
        self._normalised = any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules())
        self._refused: dict[str, str | None] = {}
        self._captured = ""
        self._wave: Wave | None = None
        self._graphs: Graphs | None = None
        self._slots: int | None = None
        self._host: torch.Tensor | None = None

    def refusal(self, config: TrainConfig, shared: Sequence[str] = ()) -> str | None:
        """Why participants cannot train so in lockstep; ``None`` if they can, which has been tried."""
        key = f"{_key(config)} {shared}"
        if key not in self._refused:
            try:
                _check(self._model, config)
                prove(self._model, self._packed(shared, config), self._data, config)
            except CannotStack as reason:
                self._refused[key] = str(reason)
            except torch.OutOfMemoryError:
                self._refused[key] = "two participants in lockstep do not fit on the device"
            else:
                self._refused[key] = None
            if self._refused[key] is not None and self._data.targets.is_cuda:
                torch.cuda.empty_cache()
        return self._refused[key]

    def takes(self, clients: Sequence[ClientWork], config: TrainConfig) -> str | None:
        """Why these participants cannot train so in lockstep, ``None`` if they can."""
        shortest = min((len(rows) for client in clients for rows in client.batches), default=2)
        if self._normalised and shortest == 1:
            return "a batch of one example has no variance"
        return self.refusal(config, self._shared(clients, config))

    def train(self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig) -> CohortResult:
        """Train every part from ``start``; as many at a time as there is memory for.

        Raises:
            RunFailed: There is none for a single one.
        """
        while True:
            try:
                return self._train(start, clients, config)
            except torch.OutOfMemoryError as error:
                slots = self._slots_for(clients)
                self._wave = self._graphs = None
                if slots == 1:
                    raise RunFailed(
                        "one participant with its step does not fit on the device",
                        hint="a smaller training.batch_size, a larger federate.device_memory_mib, or federate.device: cpu",
                    ) from error
                self._slots = slots // 2
                _LOG.warning(
                    "%d participants do not fit on the device together; going on with %d", slots, self._slots
                )
            # Outside the handler: the exception holds what is to be freed.
            torch.cuda.empty_cache()

    def _train(self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig) -> CohortResult:
        order = by_steps(clients)
        slots = self._slots_for(clients)
        parts = [order[begin : begin + slots] for begin in range(0, len(order), slots)]
        device, batch = self._data.targets.device, largest_batch(clients)
        steps = [[len(clients[index].batches) for index in part] for part in parts]
        packing = self._packed(self._shared(clients, config), config)
        rows = batch * max(map(sum, steps), default=0) if packing.shared else 0
        longest = max((max(numbers) for numbers in steps), default=0)
        # More steps than these, and a few more rows: the next cohort has somebody with more.
        room = Room(slots, 1 << max(longest - 1, 0).bit_length(), batch, _roomy(rows))
        wave, graphs = self._ready(packing, room, config)
        wave.begin(self._staged(packing, start))
        totals = torch.zeros(len(clients), 2, dtype=torch.float64, device=device)
        finite = torch.zeros(len(clients), dtype=torch.bool, device=device)
        with nullcontext() if graphs.recorded else lockstep(self._model, config):
            for part in parts:
                plan = schedule(clients, part, slots, batch)
                wave.load(plan, config)
                for active in plan.active:
                    graphs.step(active)
                # All is queued while the device steps; the first thing that is read waits for it.
                places = torch.tensor(part).to(device, non_blocking=True)
                good = wave.finish(weights_of(clients, part, slots), plan)
                totals[places], finite[places] = wave.totals[: len(part)], good[: len(part)]
        host = self._staging(packing)
        host.copy_(wave.sums, non_blocking=True)
        losses = tuple(LossSum(loss, int(counted)) for loss, counted in totals.cpu().tolist())
        found = {name: view.numpy() for name, view in packing.views(host).items()}
        return CohortResult(found, losses, tuple(finite.cpu().tolist()))

    def _slots_for(self, clients: Sequence[ClientWork]) -> int:
        slots = rounded(len(clients))
        return slots if self._slots is None else min(slots, self._slots)

    def _shared(self, clients: Sequence[ClientWork], config: TrainConfig) -> tuple[str, ...]:
        """Weights that nobody needs for itself, by the numbers of steps and examples alone: a run repeats its bits."""
        optimizer, masked = config.optimizer, {leaf.tensor for leaf in config.masked}
        if not optimizer.plain or optimizer.weight_decay or config.rule is not None:
            return ()
        rows = largest_batch(clients) * max((len(client.batches) for client in clients), default=0)
        names = [name for name in self._dense if name not in masked | config.frozen]
        found = tuple(name for name in names if few_enough(self._tensors[name].shape, rows))
        return () if found and self.refusal(config, found) is not None else found

    def _packed(self, shared: Sequence[str], config: TrainConfig) -> Packing:
        own = [name for name in self._trained if name not in shared and name not in config.frozen]
        return Packing.from_tensors(self._tensors, own, shared)

    def _ready(self, packing: Packing, wanted: Room, config: TrainConfig) -> tuple[Wave, Graphs]:
        """A wave with enough room, and its steps."""
        key = f"{_key(config)} {packing.shared}"
        if (
            self._wave is None
            or self._graphs is None
            or self._captured != key
            or not self._wave.room.holds(wanted)
        ):
            self._wave = self._graphs = None
            wave = Wave(self._model, packing, self._data, config, wanted)
            with lockstep(self._model, config):
                self._wave, self._graphs, self._captured = wave, Graphs(wave), key
        return self._wave, self._graphs

    def _staged(self, packing: Packing, start: Tensors) -> torch.Tensor:
        """The weights of a round, where the device reads them."""
        host = self._staging(packing)
        for name, view in packing.views(host).items():
            # One thread: many are woken no faster than it copies, and on a busy host much more slowly.
            np.copyto(view.numpy(), start[name])
        return host

    def _staging(self, packing: Packing) -> torch.Tensor:
        if self._host is None or len(self._host) != packing.size:
            dtype = next(self._model.parameters()).dtype
            self._host = torch.zeros(packing.size, dtype=dtype, pin_memory=self._data.targets.is_cuda)
        return self._host


def _roomy(rows: int) -> int:
    """Rows to make room for: the next cohort has a few more."""
    wanted = rows + rows // 8
    part = 1 << max(wanted.bit_length() - 4, 0)
    return -(-wanted // part) * part


def _check(model: torch.nn.Module, config: TrainConfig) -> None:
    for module, _, rate in dropout_rates(model, config):
        if rate > 0:
            raise CannotStack(f"{type(module).__name__} drops: every participant draws masks of its own")
    if isinstance(config.loss, NativeLoss):
        raise CannotStack("the loss is a function of the user's own, which may do what no graph can hold")
    if config.precision != "float32":
        raise CannotStack(f"forward passes compute with {config.precision}")


def _key(config: TrainConfig) -> str:
    """All that a step depends on but for learning rates, which it reads from the device."""
    return f"{replace(config, optimizer=replace(config.optimizer, lr=0.0))} {sorted(config.frozen)}"
