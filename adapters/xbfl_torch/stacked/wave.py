"""Some participants, from the weights they start with to the sum of what they changed; what varies from round to round lies on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from xbackend_fl.adapter.cohort import ClientWork, Own
from xbackend_fl.adapter.contract import TrainConfig
from xbfl_torch.cohort import Data
from xbfl_torch.local_stepper import masks_of
from xbfl_torch.stacked.constants import Constants
from xbfl_torch.stacked.dense import Dense, additions_of
from xbfl_torch.stacked.devices import put
from xbfl_torch.stacked.dropout import Drawing
from xbfl_torch.stacked.outer import Outer
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.progress import Now, Progress
from xbfl_torch.stacked.room import Room
from xbfl_torch.stacked.schedule import Schedule
from xbfl_torch.stacked.step import losses
from xbfl_torch.stacked.update import clip_scales, descend


@final
class Wave:
    """Participants in lockstep.

    Args:
        model: Runs for all of them; in training mode while they step.
        packing: Where tensors lie.
        data: The examples.
        config: How they train; learning rates are those of :meth:`load`.
        base: What everybody starts from, ``[packing.size]``, on the device; it outlives the wave.
        room: How much there is place for.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        packing: Packing,
        data: Data,
        config: TrainConfig,
        base: torch.Tensor,
        room: Room,
    ) -> None:
        device, like = data.targets.device, next(iter(model.parameters()))
        self._model, self.packing, self._data, self.room = model, packing, data, room

        def zeros(*shape: int, dtype: torch.dtype = like.dtype) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._values = zeros(room.slots, packing.width)
        slots = config.optimizer.num_slots
        self._state = [zeros(room.slots, packing.reach) for _ in range(slots)]
        self._progress = Progress(
            zeros(room.steps, room.slots, room.batch, dtype=torch.int64),
            zeros(room.steps, room.slots, dtype=torch.int64),
            zeros(room.steps, 4),
        )
        self._seeds = zeros(room.slots, dtype=torch.int64)
        self._base, self._sums = base, zeros(packing.size)
        views = packing.views(self._base)
        weights = {name: views[name] for name in packing.shared}
        own, decay = packing.views(self._values), config.optimizer.weight_decay
        self._dense = Dense(
            additions_of(weights, room.steps, room.rows, room.batch, self._progress.number),
            [Outer(own[name], decay, zeros().requires_grad_()) for name in packing.outer],
        )
        self._used = 0
        self._config = config
        self._mask = _mask(config, packing, zeros)
        shape = (room.slots, packing.reach) if room.apart else (packing.reach,)
        self._constants = Constants.for_rule(config, packing, shape, zeros)

    def begin(self, start: torch.Tensor, parts: Iterable[slice]) -> None:
        """Begin a cohort, which all start from ``start [packing.size]``, of which each part is read when it comes."""
        for part in parts:
            self._base[part].copy_(start[part], non_blocking=True)
        self.forget()

    def forget(self) -> None:
        """Begin anew from the same."""
        self._sums.zero_()
        for item in self._dense.additions.values():
            item.begin()

    def plan(self, schedule: Schedule, config: TrainConfig) -> None:
        """Say who steps when, with the learning rates of ``config``; the steps before must be queued."""
        steps = len(schedule.active)
        rates = config.rates or [config.optimizer.lr] * steps
        numbers = [config.optimizer.numbers(step + 1, rates[step]) for step in range(steps)]
        put(self._progress.numbers[:steps], np.array(numbers, np.float64).reshape(steps, 4))
        put(self._seeds, schedule.seeds)
        put(self._progress.rows[:steps], schedule.rows)
        put(self._progress.counts[:steps], schedule.counts)
        ends = np.cumsum(schedule.active) * self.room.batch
        self._used = int(ends[-1]) if steps else 0
        for item in self._dense.additions.values():
            put(item.starts[:steps], np.concatenate([[0], ends[:-1]]).astype(np.int64))

    def load(self, config: TrainConfig, own: Iterable[Own] = ()) -> None:
        """Begin some participants: everybody has the base and no state.

        Args:
            config: Says the constants of a rule where these are everybody's.
            own: What each begins with beside that, one after the other.
        """
        self._values.copy_(self._base[: self.packing.width].expand_as(self._values))
        if self._constants is not None and not self.room.apart:
            self._constants.load(config.slots, self.packing)
        for place, mine in enumerate(own):
            views = self.packing.views(self._values[place])
            for name, array in mine.tensors.items():
                put(views[name], np.asarray(array, order="C"))
            if self._constants is not None:
                self._constants.load(mine.slots, self.packing, place)
        self.rewind()
        for tensor in (*self._state, self.totals):
            tensor.zero_()

    def rewind(self) -> None:
        """The next step is the first one."""
        self._progress.number.zero_()

    def step(self, count: int) -> None:
        """One step of the first ``count`` slots."""
        packing = self.packing
        now = self._progress.now(count)
        rows, counts = now.rows, now.counts
        own = {name: view.detach() for name, view in packing.views(self._values[:count]).items()}
        leaves = [own[name].requires_grad_() for name in packing.trained]
        inputs = [value.view(*rows.shape, *value.shape[1:]) for value in self._data.batch(rows.flatten())]
        targets = self._data.targets.index_select(0, rows.flatten())
        targets = targets.view(*rows.shape, *targets.shape[1:])
        drawing = Drawing(self._seeds[:count], self._progress.number)
        found = losses(self._model, own, inputs, targets, counts, self._config, self._dense, drawing)
        if leaves and found.means.requires_grad:
            whole = torch.autograd.grad(
                [found.means],
                [*leaves, *self._dense.anchors],
                [torch.ones_like(found.means)],
                allow_unused=True,
            )
            gradients = [
                torch.zeros_like(leaf) if gradient is None else gradient
                for leaf, gradient in zip(leaves, whole, strict=False)
            ]
            with torch.no_grad():
                self._follow(packing.joined(gradients), now)
        self._progress.keep(found, counts)

    def rehearse(self) -> None:
        """Launch every kernel of a cohort, of as many participants as there is room for; inside :func:`~xbfl_torch.stacked.devices.compiled`."""
        self.step(self.room.slots)
        views = self.packing.views(self._sums)
        for name, item in self._dense.additions.items():
            item.rehearse(views[name])

    def _follow(self, gradients: torch.Tensor, now: Now) -> None:
        config, reach, count = self._config, self.packing.reach, len(gradients)
        added = self._dense.called
        if self._mask is not None:
            gradients *= self._mask
        scales = None
        if config.clip_norm is not None:
            scales = clip_scales(gradients, [item.squared_norms() for item in added], config.clip_norm)
        state = [tensor[:count] for tensor in self._state]
        values = self._values[:count, :reach]
        if self._constants is not None:
            gradients, scales = self._constants.followed(gradients, values, scales), None
        descend(values, gradients, scales, state, now.active, config.optimizer, now.numbers)
        for item in added:
            item.remember(scales, now.active, now.numbers[0])

    def finish(self, weights: NDArray[np.float64], schedule: Schedule) -> torch.Tensor:
        """Add what everybody changed, times ``weights [slots]``, to the sums.

        Returns:
            Whether each slot's loss and change are finite; the others are not in the sums.
        """
        width = self.packing.width
        change = self._values.sub_(self._base[:width])
        good = torch.isfinite(self.totals[:, 0]) & torch.isfinite(change.sum(1))
        slots = np.concatenate([np.repeat(np.arange(n), self.room.batch) for n in (0, *schedule.active)])
        slot = torch.from_numpy(slots).to(good.device, non_blocking=True)
        weight = torch.from_numpy(weights).to(change, non_blocking=True)
        for item in self._dense.additions.values():
            bad = (~item.finite(self._used)).to(change.dtype)
            good &= torch.zeros_like(weight).index_put_((slot,), bad, accumulate=True) == 0
        change.masked_fill_(~good[:, None], 0.0)
        self._sums[:width].addmv_(change.t(), weight)
        views = self.packing.views(self._sums)
        for name, item in self._dense.additions.items():
            item.change(weight[slot], good[slot], views[name])
        return good

    def after(self, slot: int, schedule: Schedule) -> torch.Tensor:
        """What the participant in a slot has after its last step, ``[packing.size]``; valid until the next is asked for.

        Not after :meth:`finish`, which takes what participants added apart.
        """
        self._sums.copy_(self._base)
        self._sums[: self.packing.width] = self._values[slot]
        views, batch = self.packing.views(self._sums), self.room.batch
        begins = np.cumsum([0, *schedule.active[:-1]])[schedule.counts[:, slot] > 0] * batch
        rows = torch.from_numpy((begins[:, None] + slot * batch + np.arange(batch)).reshape(-1))
        for name, item in self._dense.additions.items():
            item.add_to(views[name], rows.to(self._sums.device))
        return self._sums

    @property
    def sums(self) -> torch.Tensor:
        """What all participants since :meth:`begin` changed, weighted, ``[packing.size]``."""
        return self._sums

    @property
    def totals(self) -> torch.Tensor:
        """Sum of losses and number of positions that counted, ``[slots, 2]``."""
        return self._progress.totals


def weights_of(clients: Sequence[ClientWork], order: Sequence[int], slots: int) -> NDArray[np.float64]:
    """How much each slot's change weighs, ``[slots]``; nothing where nobody is."""
    numbers = np.zeros(slots)
    numbers[: len(order)] = [clients[index].num_examples for index in order]
    return numbers


def _mask(config: TrainConfig, packing: Packing, zeros: Any) -> torch.Tensor | None:
    """Zeros where a tensor stays silent, ones elsewhere, ``[reach]``; ``None`` if none does."""
    row = zeros(packing.reach) + 1
    views = packing.views(row)
    found = masks_of(config, {name: views[name] for name in packing.trained})
    for name, mask in found.items():
        views[name].copy_(mask)
    return row if found else None
