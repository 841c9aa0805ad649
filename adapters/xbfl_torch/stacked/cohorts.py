"""Trains whole cohorts in lockstep."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias, final

import numpy as np
import torch

from xbackend_fl.adapter.cohort import ClientResult, ClientWork, CohortResult
from xbackend_fl.adapter.contract import LossSum, Tensors, TrainConfig
from xbackend_fl.errors import RunFailed
from xbackend_fl.losses import NativeLoss
from xbfl_torch.cohort import Data, largest_of
from xbfl_torch.devices import gpu_name
from xbfl_torch.stacked import devices
from xbfl_torch.stacked.base import laid_in
from xbfl_torch.stacked.dense import few_enough
from xbfl_torch.stacked.dropout import MASKED
from xbfl_torch.stacked.graphs import Graphs, step_alone
from xbfl_torch.stacked.memory import StepBytes, fitting, free_bytes, wave_bytes, with_spare
from xbfl_torch.stacked.outer import MAX_ROWS
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.proof import prove, refuses_one
from xbfl_torch.stacked.room import Expected, Room, needed_room, with_margin
from xbfl_torch.stacked.schedule import Schedule, by_steps, largest_batch, rounded, schedule
from xbfl_torch.stacked.step import lockstep
from xbfl_torch.stacked.trial import CannotStack
from xbfl_torch.stacked.wave import Wave, weights_of
from xbfl_torch.steps import dropout_rates

_COPIERS = 8
"""Threads that copy weights: one takes 6 ms for 26 MB while another puts examples in order, four 2.0, eight 1.5."""

_PIECE = 4 << 20
"""Bytes that one of them copies at a time at most; what is smaller is copied together."""

_LOG = logging.getLogger("xbfl")

Piece: TypeAlias = tuple[slice, Future[None]]
"""Where some weights lie, and what puts them there."""


@final
class Lockstep:
    """Participants of one model on one device, all of them one step at a time.

    Args:
        model: The model, on the device of the data.
        tensors: Its averaged tensors of floats, by native name.
        dense: Names of dense layers whose weights are their own and that are called once.
        data: The examples.
        limit: Bytes that may be allocated on the device; ``None`` for all.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tensors: dict[str, torch.Tensor],
        dense: Sequence[str],
        data: Data,
        limit: int | None = None,
    ) -> None:
        self._model, self._tensors, self._data, self._limit = model, tensors, data, limit
        self._trained = [name for name, tensor in tensors.items() if tensor.requires_grad]
        weights = {f"{name}.weight" if name else "weight" for name in dense}
        self._dense = [name for name in self._trained if name in weights]
        self._refused: dict[str, str | None] = {}
        self._captured = ""
        self._wave: Wave | None = None
        self._base: tuple[Packing, torch.Tensor] | None = None
        self._graphs: Graphs | None = None
        self._slots, self._upper = 1, sys.maxsize
        self._planned: dict[str, int] = {}
        self._expected = Expected()
        self._copier = ThreadPoolExecutor(_COPIERS, "xbfl-weights")
        self._begun: tuple[Tensors, Packing, list[Piece]] | None = None
        self._host: torch.Tensor | None = None
        if data.targets.is_cuda:
            # Not earlier: while CUDA starts, starting another process fails on some machines.
            devices.begin_compiling()

    def expect(self, steps: Sequence[int], batch: int, count: int = 0) -> None:
        """Make room for ``count`` participants, of so many steps, of batches of so many examples at most."""
        self._expected = Expected(np.array(steps, np.int64), batch, count)

    def begin(self, start: Tensors) -> None:
        """Copy to pinned memory what the next cohort starts from, in threads."""
        if self._wave is not None:
            packing = self._wave.packing
            self._begun = start, packing, self._copies(packing, start)

    def refusal(
        self, config: TrainConfig, shared: Sequence[str] = (), outer: Sequence[str] = (), batch: int = 0
    ) -> str | None:
        """Why participants cannot train so in lockstep; ``None`` if they can, which has been tried with room for ``batch`` examples."""
        key = f"{_key(config)} {shared} {outer}"
        if key not in self._refused:
            try:
                _check(self._model, config)
                packing = self._packed(shared, outer, config)
                prove(self._model, packing, self._data, config, batch, self._base_of(packing))
            except CannotStack as reason:
                self._refused[key] = str(reason)
            except torch.OutOfMemoryError:
                self._refused[key] = "two participants in lockstep do not fit on the device"
            else:
                self._refused[key] = None
            if self._refused[key] is not None:
                self._base = None
                if self._data.targets.is_cuda:
                    torch.cuda.empty_cache()
        return self._refused[key]

    def takes(self, clients: Sequence[ClientWork], config: TrainConfig) -> str | None:
        """Why these participants cannot train so in lockstep, ``None`` if they can."""
        shortest = min((len(rows) for client in clients for rows in client.batches), default=2)
        if shortest == 1 and (reason := self._refuses_one(config)) is not None:
            return reason
        return self.refusal(config, *self._weights(clients, config), self._batch(clients))

    def _refuses_one(self, config: TrainConfig) -> str | None:
        key = f"one {_key(config)}"
        if key not in self._refused:
            self._refused[key] = refuses_one(self._model, self._data, config)
        return self._refused[key]

    def train(
        self,
        start: Tensors,
        clients: Sequence[ClientWork],
        config: TrainConfig,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> CohortResult:
        """Train every part from ``start``; as many at a time as there is memory for. ``meanwhile`` the host has something else to do.

        Raises:
            RunFailed: There is none for a single one.
        """
        while True:
            try:
                return self._train(start, clients, config, meanwhile)
            except torch.OutOfMemoryError as error:
                self._halve(error)
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
            try:
                wave, plan = self._stepped(start, clients, left, config)
            except torch.OutOfMemoryError as error:
                self._halve(error)
            else:
                part = plan.order
                totals, row = wave.totals.cpu().tolist(), self._staging(wave.packing)
                for slot, index in sorted(enumerate(part), key=itemgetter(1)):
                    row.copy_(wave.after(slot, plan))
                    after = {name: view.numpy() for name, view in wave.packing.views(row).items()}
                    loss, counted = totals[slot]
                    yield ClientResult(index, after, LossSum(loss, int(counted)))
                left = left[len(part) :]
                continue
            torch.cuda.empty_cache()

    def _halve(self, error: Exception) -> None:
        """Go on with half as many at a time: somebody else has taken memory since it was planned, or it was planned wrongly."""
        slots, self._wave, self._graphs = self._slots, None, None
        if slots == 1:
            raise RunFailed(
                f"one participant with its step does not fit on {gpu_name()}",
                hint="a smaller training.batch_size, a larger federate.device_memory_mib, or federate.device: cpu",
            ) from error
        self._upper = slots // 2
        _LOG.warning(
            "%d participants do not fit on the device together; going on with %d", slots, self._upper
        )

    def _train(
        self,
        start: Tensors,
        clients: Sequence[ClientWork],
        config: TrainConfig,
        meanwhile: Callable[[], None],
    ) -> CohortResult:
        order = by_steps(clients)
        wave, graphs = self._ready(clients, config, apart=False)
        packing, device = wave.packing, self._data.targets.device
        slots, batch = wave.room.slots, wave.room.batch
        parts = [order[begin : begin + slots] for begin in range(0, len(order), slots)]
        plans = [schedule(clients, part, slots, batch) for part in parts]
        totals = torch.zeros(len(clients), 2, dtype=torch.float64, device=device)
        finite = torch.zeros(len(clients), dtype=torch.bool, device=device)
        with nullcontext() if graphs.recorded else lockstep(self._model, config):
            for number, (part, plan) in enumerate(zip(parts, plans, strict=True)):
                wave.plan(plan, config)
                if not number:
                    # Threads have been copying these.
                    wave.begin(self._staging(packing), self._moved(packing, start))
                wave.load(config)
                for active in plan.active:
                    graphs.step(active)
                # All is queued while the device steps; the first thing that is read waits for it.
                places = torch.tensor(part).to(device, non_blocking=True)
                good = wave.finish(weights_of(clients, part, slots), plan)
                totals[places], finite[places] = wave.totals[: len(part)], good[: len(part)]
        host = self._staging(packing)
        host.copy_(wave.sums, non_blocking=True)
        meanwhile()
        largest = largest_of(packing.views(wave.sums))
        losses = tuple(LossSum(loss, int(counted)) for loss, counted in totals.cpu().tolist())
        found = {name: view.numpy() for name, view in packing.views(host).items()}
        return CohortResult(found, largest, losses, tuple(finite.cpu().tolist()))

    def _weights(
        self, clients: Sequence[ClientWork], config: TrainConfig
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Weights that nobody needs for itself, and those that step by what their layer saw.

        By the numbers of steps and examples alone: a run repeats its bits.
        """
        optimizer, masked = config.optimizer, {leaf.tensor for leaf in config.masked}
        if not optimizer.plain or config.rule is not None:
            return (), ()
        room = needed_room(clients, 1, self._expected, shared=True, apart=False)
        rows = room.batch * room.steps
        own = clients[0].own if clients else None
        apart = {*own().tensors} if own is not None else set()
        names = [name for name in self._dense if name not in masked | config.frozen]
        alike = [] if optimizer.weight_decay else [name for name in names if name not in apart]
        shared = tuple(name for name in alike if few_enough(self._tensors[name].shape, rows))
        outer = tuple(name for name in names if name not in shared) if room.batch <= MAX_ROWS else ()
        if not {*self._trained} - config.frozen - {*shared, *outer}:
            outer = outer[1:]
        tried = (shared or outer) and self.refusal(config, shared, outer, room.batch)
        return ((), ()) if tried else (shared, outer)

    def _batch(self, clients: Sequence[ClientWork]) -> int:
        return max(largest_batch(clients), self._expected.batch)

    def _packed(self, shared: Sequence[str], outer: Sequence[str], config: TrainConfig) -> Packing:
        own = [name for name in self._trained if name not in {*shared, *outer} | config.frozen]
        return Packing.from_tensors(self._tensors, own, shared, outer)

    def _ready(
        self, clients: Sequence[ClientWork], config: TrainConfig, *, apart: bool
    ) -> tuple[Wave, Graphs]:
        """A wave with enough room for these participants, and its steps."""
        packing = self._packed(*self._weights(clients, config), config)
        key = f"{_key(config)} {packing.shared} {packing.outer}"

        def room(slots: int) -> Room:
            shared = bool(packing.shared)
            return needed_room(clients, slots, self._expected, shared=shared, apart=apart)

        # Shares of a cohort differ from round to round; what is recorded serves all of them.
        count = max(len(clients), self._expected.count)
        planned = f"{key} {apart} {rounded(count)} {self._upper}"
        if planned not in self._planned:
            self._wave = self._graphs = None
            self._planned[planned] = self._fitting(count, packing, config, room)
        self._slots = self._planned[planned]
        wanted = room(self._slots)
        if (
            self._wave is None
            or self._graphs is None
            or self._captured != key
            or not self._wave.room.holds(wanted)
        ):
            self._wave = self._graphs = None
            wave = self._wave_of(packing, config, wanted)
            with lockstep(self._model, config):
                self._wave, self._graphs, self._captured = wave, Graphs(wave), key
        return self._wave, self._graphs

    def _wave_of(self, packing: Packing, config: TrainConfig, room: Room) -> Wave:
        margin = with_margin(room, self._expected)
        return Wave(self._model, packing, self._data, config, self._base_of(packing), margin)

    def _base_of(self, packing: Packing) -> torch.Tensor:
        if self._base is None or self._base[0] != packing:
            self._base = packing, laid_in(self._model, self._tensors, packing)
        return self._base[1]

    def _fitting(self, count: int, packing: Packing, config: TrainConfig, room: Callable[[int], Room]) -> int:
        """How many participants train at a time: as many as there is memory for, and no more than were found to fit."""
        device, upper = self._data.targets.device, self._upper
        if device.type != "cuda":
            return min(rounded(count), upper)
        torch.cuda.empty_cache()
        try:
            pair = self._wave_of(packing, config, room(2))
            with lockstep(self._model, config):
                step = StepBytes.measured(partial(step_alone, pair), device)
        except torch.OutOfMemoryError:
            return 1
        del pair

        def needed(slots: int) -> int:
            wanted, size = with_margin(room(slots), self._expected), next(self._model.parameters())
            rows, apart = wanted.rows, wanted.apart
            held = wave_bytes(packing, config, slots, rows, apart=apart, itemsize=size.element_size())
            return with_spare(held, step.total(slots)) if slots <= upper else free + 1

        free = free_bytes(device, self._limit)
        slots = fitting(count, needed, free)
        if slots < count:
            _LOG.info("%d of %d participants at a time: %d MiB are free", slots, count, free >> 20)
        return slots

    def _stepped(
        self, start: Tensors, clients: Sequence[ClientWork], left: Sequence[int], config: TrainConfig
    ) -> tuple[Wave, Schedule]:
        """All steps of the first of those who are left, each with something of its own."""
        wave, graphs = self._ready(clients, config, apart=True)
        part = left[: wave.room.slots]
        plan = schedule(clients, part, wave.room.slots, wave.room.batch)
        wave.plan(plan, config)
        wave.begin(self._staging(wave.packing), self._moved(wave.packing, start))
        wave.load(config, (own() for index in part if (own := clients[index].own) is not None))
        with nullcontext() if graphs.recorded else lockstep(self._model, config):
            for active in plan.active:
                graphs.step(active)
        return wave, plan

    def _moved(self, packing: Packing, start: Tensors) -> Iterator[slice]:
        """The parts of a round's weights, each when the device can read it: those that were begun with, if it is these."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] is not start or begun[1] is not packing:
            for _, copied in begun[2] if begun is not None else ():
                copied.result()
            begun = start, packing, self._copies(packing, start)
        for place, copied in begun[2]:
            copied.result()
            yield place

    def _copies(self, packing: Packing, start: Tensors) -> list[Piece]:
        """Weights on their way to pinned memory, in parts."""
        row = self._staging(packing)
        together: list[tuple[Any, Any]] = []
        found: list[Piece] = []
        first = last = 0

        def flush() -> None:
            if together:
                found.append((slice(first, last), self._copier.submit(_copy, together.copy())))
                together.clear()

        for name, view in packing.views(row).items():
            (begin, shape), target, source = packing.places[name], view.numpy(), start[name]
            end = begin + shape.numel()
            if target.nbytes <= _PIECE or not target.flags.c_contiguous:
                first, last = (first if together else begin), end
                together.append((target, source))
                continue
            flush()
            width = target[:1].size
            rows = max(1, _PIECE // target[:1].nbytes)
            for at in range(0, len(target), rows):
                place = slice(begin + at * width, begin + min(at + rows, len(target)) * width)
                part = target[at : at + rows], source[at : at + rows]
                found.append((place, self._copier.submit(_copy, [part])))
        flush()
        return found

    def _staging(self, packing: Packing) -> torch.Tensor:
        if self._host is None or len(self._host) != packing.size:
            dtype = next(self._model.parameters()).dtype
            self._host = torch.zeros(packing.size, dtype=dtype, pin_memory=self._data.targets.is_cuda)
        return self._host


def _copy(parts: Sequence[tuple[Any, Any]]) -> None:
    for target, source in parts:
        np.copyto(target, source)


def _check(model: torch.nn.Module, config: TrainConfig) -> None:
    values = next(model.parameters())
    if values.is_cuda and devices.kernels("update", values) is None:
        raise CannotStack(
            "steps on a GPU are recorded, and without Triton, or in float64, some wait for the host"
        )
    for module, _, rate in dropout_rates(model, config):
        if rate > 0 and type(module) not in MASKED:
            raise CannotStack(f"{type(module).__name__} drops, which has no stacked form")
    if isinstance(config.loss, NativeLoss):
        raise CannotStack("the loss is a function of the user's own, which may do what no graph can hold")
    if config.precision != "float32":
        raise CannotStack(f"forward passes compute with {config.precision}")


def _key(config: TrainConfig) -> str:
    """All that a step depends on but for learning rates, which it reads from the device."""
    return f"{replace(config, optimizer=replace(config.optimizer, lr=0.0))} {sorted(config.frozen)}"
