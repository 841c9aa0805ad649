"""Two participants in lockstep against one after the other, before anything depends on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from xbackend_fl.adapter.cohort import ClientWork
from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.adapter.outputs import output_leaves
from xbackend_fl.errors import shortened
from xbfl_torch.cohort import Data
from xbfl_torch.describe import is_tensor, tensors_of
from xbfl_torch.local_stepper import LocalStepper
from xbfl_torch.losses import mean_loss
from xbfl_torch.stacked.dropout import DrawnForOne
from xbfl_torch.stacked.graphs import Graphs
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.room import Room
from xbfl_torch.stacked.schedule import by_steps, largest_batch, schedule
from xbfl_torch.stacked.step import lockstep, places
from xbfl_torch.stacked.wave import Wave
from xbfl_torch.steps import training_mode

_CLOSE = 0.02
"""Relative difference of what two steps change. Rounding makes 1e-6 and a ReLU near zero 1e-3; an example too many makes a third."""

_NORM = 100.0
"""Steps of a gradient of at most this norm, so that nothing overflows."""


class CannotStack(Exception):  # noqa: N818  what it says is no error
    """A model, or the way it trains, that does not run for all participants at once; says what stands in the way."""


def prove(model: torch.nn.Module, packing: Packing, data: Data, config: TrainConfig, batch: int) -> None:
    """Compare, with the tensors that the model has now.

    Args:
        model: The model.
        packing: Where its tensors lie.
        data: The examples.
        config: How participants train.
        batch: Examples of a step in lockstep, most of which do not count here: that many have kernels that the cohort needs too.

    Raises:
        CannotStack: They differ, or the model does not run for several participants.
    """
    # The optimizer works on each number by itself; Adam would make of the rounding of a gradient that is zero a whole step.
    limit = min(config.clip_norm or _NORM, _NORM)
    config = replace(config, optimizer=SGD(lr=0.01), rates=None, clip_norm=limit)
    work = [
        ClientWork((_rows(data, 0, 4), _rows(data, 4, 3)), 7, seed=1),
        ClientWork((_rows(data, 7, 3),), 3, seed=2),
    ]
    tensors = {name: tensor.detach() for name, tensor in tensors_of(model).items() if name in packing.places}
    base = torch.zeros(packing.size, dtype=next(model.parameters()).dtype, device=data.targets.device)
    for name, view in packing.views(base).items():
        view.copy_(tensors[name])
    found = (
        _in_lockstep(model, packing, data, config, work, base, max(batch, largest_batch(work))).cpu().double()
    )
    expected = _in_turn(model, packing, data, config, work).double()
    whole = expected.norm()
    for name, view in packing.views(expected).items():
        error = (packing.views(found)[name] - view).norm()
        if not error <= _CLOSE * view.norm() + 1e-3 * whole:
            raise CannotStack(
                f"in lockstep {name!r} changes otherwise than one by one, by {error / whole:.1e} of the whole change: a batch is filled up with "
                "examples that do not count, and here they did"
            )


def _rows(data: Data, start: int, count: int) -> Any:
    return np.arange(start, start + count) % len(data.targets)


def _in_lockstep(
    model: torch.nn.Module,
    packing: Packing,
    data: Data,
    config: TrainConfig,
    work: list[ClientWork],
    base: torch.Tensor,
    batch: int,
) -> torch.Tensor:
    plan = schedule(work, by_steps(work), len(work), batch)
    rows = batch * sum(plan.active)
    wave = Wave(model, packing, data, config, Room(len(work), len(plan.active), batch, rows))
    with lockstep(model, config), places(model) as called:
        try:
            steps = Graphs(wave)
            wave.begin(base)
            wave.plan(plan, config)
            wave.load(config)
            for count in plan.active:
                steps.step(count)
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
                raise
            kind = type(model.get_submodule(called[-1])).__name__
            where = f"layer {called[-1]!r} ({kind})" if called[-1] else f"model {kind}"
            raise CannotStack(f"{where}: {shortened(error)}") from error
    wave.finish(np.ones(len(work)), plan)
    return wave.sums


def _in_turn(
    model: torch.nn.Module, packing: Packing, data: Data, config: TrainConfig, work: list[ClientWork]
) -> torch.Tensor:
    """What the two change one after the other, on the processor: added up, in the order of the packing."""
    copied = copy.deepcopy(model).cpu()
    tensors: Mapping[str, torch.Tensor] = {n: t for n, t in tensors_of(copied).items() if n in packing.places}
    start = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    sums = torch.zeros(packing.size, dtype=next(copied.parameters()).dtype)
    views = packing.views(sums)
    for part in work:
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(start[name])
        stepper = LocalStepper(
            {n: t for n, t in tensors.items() if t.requires_grad and n not in config.frozen},
            copied,
            (),
            config,
        )
        with training_mode(copied, config), stepper.ready():
            for step, rows in enumerate(part.batches):
                places_ = torch.from_numpy(rows).to(data.targets.device)
                inputs = [value.cpu() for value in data.batch(places_)]
                with DrawnForOne(part.seed, step):
                    _, output = output_leaves(copied(*inputs), is_tensor)[0]
                stepper.step(mean_loss(output, data.targets[places_].cpu(), config)[0])
        for name, tensor in tensors.items():
            views[name] += tensor.detach() - start[name]
    return sums
