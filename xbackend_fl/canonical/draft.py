"""A node while its graph still grows: it holds layouts where the finished node holds parameter names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

from xbackend_fl.canonical.layout import Layout, Shape
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.ops import OPERATORS, has
from xbackend_fl.canonical.row import Property


@dataclass(frozen=True)
class Draft:
    """One operator application.

    Attributes:
        name: Unique name.
        operator: Row of the operator table.
        inputs: Names of the values it reads.
        outputs: Names of the values it makes.
        layouts: Role to the layout of the parameter.
        attributes: Attribute name to value.
        origin: Native module or layer.
        shapes: Canonical shapes of the outputs at the example.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    origin: str = ""
    shapes: tuple[Shape, ...] = ()

    @property
    def roles(self) -> list[str]:
        """Roles of the parameters it holds, in the order of the operator's slots."""
        return [slot.role for slot in OPERATORS[self.operator].slots if slot.role in self.layouts]

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return self.shapes[0]


@final
class Graph:
    """Who makes and who reads each value.

    Args:
        drafts: Nodes in execution order.
        outputs: Values that the model returns.
        inputs: Shape and NumPy dtype name of every data input.
    """

    def __init__(
        self, drafts: tuple[Draft, ...], outputs: Iterable[str], inputs: Mapping[str, tuple[Shape, str]]
    ) -> None:
        self.drafts = drafts
        self.inputs = inputs
        self.producers = {value: draft for draft in drafts for value in draft.outputs}
        self.readers: dict[str, list[Draft]] = defaultdict(list)
        for draft in drafts:
            for value in draft.inputs:
                self.readers[value].append(draft)
        self.outputs = frozenset(outputs)

    def only_reader(self, value: str) -> Draft | None:
        """The node that reads ``value``, if there is one and the model does not return it."""
        readers = self.readers[value]
        return readers[0] if len(readers) == 1 and value not in self.outputs else None


def is_zero(value: str, producer: Callable[[str], Draft | None]) -> bool:
    """Whether a value is a constant of zeros, whatever its shape was made.

    Args:
        value: Its name.
        producer: The node that makes a value; ``None`` for a data input.
    """
    draft = producer(value)
    while draft is not None and has(draft.operator, Property.SHAPE_ONLY):
        draft = producer(draft.inputs[0])
    if draft is None or draft.operator != "Constant":
        return False
    numbers = draft.attributes["value"]
    return isinstance(numbers, tuple) and not any(numbers)


def free_sizes(before: Shape, after: Shape) -> Shape:
    """ONNX's target of a reshape from ``before`` to ``after`` that fits other batch and image sizes too.

    Leading axes that stay are 0 (copied), and a single axis behind them, or the first of axes that become one or two there, is -1 (the rest).
    """
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    rest = after[kept:]
    if not kept:
        return (-1, *after[1:])
    merged = len(rest) > 1 and rest[1:] == before[len(before) - len(rest) + 1 :]
    parted = len(rest) > 2 and _long(rest[2:]) == _long(before[2:])
    if kept == 1 and (merged or parted):
        # Axes become one, or one becomes two: it may be examples and steps behind a head or an expert.
        return (0, -1, *rest[1:])
    return ((0,) * kept) + ((-1,) if len(rest) == 1 else rest)


def _long(shape: Shape) -> Shape:
    """The axes that are longer than one."""
    return tuple(n for n in shape if n > 1)
