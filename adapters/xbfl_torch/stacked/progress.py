"""Where a wave stands: what a step reads of its plan, and what it keeps of its losses."""

from __future__ import annotations

from typing import NamedTuple, final

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.step import Losses


class Now(NamedTuple):
    """What is planned for a step.

    Attributes:
        rows: Examples of each batch, ``[participants, batch]``.
        counts: How many of these count, ``[participants]``.
        active: Whether any does, the same.
        numbers: The optimizer's, ``[4]``.
    """

    rows: torch.Tensor
    counts: torch.Tensor
    active: torch.Tensor
    numbers: torch.Tensor


@final
class Progress:
    """The plan of all steps, the number of the next one, and what all before it lost.

    Args:
        rows: ``[steps, slots, batch]``.
        counts: ``[steps, slots]``.
        numbers: ``[steps, 4]``.
    """

    def __init__(self, rows: torch.Tensor, counts: torch.Tensor, numbers: torch.Tensor) -> None:
        self.rows, self.counts, self.numbers = rows, counts, numbers
        self.number = rows.new_zeros(1)
        # Examples that are there, also where a step is compiled and nothing is read.
        slots = counts.new_zeros(counts.shape[1])
        self._now = Now(rows.new_zeros(rows.shape[1:]), slots, slots > 0, numbers.new_zeros(4))
        self.totals = rows.new_zeros(rows.shape[1], 2, dtype=torch.float64)

    def now(self, count: int) -> Now:
        """What is planned for the first ``count`` slots; valid until the next step."""
        kernels = devices.kernels("progress", self.numbers)
        if kernels is not None:
            kernels.read(self.number, self.rows, self.counts, self.numbers, *self._now, count)
            rows, counts, active, numbers = self._now
        else:
            plan = self.rows, self.counts, self.numbers
            rows, counts, numbers = (tensor.index_select(0, self.number)[0] for tensor in plan)
            active = counts > 0
        return Now(rows[:count], counts[:count], active[:count], numbers)

    @torch.no_grad()
    def keep(self, found: Losses, counts: torch.Tensor) -> None:
        """Add what the slots lost of whom ``counts [slots]`` examples counted; the next step is the one after."""
        kernels, means = devices.kernels("progress", self.numbers), found.means.detach()
        if kernels is not None:
            kernels.keep(self.totals, self.number, means, found.counted, counts)
            return
        seen = torch.stack([means.double() * found.counted, found.counted.double()], 1)
        self.totals[: len(counts)] += torch.where((counts > 0)[:, None], seen, 0.0)
        self.number += 1
