"""Trains a whole cohort on a device without the host in between.

Data lie on the device, in the dtype they have on disk. Several replicas of the model train participants side by side, each in a stream of its
own. On a GPU a step is a CUDA graph: gather the batch by index, forward, backward, clip, update, all at fixed addresses; one graph per batch
size and number of steps, so that the short last batch of an epoch needs no padding and batch normalisation sees what it would see. Losses, counts and the
sum of the updates stay on the device until the cohort is done.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, final

import numpy as np
import torch

from xbackend_fl.adapter import longest_first
from xbackend_fl.adapter.contract import Array, CohortResult, LossSum, Part, Scaling, Tensors, TrainConfig
from xbackend_fl.adapter.outputs import output_leaves
from xbfl_torch.convolutions import cheap_biases
from xbfl_torch.descent import Descent
from xbfl_torch.describe import is_tensor, tensors_of
from xbfl_torch.devices import kernels_for, kernels_on
from xbfl_torch.losses import mean_loss
from xbfl_torch.plan import Plan
from xbfl_torch.steps import dropout_rates, training_mode

_WARM_UP = 3
"""Steps before a capture: libraries choose kernels and allocate on first use."""

_LONGEST = 8
"""Steps of one graph at most."""


class Run(NamedTuple):
    """Steps in a row with batches of one size.

    Several steps make one graph: with eight replicas the host queues 606 steps in 17 ms instead of 28. The device needs as long as before.
    """

    size: int
    steps: int


def runs_of(part: Part) -> list[Run]:
    """A participant's steps as few runs of few kinds: powers of two."""
    found = []
    for size, batches in groupby(map(len, part.batches)):
        left = sum(1 for _ in batches)
        while left:
            steps = min(_LONGEST, 1 << (left.bit_length() - 1))
            found.append(Run(size, steps))
            left -= steps
    return found


@dataclass
class Data:
    """Examples on the device.

    Attributes:
        inputs: One tensor per model input.
        targets: Class indices or values.
        scaling: How inputs of bytes become floats.
    """

    inputs: list[torch.Tensor]
    targets: torch.Tensor
    scaling: Scaling | None

    @staticmethod
    def on(device: str, inputs: Sequence[Array], targets: Array, scaling: Scaling | None) -> Data:
        """Copies of arrays on a device, bytes as bytes; classes as losses want them."""
        moved = [torch.tensor(np.asarray(array), device=device) for array in inputs]
        wanted = torch.tensor(np.asarray(targets), device=device)
        return Data(moved, wanted if wanted.is_floating_point() else wanted.long(), scaling)

    def batch(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Inputs of some rows, as floats."""
        return [self._scaled(value, rows) for value in self.inputs]

    def _scaled(self, value: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        rule = self.scaling
        if rule is None or value.dtype != torch.uint8:
            return value.index_select(0, rows)
        kernels = kernels_on(value.device)
        if kernels is not None:
            return kernels.gather(value, rows, rule.factor, rule.offset)  # type: ignore[no-any-return]
        return value.index_select(0, rows) * rule.factor + rule.offset


@final
@dataclass(eq=False)
class Lane:
    """One replica of the model and what its participant in training has done.

    Attributes:
        model: The replica; its averaged tensors are views of ``values``.
        values: What is averaged, one after the other, ``[size of the plan]``.
        data: The examples.
        descent: How it steps.
        totals: Sum of losses and number of positions that counted, ``[2]``.
        sums: Sum of the weighted updates so far, like ``values``.
        stream: Where its work is queued, on a GPU.
        graphs: Captured runs, and the rows each reads.
        pool: Memory that the graphs share: they never run at the same time.
    """

    model: torch.nn.Module
    values: torch.Tensor
    data: Data
    descent: Descent
    totals: torch.Tensor
    sums: torch.Tensor
    stream: Any = None
    graphs: dict[Run, tuple[Any, torch.Tensor]] = field(default_factory=dict)
    pool: Any = None

    def queue(self) -> AbstractContextManager[Any]:
        """Work inside goes to this lane's stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def step(self, rows: torch.Tensor, config: TrainConfig) -> None:
        """One step, with the treaty's settings already in place."""
        _, output = output_leaves(self.model(*self.data.batch(rows)), is_tensor)[0]
        kernels = kernels_for(output)
        classes = config.loss == "cross_entropy" and config.ignore_index is None
        if kernels is not None and classes and kernels.scores_fit(output):
            scores = output.detach()
            self.descent.step(output, kernels.cross_entropy(scores, self.data.targets, rows, self.totals))
            return
        loss, counted = mean_loss(output, self.data.targets.index_select(0, rows), config)
        self.descent.step(loss)
        with torch.no_grad():
            self.totals[0].add_(loss.detach() * counted)
            self.totals[1].add_(counted)

    def capture(self, run: Run, config: TrainConfig) -> None:
        """Record the steps of a run."""
        rows = torch.zeros(run.steps, run.size, dtype=torch.int64, device=self.totals.device)
        with self.queue():
            for _ in range(_WARM_UP):
                self.step(rows[0], config)
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            for batch in rows:
                self.step(batch, config)
        self.pool = self.pool or graph.pool()
        self.graphs[run] = (graph, rows.view(-1))

    def run(self, run: Run, rows: torch.Tensor, config: TrainConfig) -> None:
        """The steps of a run: a replay, if it was captured."""
        held = self.graphs.get(run)
        if held is None:
            for batch in torch.split(rows, run.size):
                self.step(batch, config)
        else:
            held[1].copy_(rows)
            held[0].replay()


def make_lane(
    model: torch.nn.Module, plan: Plan, dense: Sequence[str], data: Data, config: TrainConfig
) -> Lane:
    """A lane around a model that is on the device of the data."""
    device, tensors = data.targets.device, tensors_of(model)
    values = plan.adopt(tensors, device)
    trainable = {name: t for name, t in tensors.items() if t.requires_grad and name in plan.slots}
    stream = torch.cuda.Stream() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    descent = Descent(trainable, model, dense, config)
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    return Lane(model, values, data, descent, totals, torch.zeros_like(values), stream)


def replica(model: torch.nn.Module) -> torch.nn.Module:
    """A copy with tensors of its own."""
    return copy.deepcopy(model)


def suits(model: torch.nn.Module, config: TrainConfig) -> bool:
    """Whether every step is the same work: no random masks, no state, no factor that depends on the step's number."""
    drops = any(rate > 0 for _, _, rate in dropout_rates(model, config))
    return not drops and config.optimizer.name == "sgd"


def train(
    lanes: Sequence[Lane], plan: Plan, start: Tensors, parts: Sequence[Part], config: TrainConfig
) -> CohortResult:
    """Train every part from ``start``, each on the lane that has the least to do; the longest come first."""
    device = lanes[0].totals.device
    base = plan.load(start, device)
    totals = torch.zeros(len(parts), 2, dtype=torch.float64, device=device)
    finite = torch.zeros(len(parts), dtype=torch.bool, device=device)
    runs = [runs_of(part) for part in parts]
    kinds = {run for found in runs for run in found}
    order = torch.from_numpy(np.concatenate([rows for part in parts for rows in part.batches])).to(device)
    ends = np.cumsum([sum(map(len, part.batches)) for part in parts])
    orders = torch.tensor_split(order, torch.from_numpy(ends[:-1]))
    with ExitStack() as stack:
        for lane in lanes:
            missing = kinds - lane.graphs.keys()
            # What was captured needs no model any more.
            if missing:
                stack.enter_context(training_mode(lane.model, config))
                stack.enter_context(cheap_biases(lane.model))
                stack.enter_context(lane.descent.ready())
            for run in sorted(missing, reverse=True) if lane.stream is not None else ():
                lane.capture(run, config)
            lane.sums.zero_()
        _fence(device)
        # All lanes should end at about the same time: a few leave most of a GPU idle.
        steps = {index: len(part.batches) for index, part in enumerate(parts)}
        queues = [
            _queue(lane, share, parts, runs, orders, base, totals, finite, config)
            for lane, share in zip(lanes, longest_first(steps, len(lanes)), strict=True)
        ]
        # A run of every lane in turn, so that the device always has something of each to do.
        while queues:
            queues = [queue for queue in queues if next(queue, None) is not None]
        _fence(device)
    first = lanes[0].sums
    for lane in lanes[1:]:
        first.add_(lane.sums)
    losses = tuple(LossSum(loss, int(counted)) for loss, counted in totals.cpu().tolist())
    return CohortResult(plan.unload(first), losses, tuple(finite.cpu().tolist()))


def _queue(
    lane: Lane,
    share: Sequence[int],
    parts: Sequence[Part],
    runs: Sequence[Sequence[Run]],
    orders: Sequence[torch.Tensor],
    base: torch.Tensor,
    totals: torch.Tensor,
    finite: torch.Tensor,
    config: TrainConfig,
) -> Iterator[int]:
    """Queue a lane's work, a run at a time."""
    for index in share:
        with lane.queue():
            lane.values.copy_(base)
            lane.totals.zero_()
        lengths = [run.size * run.steps for run in runs[index]]
        for run, rows in zip(runs[index], torch.split(orders[index], lengths), strict=True):
            with lane.queue():
                lane.run(run, rows, config)
            yield index
        with lane.queue():
            totals[index].copy_(lane.totals)
            _add(lane, parts[index].num_examples, base, finite[index])


def _add(lane: Lane, weight: int, base: torch.Tensor, finite: torch.Tensor) -> None:
    """Add an update to the lane's sum, unless it or its loss is not finite; the host is not asked."""
    change = lane.values.sub_(base)
    good = torch.isfinite(lane.totals[0]) & torch.isfinite(change.sum())
    finite.copy_(good)
    lane.sums.add_(change.masked_fill_(~good, 0.0), alpha=weight)


def _fence(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
