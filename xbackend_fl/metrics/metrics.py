"""Figures as sums, which merge over batches, workers and participants, and cross the wire."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import Diverged, RunFailed, UpdateRefused, raised, turned
from xbackend_fl.losses import Loss
from xbackend_fl.losses.summed import WeightedSum
from xbackend_fl.metrics.counts import from_text, to_text
from xbackend_fl.metrics.metric import Figures, Metric, MetricState, Sums
from xbackend_fl.metrics.objective import Objective, Shape
from xbackend_fl.metrics.own import Own
from xbackend_fl.metrics.pairs import Pairs, pairs_of
from xbackend_fl.metrics.possible import impossible_beside
from xbackend_fl.metrics.registry import LOSS, usual_metrics
from xbackend_fl.metrics.reported import Reported
from xbackend_fl.places import place_of

_MAX_POSITIONS = 1 << 53
OF = "/"
"""Stands between the name of a head and that of its figure."""
_LARGEST = 1e120
"""Squares of float32 numbers add up to less; a thousand times its square is still finite."""


@final
@dataclass(frozen=True, eq=False)
class Metrics:
    """What is known about a model on some data.

    Attributes:
        positions: Targets that count.
        sums: By name, the sums of everything that was measured.
        metrics: What was measured, in the order in which it is shown.
        each: Those of every participant, where they are known apart.
        heads: Those of every output, by name, where several have a loss each: the loss is the sum of theirs, each times its weight, and a figure of
            one is called ``NAME/FIGURE``.
        weight: What the loss counts in that sum, if these are of such an output.
    """

    positions: int = 0
    sums: Sums = field(default_factory=dict)
    metrics: tuple[Metric, ...] = (LOSS,)
    each: Mapping[str, Metrics] = field(default_factory=dict)
    heads: Mapping[str, Metrics] = field(default_factory=dict)
    weight: float = 1.0

    @staticmethod
    def measured(
        objective: Objective,
        output: NDArray[Any],
        targets: NDArray[Any],
        metrics: Sequence[Metric] | None = None,
    ) -> Metrics:
        """The loss and other metrics of one batch.

        Args:
            objective: The loss, and how it reads outputs.
            output: ``[N, ...]`` in ONNX layout.
            targets: ``[N, ...]``, accepted by the objective.
            metrics: What is measured beside the loss; what is usual with it if left out.

        Raises:
            RunFailed: A metric raised, or one of the user's own returned something else than sums.
        """
        metrics = _with_loss(objective.loss, metrics)
        return Metrics.total(
            Metrics(
                pairs.positions,
                {k: v for metric in metrics for k, v in _measure(metric, pairs).items()},
                metrics,
            )
            for pairs in pairs_of(objective, output, targets)
        )

    @staticmethod
    def of_heads(
        heads: Mapping[str, Metrics], reported: Sequence[Metric] = (), sums: Sums | None = None
    ) -> Metrics:
        """Those of several outputs with a loss each.

        Args:
            heads: Of every output, by name, with its weight.
            reported: What participants report by code of their own.
            sums: What they have reported.
        """
        positions = sum(one.positions for one in heads.values())
        return Metrics(positions, sums or {}, (LOSS, *reported), heads=heads)

    @staticmethod
    def total(parts: Iterable[Metrics]) -> Metrics:
        """Merge, in the given order, neighbours of like size first; parts that measured nothing change nothing."""
        waiting: list[tuple[int, Metrics]] = []
        for part in parts:
            if part.is_empty:
                continue
            whole, size = part, 1
            while waiting and waiting[-1][0] == size:
                whole, size = _merged(waiting.pop()[1], whole), 2 * size
            waiting.append((size, whole))
        if not waiting:
            return Metrics()
        _, whole = waiting.pop()
        while waiting:
            whole = _merged(waiting.pop()[1], whole)
        return whole

    @staticmethod
    def over(each: Mapping[str, Metrics]) -> Metrics:
        """Those of all participants together, who are known apart; whoever measured nothing is not among them."""
        return replace(
            Metrics.total(each.values()), each={n: one for n, one in each.items() if not one.is_empty}
        )

    def reporting(
        self, metrics: Sequence[Metric], figures: Mapping[str, float], num_examples: int
    ) -> Metrics:
        """The same, and figures that a participant has reported, of everything that is measured."""
        sums = {**self.sums}
        for metric in metrics:
            if isinstance(metric, Reported) and metric.name in figures:
                sums |= metric.to_sums(figures[metric.name], num_examples)
        return replace(self, sums=sums, metrics=(LOSS, *metrics))

    @property
    def reported(self) -> Metrics:
        """What participants have reported by code of their own, and nothing else."""
        sums = {
            key: value
            for metric in self.metrics
            if isinstance(metric, Reported)
            for key, value in _own(metric, self.sums).items()
        }
        return Metrics(0, sums, self.metrics)

    def beside(self, each: Mapping[str, Metrics]) -> Metrics:
        """The same, with what participants have reported, who are known apart by that."""
        alone = {name: one.reported for name, one in each.items()}
        sums = {**self.sums, **Metrics.total(alone.values()).sums}
        return replace(self, sums=sums, each={name: one for name, one in alone.items() if one.sums})

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return not self.sums and not self.heads

    @property
    def figures(self) -> dict[str, float]:
        """Figures by name, without those that are not defined on these data.

        Raises:
            RunFailed: A metric raised, or its figure is none.
        """
        loss = self.loss if self.heads else math.nan
        summed = {} if math.isnan(loss) else {LOSS.label: loss}
        of_heads = {
            f"{head}{OF}{name}": value
            for head, one in self.heads.items()
            for name, value in one.figures.items()
        }
        own = {name: value for found in self._found() for name, value in found.values.items()}
        return {**summed, **of_heads, **own}

    @property
    def notes(self) -> tuple[str, ...]:
        """Why figures are not there, or of what they are not made, one line each."""
        of_heads = (f"{head}: {note}" for head, one in self.heads.items() for note in one.notes)
        return (*of_heads, *(found.note for found in self._found() if found.note))

    def higher_is_better(self, figure: str) -> bool:
        """Where a figure of this name is better."""
        head, of, name = figure.partition(OF)
        if of and head in self.heads:
            return self.heads[head].higher_is_better(name)
        return any(metric.owns(figure) and metric.higher_is_better for metric in self.metrics)

    @property
    def loss(self) -> float:
        """Mean loss, or the sum of those of all heads, each times its weight; NaN if nothing counts in one."""
        if self.heads:
            return sum(one.weight * one.loss for one in self.heads.values())
        state = MetricState(self.positions, _own(LOSS, self.sums))
        return LOSS.figures(state).values.get("loss", math.nan) if state.sums else math.nan

    def to_fields(self) -> dict[str, int | float | str]:
        """A flat mapping of names to numbers, and to texts for arrays of counts; :meth:`from_fields` is the inverse."""
        sums = {
            name: to_text(value) if isinstance(value, np.ndarray) else value
            for name, value in self.sums.items()
        }
        of_heads = {
            f"{head}{OF}{name}": value
            for head, one in self.heads.items()
            for name, value in one.to_fields().items()
        }
        return {"positions": self.positions, **of_heads, **sums}

    @staticmethod
    def from_fields(
        fields: Any,
        loss: Loss | WeightedSum,
        output: Shape,
        metrics: Sequence[Metric] | None = None,
        *,
        training: bool = False,
        max_positions: int = _MAX_POSITIONS,
    ) -> Metrics:
        """Figures from elsewhere, which may be anything.

        Args:
            fields: What :meth:`to_fields` would give.
            loss: The course's loss, or in training the sum of several.
            output: Shape of the model's output, without the batch axis.
            metrics: What the course measures beside the loss; what is usual with it if left out.
            training: Whether only the loss is expected.
            max_positions: Positions that may have been looked at: figures over more would outweigh all others in a mean.

        Raises:
            UpdateRefused: They are not the finite numbers that these metrics have, or no data have such figures.
        """
        expected = (LOSS,) if isinstance(loss, WeightedSum) or training else _with_loss(loss, metrics)
        positions, sums = _read(fields, f"the loss {loss.name!r}", output, expected)
        if positions > max_positions:
            raise UpdateRefused(
                f"figures over {positions} positions, and there can be {max_positions} at most"
            )
        _check_possible(expected, MetricState(positions, sums), output, max_positions)
        ours = {
            key: sums[key]
            for metric in expected
            if not isinstance(metric, Own | Reported)
            for key in _own(metric, sums)
        }
        if (reason := impossible_beside(loss, positions, ours, training=training)) is not None:
            raise UpdateRefused(f"impossible figures: {reason}")
        return Metrics(positions, sums, expected)

    @staticmethod
    def reported_in(fields: Any, reported: Sequence[Metric], max_examples: int) -> Sums:
        """What participants have reported by code of their own, from elsewhere; arguments and errors as of :meth:`from_fields`."""
        positions, sums = _read(fields, "evaluation.reported", (), reported)
        _check_possible(reported, MetricState(positions, sums), (), max_examples)
        return sums

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metrics):
            return NotImplemented
        mine, theirs = ([m.metrics for m in (one, *one.heads.values())] for one in (self, other))
        return mine == theirs and self.to_fields() == other.to_fields()

    def __hash__(self) -> int:
        return hash((self.positions, self.metrics))

    def _found(self) -> Iterator[Figures]:
        for metric in self.metrics:
            if sums := _own(metric, self.sums):
                yield _figures(metric, MetricState(self.positions, sums))


def max_bytes(metrics: Sequence[Metric], output: Shape) -> int:
    """Bytes of these metrics' fields in a message, at most, but for plain numbers.

    Args:
        metrics: What is measured.
        output: Shape of the model's output, without the batch axis.
    """
    return 11 * sum(metric.max_counts(output) for metric in metrics)


def _check_possible(metrics: Sequence[Metric], state: MetricState, output: Shape, limit: int) -> None:
    """Refuse sums that no data have, or that are of more positions or examples than there can be."""
    for metric in metrics:
        if isinstance(metric, Reported) and metric.examples(state.sums) > limit:
            raise UpdateRefused(
                f"{metric.name} over {metric.examples(state.sums):g} examples, and there can be {limit} at most"
            )
        own = MetricState(state.positions, _own(metric, state.sums))
        if (reason := metric.impossible(own, output)) is not None:
            raise UpdateRefused(f"impossible figures: {reason}")


def _read(fields: Any, what: str, output: Shape, expected: Sequence[Metric]) -> tuple[int, dict[str, Any]]:
    """Positions and sums of a stranger's fields, each one that an expected metric may have, and a finite number or counts."""
    if not isinstance(fields, dict):
        raise UpdateRefused(f"the metrics are a {type(fields).__name__}, expected names with numbers")
    limit = 1 + len(expected) + sum(metric.max_sums(output) for metric in expected)
    if len(fields) > limit:
        raise UpdateRefused(f"the metrics have {len(fields)} entries, expected those of {what}")
    sums: dict[str, Any] = {}
    for name, value in fields.items():
        owner = next((m for m in expected if isinstance(name, str) and m.owns(name)), None)
        if owner is None and name != "positions":
            raise UpdateRefused(f"the metrics have an entry that no metric of {what} has")
        if owner is not None and owner.counts and isinstance(value, str):
            sums[name] = from_text(name, value, owner.max_counts(output))
            continue
        if type(value) not in {int, float} or (owner is not None and owner.counts):
            kind = "counts" if owner is not None and owner.counts else "a number"
            raise UpdateRefused(f"{name} is a {type(value).__name__}, expected {kind}")
        # Not printed: a whole number may have any number of digits.
        if not -_LARGEST <= value <= _LARGEST:
            endless = isinstance(value, float) and not math.isfinite(value)
            what = "is no finite number" if endless else f"is beyond {_LARGEST:g}, which no honest sum is"
            raise Diverged(f"{name} {what}")
        if owner is not None:
            sums[name] = float(value)
    positions = fields.get("positions")
    if type(positions) is not int or not 0 <= positions <= _MAX_POSITIONS:
        raise UpdateRefused("positions is no whole number from 0 on")
    return positions, sums


def _with_loss(loss: Loss, metrics: Sequence[Metric] | None) -> tuple[Metric, ...]:
    return (LOSS, *(usual_metrics(loss) if metrics is None else metrics))


def _measure(metric: Metric, pairs: Pairs) -> Sums:
    with turned(lambda error: _failed(metric, "measure", error)):
        return metric.measure(pairs)


def _figures(metric: Metric, state: MetricState) -> Figures:
    with turned(lambda error: _failed(metric, "figures", error)):
        found = metric.figures(state)
    for name, value in found.values.items():
        # A loss that is not finite is looked at where it comes from.
        if not math.isfinite(value) and metric != LOSS:
            raise RunFailed(
                f"the metric {metric.name}: figures returned {value} for {name}",
                hint="leave a figure out where it is not defined, and say why in its note",
            )
    return found


def _failed(metric: Metric, method: str, error: BaseException) -> RunFailed:
    return RunFailed(raised(f"the metric {metric.name}: {method}", error, place_of(error)))


def _own(metric: Metric, sums: Sums) -> Sums:
    return {name: value for name, value in sums.items() if metric.owns(name)}


def _merged(one: Metrics, other: Metrics) -> Metrics:
    sums: dict[str, Any] = {}
    for metric in one.metrics:
        states = [MetricState(item.positions, _own(metric, item.sums)) for item in (one, other)]
        there = [state for state in states if state.sums]
        if len(there) == len(states):
            sums |= metric.merge(*states)
        elif not metric.everywhere:
            sums |= {name: value for state in there for name, value in state.sums.items()}
    heads = {
        name: _merged(part, other.heads[name]) if name in other.heads else part
        for name, part in (one.heads or other.heads).items()
    }
    return Metrics(one.positions + other.positions, sums, one.metrics, heads=heads, weight=one.weight)
