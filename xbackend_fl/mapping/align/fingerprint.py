"""Tells nodes apart where structure cannot: the same weights by shape, the same data, both models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Node, Schema
from xbackend_fl.mapping.match.skeleton import CoreNode
from xbackend_fl.mapping.probe.cases import by_shape_cases
from xbackend_fl.mapping.probe.draw import draw_by_shape
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.pieces import piece_names
from xbackend_fl.mapping.probe.probe import Evidence, by_shape, observe
from xbackend_fl.mapping.probe.runtime import Runtime

Array = NDArray[Any]

_FAINT = 1e-3
"""Of a draw's largest gradient: where two are smaller, rounding makes much of what they differ by."""

_STILL = 1e-4
"""Of the outputs: a movement that is smaller may be rounding."""


@final
class Fingerprints:
    """How far apart two nodes are in what they do; models are run on the first question.

    Equal shapes hold equal weights, so interchangeable branches have equal gradients and nodes that only look alike
    have not: in real pairs the right partner is within 1e-3 and the next beyond 0.3. Where gradients say nothing, because
    they are zero or a model has none, it is how outputs move when the node's parameters change, by ONNX Runtime.

    Args:
        trainer: The candidate; its weights are changed.
        schema: The reference's schema.
        example: One array per input, in ONNX layout.
        evidence: What the reference did, the probes by shape included.
    """

    def __init__(
        self,
        trainer: Trainer,
        schema: Schema,
        example: Sequence[Array],
        evidence: Sequence[Evidence] | None,
    ) -> None:
        self._trainer = trainer
        self._reference = by_shape(evidence)
        data = [case.inputs for case in by_shape_cases(schema, example)]
        data += [item.case.inputs for item in self._reference]
        self._executable = not (schema.opaque or trainer.description.schema.opaque)
        self._pieces = piece_names(schema), piece_names(trainer.description.schema)
        self._effects = _Effects(schema, data), _Effects(trainer.description.schema, data)

    def __call__(self, ours: CoreNode, theirs: CoreNode) -> float:
        """Largest relative distance of the gradients in equal roles, or of the effects; 0 where nothing is known."""
        if not ours.node.parameters:
            return 0.0
        pairs = list(self._gradients(ours.node, theirs.node))
        if not self._executable:
            return round(max((_distance(*pair) for pair in pairs), default=0.0), 2)
        if not any(_norm(one) > faint or _norm(two) > faint for one, two, faint in pairs):
            one, two = (
                effects.arrays(core.node) for effects, core in zip(self._effects, (ours, theirs), strict=True)
            )
            pairs = list(zip(one, two, self._effects[0].still, strict=True))
        # Rounded: what differs by noise alone is equal, and then the name decides.
        return round(max((_distance(*pair) for pair in pairs), default=0.0), 2)

    def _gradients(self, ours: Node, theirs: Node) -> Iterable[tuple[Array, Array, float]]:
        """Gradients in equal roles, one pair for each draw, and below what norm they are rounding in that draw."""
        for (role, name), (item, own) in product(ours.parameters.items(), self._observed):
            pairs = zip(
                self._pieces[0][name], self._pieces[1].get(theirs.parameters.get(role, ""), ()), strict=False
            )
            for left, right in pairs:
                one, two = item.gradients.get(left), own.get(right)
                if one is not None and two is not None and one.shape == two.shape:
                    yield one, two, _FAINT * max(map(_norm, item.gradients.values()))

    @cached_property
    def _observed(self) -> list[tuple[Evidence, Mapping[str, Array]]]:
        """The reference's probes by shape, each with the candidate's gradients."""
        own = CanonicalModel.described(self._trainer)
        asked = [item for item in self._reference if item.gradients]
        return [(item, observe(own, item.case, {}).gradients) for item in asked]


@final
class _Effects:
    """How a schema's outputs move when the parameters of one node change."""

    def __init__(self, schema: Schema, data: Sequence[Sequence[Array]]) -> None:
        self._schema, self._data = schema, data
        self._known: dict[str, list[Array]] = {}

    def arrays(self, node: Node) -> list[Array]:
        """The movement of all outputs, one vector for each set of data."""
        if node.name not in self._known:
            weights, other = self._weights
            changed = weights | {name: other[name] for name in node.parameters.values()}
            self._known[node.name] = [
                self._outputs(changed, data) - before
                for data, before in zip(self._data, self._before, strict=True)
            ]
        return self._known[node.name]

    @property
    def still(self) -> list[float]:
        """Below what norm a movement may be rounding, for each set of data."""
        return [_STILL * _norm(before) for before in self._before]

    @cached_property
    def _weights(self) -> tuple[dict[str, Array], dict[str, Array]]:
        return draw_by_shape(self._schema), draw_by_shape(self._schema, "other ")

    @cached_property
    def _before(self) -> list[Array]:
        return [self._outputs(self._weights[0], data) for data in self._data]

    @cached_property
    def _runtime(self) -> Runtime:
        return Runtime(self._schema)

    def _outputs(self, weights: Mapping[str, Array], data: Sequence[Array]) -> Array:
        outputs = self._runtime.outputs(weights, data)
        flat = np.concatenate([np.ravel(array).astype(np.float64) for array in outputs])
        return np.where(np.isfinite(flat), flat, 0.0)


def _norm(array: Array) -> float:
    return norm_of(array)


def _distance(one: Array, two: Array, faint: float) -> float:
    """From 0 to 1, and near 0 where both are faint: a gradient that is zero in one framework is rounding in another."""
    size = _norm(one) + _norm(two) + faint
    return _norm(one - two) / size if size and one.shape == two.shape else 0.0
