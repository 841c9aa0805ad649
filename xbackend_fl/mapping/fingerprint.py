"""Tells nodes apart by gradients where structure cannot: the same weights by shape, the same data, both models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Description
from xbackend_fl.mapping.probe import Evidence, by_shape, observe
from xbackend_fl.mapping.skeleton import Bone

Array = NDArray[Any]


@final
class Fingerprints:
    """How far apart the gradients of two nodes are; the candidate is run on the first question.

    Equal shapes hold equal weights, so interchangeable branches have equal gradients and nodes that only look alike
    have not: in real pairs the right partner is within 1e-3 and the next beyond 0.3.

    Args:
        trainer: The candidate; its weights are changed.
        description: Its own description.
        evidence: What the reference did, the probe by shape included.
    """

    def __init__(
        self, trainer: Trainer, description: Description, evidence: Sequence[Evidence] | None
    ) -> None:
        self._trainer, self._description = trainer, description
        self._reference = by_shape(evidence)
        self._own: Mapping[str, Array] | None = None

    def __call__(self, ours: Bone, theirs: Bone) -> float:
        """Largest relative distance of the gradients in equal roles; 0 where nothing is known."""
        if self._reference is None or not self._reference.gradients or not ours.node.parameters:
            return 0.0
        if self._own is None:
            binding, schema = self._description.binding, self._description.schema
            self._own = observe(self._trainer, binding, schema, self._reference.case, {}).gradients
        distances = [0.0]
        for role, name in ours.node.parameters.items():
            one = self._reference.gradients.get(name)
            two = self._own.get(theirs.node.parameters.get(role, ""))
            if one is not None and two is not None and one.shape == two.shape:
                size = float(np.linalg.norm(one)) + float(np.linalg.norm(two))
                distances.append(float(np.linalg.norm(one - two)) / size if size else 0.0)
        # Rounded: what differs by noise alone is equal, and then the name decides.
        return round(max(distances), 2)
