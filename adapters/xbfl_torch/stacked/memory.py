"""What a wave will allocate on a device, computed before it does, and how many participants fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch

from xbackend_fl.adapter.contract import TrainConfig
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.schedule import rounded

_SPARE = 1.1
"""A pool of blocks of many sizes takes more than what is in use at a time."""

_KEPT_BACK = 64 << 20
"""Of what is free: PyTorch asks for 20 MiB where it needs two, by itself for either stream and for recorded steps; of 190 MiB it kept 53."""

_highest: dict[int, int] = {}


@final
@dataclass(frozen=True)
class StepBytes:
    """What a step allocates and gives back, by the number of participants.

    Attributes:
        common: However many there are.
        each: For every one of them.
    """

    common: int
    each: int

    @staticmethod
    def measured(step: Callable[[int], None], device: torch.device) -> StepBytes:
        """By steps of one participant and of two, after one in which libraries allocate what they keep."""
        step(2)
        one, two = (_peak(partial(step, count), device) for count in (1, 2))
        each = max(two - one, 0)
        return StepBytes(max(one - each, 0), each)

    def total(self, count: int) -> int:
        """Of so many participants."""
        return self.common + self.each * count


def wave_bytes(
    packing: Packing, config: TrainConfig, slots: int, rows: int, *, apart: bool, itemsize: int
) -> int:
    """What a wave holds from its beginning to its end, but for the rows and counts of its schedule, and what everybody starts from.

    Args:
        packing: Where tensors lie.
        config: Says the optimizer's state, and an algorithm's constants.
        slots: Participants.
        rows: Rows of what they add to weights that they share.
        apart: Whether everybody has constants of its own.
        itemsize: Bytes of a value.
    """
    each = packing.width + config.optimizer.num_slots * packing.reach
    common = packing.size
    if config.rule is not None:
        constants = len(config.rule.slots) * packing.reach
        each, common = (each + constants, common) if apart else (each, common + constants)
        common += packing.reach
    if config.masked:
        common += packing.reach
    for name in packing.shared:
        outs, ins = packing.places[name][1]
        common += rows * (outs + ins)
    return (slots * each + common) * itemsize


def free_bytes(device: torch.device, limit: int | None) -> int:
    """What may still be allocated on a device, of ``limit`` bytes or all of it."""
    held, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + held - used
    return free if limit is None else min(free, limit - used)


def fitting(count: int, needed: Callable[[int], int], free: int) -> int:
    """How many of ``count`` participants train at a time: in as few waves as memory allows, of about the same size.

    Args:
        count: Participants.
        needed: Bytes for so many at a time.
        free: Bytes that there are.
    """
    for waves in range(1, max(count, 1) + 1):
        slots = rounded(-(-count // waves))
        if needed(slots) <= free:
            return slots
    return 1


def with_spare(held: int, step: int) -> int:
    """Bytes to have free for what is held and for what a step allocates."""
    return held + int(step * _SPARE) + _KEPT_BACK


def highest(device: torch.device) -> int:
    """The most that was allocated on a device so far."""
    return max(_highest.get(device.index or 0, 0), torch.cuda.max_memory_allocated(device))


def _peak(run: Callable[[], None], device: torch.device) -> int:
    """What is allocated at most while something runs, beside what was before."""
    _highest[device.index or 0] = highest(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before
