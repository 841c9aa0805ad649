"""Trains whole cohorts in lockstep."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from operator import itemgetter
from typing import final

import numpy as np
import torch

from xbackend_fl.adapter.cohort import ClientResult, ClientWork, CohortResult
from xbackend_fl.adapter.contract import LossSum, Tensors, TrainConfig
from xbackend_fl.errors import RunFailed
from xbackend_fl.losses import NativeLoss
from xbfl_torch.cohort import Data
from xbfl_torch.stacked.dense import few_enough
from xbfl_torch.stacked.graphs import Graphs
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.proof import CannotStack, prove
from xbfl_torch.stacked.schedule import Schedule, by_steps, largest_batch, rounded, schedule
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
                self._halve(clients, error)
            # Outside the handler: the exception holds what is to be freed.
            torch.cuda.empty_cache()

    def train_apart(
        self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig
    ) -> Iterator[ClientResult]:
        """Train every part from what it has for itself, and the rest from ``start``; as many at a time as there is memory for.

        Raises:
            RunFailed: There is none for a single one.
        """
        left = by_steps(clients)
        while left:
            part = left[: self._slots_for(clients)]
            try:
                wave, plan = self._stepped(start, clients, part, config)
            except torch.OutOfMemoryError as error:
                self._halve(clients, error)
            else:
                totals, row = wave.totals.cpu().tolist(), self._staging(wave.packing)
                for slot, index in sorted(enumerate(part), key=itemgetter(1)):
                    row.copy_(wave.after(slot, plan))
                    after = {name: view.numpy() for name, view in wave.packing.views(row).items()}
                    loss, counted = totals[slot]
                    yield ClientResult(index, after, LossSum(loss, int(counted)))
                left = left[len(part) :]
                continue
            torch.cuda.empty_cache()

    def _halve(self, clients: Sequence[ClientWork], error: Exception) -> None:
        """Go on with half as many at a time."""
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

    def _train(self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig) -> CohortResult:
        order, slots = by_steps(clients), self._slots_for(clients)
        wave, graphs = self._ready(clients, config, apart=False)
        packing, batch, device = wave.packing, wave.room.batch, self._data.targets.device
        wave.begin(self._staged(packing, start))
        totals = torch.zeros(len(clients), 2, dtype=torch.float64, device=device)
        finite = torch.zeros(len(clients), dtype=torch.bool, device=device)
        with nullcontext() if graphs.recorded else lockstep(self._model, config):
            for part in (order[begin : begin + slots] for begin in range(0, len(order), slots)):
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
        own = clients[0].own if clients else None
        apart = {*own().tensors} if own is not None else set()
        names = [name for name in self._dense if name not in masked | config.frozen | apart]
        found = tuple(name for name in names if few_enough(self._tensors[name].shape, rows))
        return () if found and self.refusal(config, found) is not None else found

    def _packed(self, shared: Sequence[str], config: TrainConfig) -> Packing:
        own = [name for name in self._trained if name not in shared and name not in config.frozen]
        return Packing.from_tensors(self._tensors, own, shared)

    def _ready(
        self, clients: Sequence[ClientWork], config: TrainConfig, *, apart: bool
    ) -> tuple[Wave, Graphs]:
        """A wave with enough room for these participants, and its steps."""
        slots, batch = self._slots_for(clients), largest_batch(clients)
        numbers = [len(clients[index].batches) for index in by_steps(clients)]
        packing = self._packed(self._shared(clients, config), config)
        parts = [sum(numbers[begin : begin + slots]) for begin in range(0, len(numbers), slots)]
        rows = batch * max(parts, default=0) if packing.shared else 0
        # More steps than these, and a few more rows: the next cohort has somebody with more.
        longest = 1 << max(max(numbers, default=0) - 1, 0).bit_length()
        wanted = Room(slots, longest, batch, _roomy(rows), apart)
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

    def _stepped(
        self, start: Tensors, clients: Sequence[ClientWork], part: Sequence[int], config: TrainConfig
    ) -> tuple[Wave, Schedule]:
        """All steps of some participants, each with something of its own."""
        wave, graphs = self._ready(clients, config, apart=True)
        wave.begin(self._staged(wave.packing, start))
        plan = schedule(clients, part, wave.room.slots, wave.room.batch)
        wave.load(plan, config, (own() for index in part if (own := clients[index].own) is not None))
        with nullcontext() if graphs.recorded else lockstep(self._model, config):
            for active in plan.active:
                graphs.step(active)
        return wave, plan

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
