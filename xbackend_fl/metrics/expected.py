"""Figures that come from elsewhere, and may be anything: those that a course's model and losses can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from xbackend_fl.canonical import Schema
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.losses.summed import WeightedSum
from xbackend_fl.metrics.heads import Head, Heads
from xbackend_fl.metrics.metrics import OF, Metrics, max_bytes
from xbackend_fl.metrics.objective import Shape
from xbackend_fl.metrics.pairs import max_positions_of


@final
@dataclass(frozen=True)
class Expected:
    """What participants of a course can measure.

    Attributes:
        heads: The outputs that the course's losses read.
        outputs: The shape of each, without the batch axis.
        max_examples: Examples that anybody may have looked at: figures over more would outweigh all others in a mean.
    """

    heads: Heads
    outputs: tuple[Shape, ...]
    max_examples: int

    @staticmethod
    def from_schema(heads: Heads, schema: Schema, max_examples: int) -> Expected:
        """Those of a model.

        Raises:
            ConfigError: It lacks an output that a loss reads.
        """
        shapes = tuple(schema.outputs[head.index_in(schema)].shape[1:] for head in heads.each)
        return Expected(heads, shapes, max_examples)

    @property
    def max_bytes(self) -> int:
        """Bytes of figures in a message, at most, but for plain numbers."""
        pairs = zip(self.heads.each, self.outputs, strict=True)
        return sum(max_bytes(head.metrics, output) for head, output in pairs)

    def trained(self, fields: Any) -> Metrics:
        """Figures of training: the loss.

        Args:
            fields: What :meth:`Metrics.to_fields` would give.

        Raises:
            UpdateRefused: They are none, or no data have them.
        """
        (head, *_), (output, *_) = self.heads.each, self.outputs
        loss = WeightedSum([(h.loss, h.weight) for h in self.heads.each]) if self.heads.names else head.loss
        return Metrics.from_fields(fields, loss, output, (), training=True)

    def evaluated(self, fields: Any) -> Metrics:
        """Figures of given weights; arguments and errors as of :meth:`trained`."""
        pairs = [*zip(self.heads.each, self.outputs, strict=True)]
        if not self.heads.names:
            return self._of(*pairs[0], fields)
        parts, rest = self._apart(fields)
        found = {head.name: self._of(head, output, parts[head.name]) for head, output in pairs}
        beside = Metrics.reported_in(rest, self.heads.reported, self.max_examples)
        return Metrics.of_heads(found, self.heads.reported, beside)

    def _of(self, head: Head, output: Shape, fields: Any) -> Metrics:
        limit = self.max_examples * max_positions_of(head.loss, output)
        try:
            found = Metrics.from_fields(fields, head.loss, output, head.metrics[1:], max_positions=limit)
        except UpdateRefused as error:
            if head.name:
                error.message = f"{head.name}: {error.message}"
            raise
        return replace(found, weight=head.weight)

    def _apart(self, fields: Any) -> tuple[Mapping[str, dict[str, Any]], dict[str, Any]]:
        """The fields of every head, and those of none."""
        if not isinstance(fields, dict):
            raise UpdateRefused(f"the metrics are a {type(fields).__name__}, expected names with numbers")
        parts: dict[str, dict[str, Any]] = {name: {} for name in self.heads.names}
        rest: dict[str, Any] = {}
        for key, value in fields.items():
            head, of, name = key.partition(OF) if isinstance(key, str) else ("", "", "")
            if of and head in parts:
                parts[head][name] = value
            else:
                rest[key] = value
        return parts, rest
