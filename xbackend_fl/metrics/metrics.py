"""Figures as sums, which merge over batches, workers and participants, and cross the wire."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.errors import Diverged, UpdateRefused
from xbackend_fl.losses import Loss
from xbackend_fl.metrics.metric import Metric, Part, Sums
from xbackend_fl.metrics.objective import Objective
from xbackend_fl.metrics.own import MOST_SUMS, MetricFile
from xbackend_fl.metrics.pairs import pairs_of
from xbackend_fl.metrics.possible import impossible_beside
from xbackend_fl.metrics.registry import METRICS, metrics_for

_MOST_POSITIONS = 1 << 53
_LARGEST = 1e120
"""Squares of float32 numbers add up to less; a thousand times its square is still finite."""


@final
@dataclass(frozen=True)
class Metrics:
    """What is known about a model on some data.

    Attributes:
        positions: Targets that count.
        sums: By name, the sums of every metric that was measured.
        own: The metric of the user's own among them.
    """

    positions: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    own: MetricFile | None = None

    @staticmethod
    def measured(
        objective: Objective, output: NDArray[Any], targets: NDArray[Any], own: MetricFile | None = None
    ) -> Metrics:
        """All metrics that fit a loss, of one batch.

        Args:
            objective: The loss, and how it reads outputs.
            output: ``[N, ...]`` in ONNX layout.
            targets: ``[N, ...]``, accepted by the objective.
            own: A metric of the user's own.

        Raises:
            RunFailed: That one raised, or returned something else than sums.
        """
        fitting = metrics_for(objective.loss, own)
        return Metrics.total(
            Metrics(
                pairs.positions, {k: v for metric in fitting for k, v in metric.measure(pairs).items()}, own
            )
            for pairs in pairs_of(objective, output, targets)
        )

    @staticmethod
    def total(parts: Iterable[Metrics]) -> Metrics:
        """Merge, in the given order; parts that measured nothing change nothing."""
        whole = Metrics()
        for part in parts:
            whole = _merged(whole, part) if whole.sums and part.sums else part if part.sums else whole
        return whole

    @property
    def figures(self) -> dict[str, float]:
        """Metric name to value, without those that are not defined on these data.

        Raises:
            RunFailed: The metric of the user's own raised, or its value is no number.
        """
        values = {
            metric.name: metric.value(Part(self.positions, _own(metric, self.sums)))
            for metric in self._present()
        }
        return {name: value for name, value in values.items() if value is not None}

    @property
    def loss(self) -> float:
        """Mean loss; NaN if nothing counts."""
        value = METRICS["loss"].value(Part(self.positions, self.sums)) if "loss" in self.sums else None
        return math.nan if value is None else value

    def to_fields(self) -> dict[str, float]:
        """A flat mapping of names to numbers; :meth:`of_fields` is the inverse."""
        return {"positions": self.positions, **self.sums}

    @staticmethod
    def of_fields(
        fields: Any,
        loss: Loss,
        columns: int,
        own: MetricFile | None = None,
        *,
        training: bool = False,
        most: int = _MOST_POSITIONS,
    ) -> Metrics:
        """Figures from elsewhere, which may be anything.

        Args:
            fields: What :meth:`to_fields` would give.
            loss: The course's loss.
            columns: Quantities of an output, by :func:`columns_of`.
            own: The course's metric of the user's own.
            training: Whether only the loss is expected, not every metric that fits.
            most: Positions that may have been looked at: figures over more would outweigh all others in a mean.

        Raises:
            UpdateRefused: They are not the finite numbers that these metrics have, or no data have such figures.
        """
        expected = [METRICS["loss"]] if training else list(metrics_for(loss, own))
        if not isinstance(fields, dict):
            raise UpdateRefused(f"the metrics are a {type(fields).__name__}, expected names with numbers")
        if len(fields) > 1 + 4 * columns + len(expected) + MOST_SUMS:
            raise UpdateRefused(
                f"the metrics have {len(fields)} entries, expected those of the loss {loss.name!r}"
            )
        for name, value in fields.items():
            if not isinstance(name, str) or not (name == "positions" or any(m.owns(name) for m in expected)):
                raise UpdateRefused(f"the metrics have an entry that no metric of the loss {loss.name!r} has")
            if type(value) not in {int, float}:
                raise UpdateRefused(f"{name} is a {type(value).__name__}, expected a number")
            # Not printed: a whole number may have any number of digits.
            if not -_LARGEST <= value <= _LARGEST:
                endless = isinstance(value, float) and not math.isfinite(value)
                what = "is no finite number" if endless else f"is beyond {_LARGEST:g}, which no honest sum is"
                raise Diverged(f"{name} {what}")
        positions = fields.get("positions")
        if type(positions) is not int or not 0 <= positions <= _MOST_POSITIONS:
            raise UpdateRefused("positions is no whole number from 0 on")
        if positions > most:
            raise UpdateRefused(f"figures over {positions} positions, and there can be {most} at most")
        sums = {name: float(value) for name, value in fields.items() if name != "positions"}
        for metric in expected:
            reason = metric.impossible(Part(positions, _own(metric, sums)), columns)
            if reason is not None:
                raise UpdateRefused(f"impossible figures: {reason}")
        ours = sums if own is None else {key: value for key, value in sums.items() if not own.owns(key)}
        if (reason := impossible_beside(loss, positions, ours, training=training)) is not None:
            raise UpdateRefused(f"impossible figures: {reason}")
        return Metrics(positions, sums, own)

    def _present(self) -> list[Metric]:
        every = [*METRICS.values(), *([self.own.metric] if self.own is not None else [])]
        return [metric for metric in every if any(map(metric.owns, self.sums))]


def _own(metric: Metric, sums: Sums) -> Sums:
    return {name: value for name, value in sums.items() if metric.owns(name)}


def _merged(one: Metrics, other: Metrics) -> Metrics:
    sums: dict[str, float] = {}
    for metric in METRICS.values():
        parts = [Part(item.positions, _own(metric, item.sums)) for item in (one, other)]
        if all(part.sums for part in parts):
            sums |= metric.merge(*parts)
    if one.own is not None:
        # What adds up needs no code of the user's.
        sums |= {name: value + other.sums[name] for name, value in one.sums.items() if one.own.owns(name)}
    return Metrics(one.positions + other.positions, sums, one.own)
