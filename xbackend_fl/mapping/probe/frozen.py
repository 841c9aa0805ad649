"""What a model holds and nobody trains: where another model has a constant, its values are the function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding, Kind, Schema
from xbackend_fl.canonical.graph.operands import LARGEST_CONSTANT
from xbackend_fl.canonical.layout import Constant, leaves
from xbackend_fl.mapping.probe.lookups import constants_of, twin_of
from xbackend_fl.mapping.probe.probe import Evidence

Array = NDArray[Any]


def frozen_names(schema: Schema) -> frozenset[str]:
    """Parameters that nobody trains, if they are small enough for constants of a graph."""
    frozen = [item for item in schema.parameters if item.kind is Kind.FROZEN]
    values = sum(math.prod(item.shape) for item in frozen)
    return frozenset(item.name for item in frozen) if values <= LARGEST_CONSTANT else frozenset()


def frozen_values(model: CanonicalModel) -> dict[str, Array]:
    """What a model holds of :func:`frozen_names`, in canonical layout.

    Args:
        model: The model, as its author made it.
    """
    names = frozen_names(model.schema)
    return replace(model, binding=model.binding.subset(names)).read() if names else {}


@dataclass(frozen=True)
class FrozenValues:
    """What both models keep as they hold it: constants of the one, weights that nobody trains of the other.

    Attributes:
        values: The reference's, by canonical name; they were published with its evidence.
        own: The candidate's names in its own schema.
        natives: What the candidate holds of these, by native name.
        evidence: What the reference did with the values that it holds.
        constants: The candidate's own constants for ``values``, where it has them in this form, with the axes of these.
        own_values: What the candidate holds of ``own``, in canonical layout.
    """

    values: dict[str, Array]
    own: frozenset[str]
    natives: dict[str, Array]
    evidence: tuple[Evidence, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    own_values: dict[str, Array] = field(default_factory=dict)

    def notes(self) -> tuple[str, ...]:
        """What is said with the map."""
        both = (("a constant here", self.values), ("a constant of the schema", self.natives))
        return tuple(
            f"{', '.join(sorted(names))}: {what}, and compared with these values only"
            for what, names in both
            if names
        )

    def bound(self, schema: Schema, binding: Binding) -> Binding:
        """The binding of the rest, with the candidate's constants for what the reference holds.

        Where it has none in this form, the reference's values stand, and draws alone speak of them.

        Args:
            schema: The reference's schema.
            binding: Of every parameter that is not held.
        """
        own = self.values | self.constants
        constants = {
            name: Constant(array.shape, tuple(map(float, array.flat))) for name, array in own.items()
        }
        every = {**binding.parameters, **constants}
        return replace(
            binding,
            fingerprint=schema.fingerprint,
            parameters={item.name: every[item.name] for item in schema.parameters},
            local={**binding.local, **dict.fromkeys(self.natives, "holds a constant of the schema")},
        )


def frozen_on_both(
    schema: Schema, model: CanonicalModel, evidence: Sequence[Evidence]
) -> FrozenValues | None:
    """What two models hold; ``None`` if neither holds anything, or what the reference holds was not published.

    Args:
        schema: The reference's schema.
        model: The candidate under its own schema, as its author made it.
        evidence: What the reference did.
    """
    own = model.schema
    names, theirs = frozen_names(schema), frozen_names(own)
    shown = tuple(item for item in evidence if item.case.frozen == bool(names))
    if not (names or theirs) or not shown:
        return None
    statistics = shown[0].statistics
    if not names <= statistics.keys():
        return None
    tensors = {leaf.tensor for name in theirs for leaf in leaves(model.binding.parameters[name])}
    natives = {name: array for name, array in model.trainer.read().items() if name in tensors}
    values = {name: statistics[name] for name in names}
    every = constants_of(own)
    twins = {name: twin_of(array, every) for name, array in values.items()}
    constants = {name: twin.values for name, twin in twins.items() if twin}
    return FrozenValues(values, theirs, natives, shown, constants, frozen_values(model))


def without(schema: Schema, names: frozenset[str]) -> Schema:
    """A schema whose nodes do not name some parameters."""
    if not names:
        return schema
    nodes = tuple(
        replace(node, parameters={role: name for role, name in node.parameters.items() if name not in names})
        for node in schema.nodes
    )
    return replace(
        schema, nodes=nodes, parameters=tuple(item for item in schema.parameters if item.name not in names)
    )
