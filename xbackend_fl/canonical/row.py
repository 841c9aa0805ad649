"""What a row of the operator table says: parameters, attributes, properties and the ONNX nodes that compute it.

Names, layouts and gate orders are ONNX's. The rows themselves are in ``canonical/operators``, a family a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from xbackend_fl.canonical.node import Node
    from xbackend_fl.canonical.onnx_graph import OnnxGraph

OPAQUE = "Opaque"
"""Row of the operations that have no canonical form."""


class Kind(StrEnum):
    """What a parameter is to training, and so how updates of it are merged."""

    TRAINABLE = "trainable"
    STATISTIC = "statistic"
    COUNTER = "counter"
    FROZEN = "frozen"
    LOCAL = "local"
    """Kept by its participant, whatever it is to training; a course says which, no schema does."""


class Effect(StrEnum):
    """What changes when an attribute changes."""

    FUNCTION = "function"
    """The output for the same input: two models must agree."""
    TRAINING = "training"
    """Only training (dropout rate, momentum of running statistics): the schema's value is applied.

    A value that a model cannot be given is absent from its node."""
    SHAPE = "shape"
    """Only the arrangement of values that flow between nodes."""
    NUMBERS = "numbers"
    """Numbers that each framework computed for itself: left to the numeric proof."""


class Property(Flag):
    """What passes, matching, probes and proofs ask of an operator."""

    NONE = 0
    COMMUTATIVE = auto()
    """The order of the data inputs does not matter."""
    ASSOCIATIVE = auto()
    """A node of it that only another node of it reads is one with it."""
    SHAPE_ONLY = auto()
    """Moves values without changing any: matching looks through it."""
    ARITHMETIC = auto()
    """One of the four operations."""
    COMPARES = auto()
    """Compares with a number, or two values."""
    LINEAR = auto()
    """A layer that is linear in its input, with a weight and perhaps a bias."""
    WINDOWED = auto()
    """Makes each value of a window of pixels; strides may leave some out."""
    RECURRENT = auto()
    """A recurrent layer."""
    SERIES = auto()
    """Reads series ``[N, T, F]``: their steps are no examples."""
    NORMALISES = auto()
    """A layer of normalisation."""
    PASSES_FEATURES = auto()
    """A function of single elements behind which, as in front of it, a layer may have its features in another order."""
    KEEPS_PIXELS = auto()
    """What else leaves one pixel where there was one."""
    KEEPS_AXES = auto()
    """The output has its axes where the first input that is data has them."""
    REORDERS = auto()
    """Behind it features may lie in another order."""
    MOVES = auto()
    """What a sigmoid returned is known behind it to the same absolute precision."""
    PICKS = auto()
    """The output is some of the data, or data of several inputs, as it is."""
    KEEPS_INDICES = auto()
    """What is too large for a table in front of it is too large behind it."""
    LOOKS_UP = auto()
    """Reads places of its first input."""
    GATES = auto()
    """A function of elements that is computed for each part of a layer that is cut behind it."""
    BOUNDS = auto()
    """Its numbers are bounds: above one it does something else than below."""
    NOT_NEGATIVE = auto()
    """No value is negative."""
    UNBOUNDED = auto()
    """May be infinite, or no number, where the input is neither."""
    KINKED = auto()
    """Its derivative jumps: a probe that sees one side only does not tell it from a line."""
    SATURATES = auto()
    """Large numbers bring it to a bound, where gradients are little but rounding."""
    DIVIDES = auto()
    """Divides by what depends on data, takes roots or logarithms, or may: an epsilon may stand there."""
    ROUNDS = auto()
    """Rounds to whole numbers."""
    EXACT = auto()
    """Makes sums and products of halves that float32 holds as they are."""
    CARRIES_BIAS = auto()
    """A bias in front of it moves what is behind it."""
    REWRITTEN = auto()
    """Its attributes move to other nodes when an expression is written differently."""


@dataclass(frozen=True)
class Slot:
    """A parameter of an operator.

    Attributes:
        role: Our name for it, the last part of a canonical parameter name.
        formal: The formal input of the ONNX operator that it feeds.
        axes: Canonical axis order in words.
        kind: Its kind unless the model freezes it.
        fan_in_axes: Axes whose product is the fan-in of one output; used to draw informative values.
        out_axis: The axis that counts the features that come out of a layer; ``None`` if none does.
        in_axis: The axis that counts what goes in: features, or rows of a vocabulary; ``None`` if none does.
    """

    role: str
    formal: str
    axes: str
    kind: Kind = Kind.TRAINABLE
    fan_in_axes: tuple[int, ...] = ()
    out_axis: int | None = None
    in_axis: int | None = None


Expansion: TypeAlias = "Callable[[OnnxGraph, Node], None]"
"""Adds what one node is in ONNX."""


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        name: ONNX operator name.
        slots: Parameters, in the order of the ONNX formal inputs.
        attributes: Attribute name to its effect.
        properties: What is asked of operators in more places than one.
        expansion: Adds its nodes to an ONNX graph; ``None`` where name, slots and attributes are ONNX's own.
        feature_axis: Axis of the output along which a layer makes features; ``None`` if it makes none.
        dtypes: NumPy dtype names of its outputs; empty for the dtype of the data, which further outputs have too.
        data: Which input has the dtype of the data.
        note: Where the node is wider than the ONNX operator of that name.
    """

    name: str
    slots: tuple[Slot, ...] = ()
    attributes: Mapping[str, Effect] = field(default_factory=dict)
    properties: Property = Property.NONE
    expansion: Expansion | None = None
    feature_axis: int | None = None
    dtypes: tuple[str, ...] = ()
    data: int = 0
    note: str = ""

    def has(self, properties: Property) -> bool:
        """Whether it has one of the properties."""
        return bool(self.properties & properties)

    def slot(self, role: str) -> Slot:
        """The slot of ``role``."""
        return next(slot for slot in self.slots if slot.role == role)

    def effect(self, attribute: str) -> Effect:
        """The effect of ``attribute``."""
        return self.attributes[attribute]

    @property
    def features_first(self) -> bool:
        """Whether it is linear, and axis 0 of all its parameters counts the features that it makes."""
        return self.has(Property.LINEAR) and self.slot("weight").out_axis == 0


def attributes(effect: Effect, *names: str) -> dict[str, Effect]:
    """Attributes of one effect."""
    return dict.fromkeys(names, effect)
