"""Trains a whole cohort on a device without the host in between.

Data lie on the device, in the dtype they have on disk. Several replicas of the model train participants side by side, each in a stream of its
own. On a GPU a step is a CUDA graph: gather the batch by index, forward, backward, clip, update, all at fixed addresses; one graph per batch
size and number of steps, so that the short last batch of an epoch needs no padding and batch normalisation sees what it would see. Losses, counts and the
sum of the updates stay on the device until the cohort is done.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, final

import numpy as np
import torch

from xbackend_fl.adapter import balance
from xbackend_fl.adapter.cohort import ClientWork, CohortResult
from xbackend_fl.adapter.contract import Array, LossSum, Scaling, Tensors, TrainConfig
from xbackend_fl.adapter.outputs import output_leaves
from xbackend_fl.losses import NativeLoss
from xbfl_torch.convolutions import cheap_biases
from xbfl_torch.describe import is_tensor, tensors_of
from xbfl_torch.devices import kernels_for, kernels_on
from xbfl_torch.local_stepper import LocalStepper
from xbfl_torch.losses import mean_loss
from xbfl_torch.plan import Plan
from xbfl_torch.steps import dropout_rates, training_mode

_WARM_UP = 3
"""Steps before a capture: libraries choose kernels and allocate on first use."""

_LONGEST = 8
"""Steps of one graph at most."""


class StepBlock(NamedTuple):
    """Steps in a row with batches of one size.

    Several steps make one graph: with eight replicas the host queues 606 steps in 17 ms instead of 28. The device needs as long as before.
    """

    size: int
    steps: int


def blocks_of(client: ClientWork) -> list[StepBlock]:
    """A participant's steps as few blocks of few kinds: powers of two."""
    found = []
    for size, batches in groupby(map(len, client.batches)):
        left = sum(1 for _ in batches)
        while left:
            steps = min(_LONGEST, 1 << (left.bit_length() - 1))
            found.append(StepBlock(size, steps))
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
class Replica:
    """One replica of the model and what its participant in training has done.

    Attributes:
        model: The replica; its averaged tensors are views of ``values``.
        values: What is averaged, one after the other, ``[size of the plan]``.
        data: The examples.
        stepper: How it steps.
        totals: Sum of losses and number of positions that counted, ``[2]``.
        sums: Sum of the weighted updates so far, like ``values``.
        stream: Where its work is queued, on a GPU.
        graphs: Captured blocks, and the rows each reads.
        pool: Memory that the graphs share: they never run at the same time.
    """

    model: torch.nn.Module
    values: torch.Tensor
    data: Data
    stepper: LocalStepper
    totals: torch.Tensor
    sums: torch.Tensor
    stream: Any = None
    graphs: dict[StepBlock, tuple[Any, torch.Tensor]] = field(default_factory=dict)
    pool: Any = None

    def queue(self) -> AbstractContextManager[Any]:
        """Work inside goes to this replica's stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def step(self, rows: torch.Tensor, config: TrainConfig) -> None:
        """One step, with the schema's settings already in place."""
        _, output = output_leaves(self.model(*self.data.batch(rows)), is_tensor)[0]
        kernels = kernels_for(output)
        classes = config.loss.kernel == "softmax_cross_entropy" and config.ignore_index is None
        if kernels is not None and classes and kernels.scores_fit(output):
            scores = output.detach()
            self.stepper.step(output, kernels.cross_entropy(scores, self.data.targets, rows, self.totals))
            return
        loss, counted = mean_loss(output, self.data.targets.index_select(0, rows), config)
        self.stepper.step(loss)
        with torch.no_grad():
            self.totals[0].add_(loss.detach() * counted)
            self.totals[1].add_(counted)

    def capture(self, block: StepBlock, config: TrainConfig) -> None:
        """Record the steps of a block."""
        rows = torch.zeros(block.steps, block.size, dtype=torch.int64, device=self.totals.device)
        # They, and the weights, are being written in another stream.
        self.stream.wait_stream(torch.cuda.current_stream())
        with self.queue():
            for _ in range(_WARM_UP):
                self.step(rows[0], config)
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            for batch in rows:
                self.step(batch, config)
        self.pool = self.pool or graph.pool()
        self.graphs[block] = (graph, rows.view(-1))

    def run(self, block: StepBlock, rows: torch.Tensor, config: TrainConfig) -> None:
        """The steps of a block: a replay, if it was captured."""
        held = self.graphs.get(block)
        if held is None:
            for batch in torch.split(rows, block.size):
                self.step(batch, config)
        else:
            held[1].copy_(rows)
            held[0].replay()


def make_replica(
    model: torch.nn.Module, plan: Plan, dense: Sequence[str], data: Data, config: TrainConfig
) -> Replica:
    """A replica around a model that is on the device of the data."""
    device, tensors = data.targets.device, tensors_of(model)
    values = plan.adopt(tensors, device)
    trainable = {
        name: t
        for name, t in tensors.items()
        if t.requires_grad and name in plan.slots and name not in config.frozen
    }
    stream = torch.cuda.Stream() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    stepper = LocalStepper(trainable, model, dense, config)
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    return Replica(model, values, data, stepper, totals, torch.zeros_like(values), stream)


def copied(model: torch.nn.Module) -> torch.nn.Module:
    """A copy with tensors of its own."""
    return copy.deepcopy(model)


def suits(model: torch.nn.Module, config: TrainConfig) -> bool:
    """Whether every step is the same work: no random masks, no state, nothing that depends on the step's number or on the participant."""
    drops = any(rate > 0 for _, _, rate in dropout_rates(model, config))
    # A function of the user's own may do what no graph can hold.
    known = not isinstance(config.loss, NativeLoss)
    return (
        not drops
        and known
        and config.optimizer.plain
        and config.precision == "float32"
        and config.rule is None
        and config.rates is None
    )


def train(
    replicas: Sequence[Replica],
    plan: Plan,
    start: Tensors,
    clients: Sequence[ClientWork],
    config: TrainConfig,
) -> CohortResult:
    """Train every client from ``start``, each on the replica that has the least to do; the longest come first."""
    device = replicas[0].totals.device
    base = plan.load(start, device)
    totals = torch.zeros(len(clients), 2, dtype=torch.float64, device=device)
    finite = torch.zeros(len(clients), dtype=torch.bool, device=device)
    blocks = [blocks_of(client) for client in clients]
    kinds = {block for found in blocks for block in found}
    order = torch.from_numpy(np.concatenate([rows for client in clients for rows in client.batches])).to(
        device
    )
    ends = np.cumsum([sum(map(len, client.batches)) for client in clients])
    orders = torch.tensor_split(order, torch.from_numpy(ends[:-1]))
    with ExitStack() as stack:
        for replica in replicas:
            missing = kinds - replica.graphs.keys()
            # What was captured needs no model any more.
            if missing:
                stack.enter_context(training_mode(replica.model, config))
                stack.enter_context(cheap_biases(replica.model))
                stack.enter_context(replica.stepper.ready())
            for block in sorted(missing, reverse=True) if replica.stream is not None else ():
                replica.capture(block, config)
            replica.sums.zero_()
        _fence(device)
        # All replicas should end at about the same time: a few leave most of a GPU idle.
        steps = {index: len(client.batches) for index, client in enumerate(clients)}
        queues = [
            _queue(replica, share, clients, blocks, orders, base, totals, finite, config)
            for replica, share in zip(replicas, balance(steps, len(replicas)), strict=True)
        ]
        # A block of every replica in turn, so that the device always has something of each to do.
        while queues:
            queues = [queue for queue in queues if next(queue, None) is not None]
        _fence(device)
    first = replicas[0].sums
    for replica in replicas[1:]:
        first.add_(replica.sums)
    losses = tuple(LossSum(loss, int(counted)) for loss, counted in totals.cpu().tolist())
    largest = largest_of(plan.views(first))
    return CohortResult(plan.unload(first), largest, losses, tuple(finite.cpu().tolist()))


def _queue(
    replica: Replica,
    share: Sequence[int],
    clients: Sequence[ClientWork],
    blocks: Sequence[Sequence[StepBlock]],
    orders: Sequence[torch.Tensor],
    base: torch.Tensor,
    totals: torch.Tensor,
    finite: torch.Tensor,
    config: TrainConfig,
) -> Iterator[int]:
    """Queue a replica's work, a block at a time."""
    for index in share:
        with replica.queue():
            replica.values.copy_(base)
            replica.totals.zero_()
        lengths = [block.size * block.steps for block in blocks[index]]
        for block, rows in zip(blocks[index], torch.split(orders[index], lengths), strict=True):
            with replica.queue():
                replica.run(block, rows, config)
            yield index
        with replica.queue():
            totals[index].copy_(replica.totals)
            _add(replica, clients[index].num_examples, base, finite[index])


def _add(replica: Replica, weight: int, base: torch.Tensor, finite: torch.Tensor) -> None:
    """Add an update to the replica's sum, unless it or its loss is not finite; the host is not asked."""
    change = replica.values.sub_(base)
    good = torch.isfinite(replica.totals[0]) & torch.isfinite(change.sum())
    finite.copy_(good)
    replica.sums.add_(change.masked_fill_(~good, 0.0), alpha=weight)


def largest_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The largest magnitude of each tensor, NaN if a value is: on the device, which reads them in no time."""
    if not tensors:
        return {}
    found = [torch.linalg.vector_norm(tensor, math.inf) for tensor in tensors.values() if tensor.numel()]
    names = [name for name, tensor in tensors.items() if tensor.numel()]
    return dict(zip(names, torch.stack(found).tolist(), strict=True))


def _fence(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
