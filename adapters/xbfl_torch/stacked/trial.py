"""Some participants in lockstep several times over, with others in the places of a batch that do not count."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.errors import shortened
from xbfl_torch.cohort import Data
from xbfl_torch.stacked.graphs import Graphs
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.room import Room
from xbfl_torch.stacked.schedule import Schedule
from xbfl_torch.stacked.step import lockstep, places
from xbfl_torch.stacked.wave import Wave

_ROUNDING = 100
"""Of the largest change, in units of the dtype: 1e-5 in float32. Whoever does not count adds zeros, in the same order: on a processor nothing differs."""

_NOISE = 10
"""Times what two runs of the same steps differ by, where sums of a device have no order."""


class CannotStack(Exception):  # noqa: N818  what it says is no error
    """A model, or the way it trains, that does not run for all participants at once; says what stands in the way."""


def filled_otherwise(plan: Schedule, rows: NDArray[np.int64]) -> Schedule:
    """The same steps, with ``rows`` in the places that do not count."""
    spare = np.arange(plan.rows.shape[2]) >= plan.counts[..., None]
    other = plan.rows.copy()
    other[spare] = np.resize(rows, int(spare.sum()))
    return replace(plan, rows=other)


def in_lockstep(
    model: torch.nn.Module,
    packing: Packing,
    data: Data,
    config: TrainConfig,
    plans: Sequence[Schedule],
    base: torch.Tensor,
) -> list[torch.Tensor | None]:
    """What the participants change together by each of some plans, from ``base [size]``.

    Args:
        model: The model.
        packing: Where its tensors lie.
        data: The examples.
        config: How participants train.
        plans: Of the same steps, so that they need the same kernels.
        base: What everybody begins with, on the device.

    Returns:
        The changes, ``[size]``, on the processor; ``None`` where somebody's loss or change is not finite.

    Raises:
        CannotStack: The model does not run for several participants.
    """
    steps, slots, batch = plans[0].rows.shape
    room = Room(slots, steps, batch, batch * sum(plans[0].active))
    wave = Wave(model, packing, data, config, base, room)
    found: list[torch.Tensor | None] = []

    def run(plan: Schedule, step: Callable[[int], None]) -> bool:
        wave.forget()
        wave.plan(plan, config)
        wave.load(config)
        for count in plan.active:
            step(count)
        return bool(wave.finish(np.ones(slots), plan).all())

    with lockstep(model, config), places(model) as called:
        try:
            # Libraries take a while over what they do first: all but the steps is done while these are compiled.
            graphs = Graphs(wave, partial(run, plans[0], lambda _: None))
            for plan in plans:
                good = run(plan, graphs.step)
                # What lies on a processor would be the wave's own.
                found.append(wave.sums.to("cpu", copy=True) if good else None)
        except (RuntimeError, ValueError, TypeError, OSError, subprocess.SubprocessError) as error:
            if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
                raise
            kind = type(model.get_submodule(called[-1])).__name__
            where = f"layer {called[-1]!r} ({kind})" if called[-1] else f"model {kind}"
            raise CannotStack(f"{where}: {shortened(error)}") from error
    return found


def check_independent(
    found: torch.Tensor, otherwise: torch.Tensor, again: torch.Tensor, base: torch.Tensor
) -> None:
    """Hold what examples change against what they change beside others.

    Args:
        found: The change, ``[size]``.
        otherwise: With others in the places that do not count.
        again: As at first.
        base: What was changed, ``[size]``; says how a change is rounded.

    Raises:
        CannotStack: Examples of a batch depend on each other.
    """
    if torch.equal(found, otherwise):
        return
    found, otherwise, again = found.double(), otherwise.double(), again.double()
    unit, largest = torch.finfo(base.dtype).eps, float(found.abs().max())
    rounded = 4 * unit * base.detach().cpu().double().abs()
    allowed = _ROUNDING * unit * largest + rounded + _NOISE * float((again - found).abs().max())
    difference = (otherwise - found).abs()
    if bool((difference > allowed).any()):
        raise CannotStack(
            "examples of a batch depend on each other: beside others that do not count they change the model otherwise, by "
            f"{float(difference.max()):.1e} where the largest change is {largest:.1e}"
        )
