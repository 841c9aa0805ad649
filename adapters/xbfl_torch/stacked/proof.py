"""Two participants in lockstep against one after the other, before anything depends on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

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
from xbfl_torch.stacked.packing import Packing
from xbfl_torch.stacked.schedule import by_steps, largest_batch, schedule
from xbfl_torch.stacked.trial import CannotStack, check_independent, filled_otherwise, in_lockstep
from xbfl_torch.steps import training_mode

_CLOSE = 0.02
"""Relative difference of what two steps change. Rounding makes 1e-6 and a ReLU near zero 1e-3; whether examples that do not count make any is \
asked for itself."""

_NORM = 100.0
"""Steps of a gradient of at most this norm, so that nothing overflows."""

_LOOKED_AT = 64
"""Examples among which those are that are trained with."""


def prove(
    model: torch.nn.Module,
    packing: Packing,
    data: Data,
    config: TrainConfig,
    batch: int,
    base: torch.Tensor,
) -> None:
    """Compare, with the tensors that the model has now.

    Args:
        model: The model.
        packing: Where its tensors lie.
        data: The examples.
        config: How participants train.
        batch: Examples of a step in lockstep, most of which do not count here: that many have kernels that the cohort needs too.
        base: Where what everybody starts from lies, ``[packing.size]``; it is written.

    Raises:
        CannotStack: They differ, the examples of a batch depend on each other, or the model does not run for several participants.
    """
    # The optimizer works on each number by itself; Adam would make of the rounding of a gradient that is zero a whole step.
    limit = min(config.clip_norm or _NORM, _NORM)
    config = replace(config, optimizer=SGD(lr=0.01), rates=None, clip_norm=limit)
    rows = _finite_rows(data)
    work = [ClientWork((rows[:4], rows[4:7]), 7, seed=1), ClientWork((rows[7:],), 3, seed=2)]
    tensors = {name: tensor.detach() for name, tensor in tensors_of(model).items() if name in packing.places}
    for name, view in packing.views(base).items():
        view.copy_(tensors[name])
    plan = schedule(work, by_steps(work), len(work), max(batch, largest_batch(work)))
    plans = [plan, filled_otherwise(plan, np.roll(rows, 5)), plan]
    found, otherwise, again = in_lockstep(model, packing, data, config, plans, base)
    expected = _in_turn(model, packing, data, config, work)
    whole = _norm(expected)
    if not torch.isfinite(whole):
        raise CannotStack(
            f"the examples that were looked at (rows {', '.join(map(str, rows))}) make no number of loss or gradient, one by one either"
        )
    if found is None or otherwise is None or again is None:
        raise CannotStack("in lockstep no number comes out where one by one there is one")
    check_independent(found, otherwise, again, base)
    for name, view in packing.views(expected).items():
        error = _norm(packing.views(found)[name] - view)
        if not error <= _CLOSE * _norm(view) + 1e-3 * whole:
            raise CannotStack(
                f"in lockstep {name!r} changes otherwise than one by one, by {error / whole:.1e} of the whole change"
            )


def _norm(values: torch.Tensor) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
    return norm


def refuses_one(model: torch.nn.Module, data: Data, config: TrainConfig) -> str | None:
    """Why a batch of one example does not train, which PyTorch says by itself; ``None`` if it does."""
    copied = copy.deepcopy(model).cpu()
    # There, too, as bytes: on a GPU a kernel would be compiled for this alone.
    first = Data([value[:1].cpu() for value in data.inputs], data.targets[:1].cpu(), data.scaling)
    inputs = first.batch(torch.zeros(1, dtype=torch.int64))
    with training_mode(copied, config), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            copied(*inputs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            why = "has no variance" if "more than 1 value per channel" in str(error) else "does not run"
            return f"a batch of one example {why}: {shortened(error)}"
    return None


def _finite_rows(data: Data) -> NDArray[np.int64]:
    """The first ten examples whose inputs and targets are finite, over again if there are fewer; of all examples if none are."""
    first = torch.arange(min(_LOOKED_AT, len(data.targets)), device=data.targets.device)
    values = [value.index_select(0, first) for value in (*data.inputs, data.targets)]
    good = torch.stack([torch.isfinite(value).reshape(len(first), -1).all(1) for value in values]).all(0)
    return np.resize((first[good] if bool(good.any()) else first).cpu().numpy(), 10)


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
