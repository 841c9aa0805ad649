"""What a loss is: the kind of its targets, and one arithmetic for every framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from annotated_types import Ge, Le

from xbackend_fl.losses.operations import Operations
from xbackend_fl.registry import Registered

Targets: TypeAlias = Literal["classes", "shares", "values", "counts"]
"""``classes``: whole numbers, in the shape of the output without its class axis. ``shares``: numbers from 0 to 1; ``values``: any finite numbers;
``counts``: numbers from 0 on. The last three are in the shape of the output."""

QUANTITIES: frozenset[Targets] = frozenset({"values", "counts"})
"""Targets of which all count: no number of theirs is free to say that it does not."""

LARGEST_WEIGHT = 1e6

Weight: TypeAlias = Annotated[float, Ge(0), Le(LARGEST_WEIGHT)]

Kernel: TypeAlias = Literal["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"]


LARGEST_OUTPUT = float(np.finfo(np.float32).max)
LARGEST_TARGET = math.sqrt(LARGEST_OUTPUT)
"""Beyond it a squared error is infinite in float32."""


class Loss(Protocol):
    """A loss over one output and its targets: frozen plain data, equal where it computes the same.

    Its value over a batch is the sum of :meth:`each` divided by the sum of :meth:`weights`, over the positions that count. Which these are, and where
    the classes lie, is no business of a loss.
    """

    @property
    def name(self) -> str:
        """What courses and messages call it."""
        ...

    @property
    def targets(self) -> Targets:
        """What its targets are."""
        ...

    @property
    def applies(self) -> frozenset[str]:
        """Activations, by ONNX operator, that it computes itself: the model must not end in one."""
        ...

    @property
    def metric(self) -> str:
        """What chooses the best weights unless a course says otherwise."""
        ...

    @property
    def kernel(self) -> Kernel | None:
        """The operation that :meth:`each` is and nothing more: a framework may have one kernel for it and its mean."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """No position of float32 outputs and targets that fit has a smaller or a larger value of :meth:`each`."""
        ...

    @property
    def weighs(self) -> bool:
        """Whether :meth:`weights` gives anything."""
        ...

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """The loss of every position, in the shape of the targets.

        Args:
            outputs: A tensor of floats, or an array.
            targets: Classes as int64; else as the outputs.
            ops: Operations on such tensors.
        """
        ...

    def weights(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """What every position counts in the mean, in the shape of the targets; ``None`` if all count alike."""
        ...

    def unfit(self, output: tuple[int, ...], class_axis: int | None) -> str:
        """Why it is not defined for an output of this shape; empty if it is.

        Args:
            output: Without the batch axis.
            class_axis: Where the classes are, the batch counted.
        """
        ...


class Plain:
    """What a loss says that is no operation of a framework, and in whose mean all positions count alike."""

    @property
    def kernel(self) -> Kernel | None:
        """None: its arithmetic is computed as it is written."""
        return None

    @property
    def weighs(self) -> bool:
        """All positions count alike."""
        return False

    def weights(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        """All positions count alike."""
        del outputs, targets, ops

    def unfit(self, output: tuple[int, ...], class_axis: int | None) -> str:
        """Any output will do."""
        del output, class_axis
        return ""


@dataclass(frozen=True)
class BuiltIn(Registered, Plain):
    """What most losses have in common. The fields of a loss are the keys of ``training.loss``."""

    targets: ClassVar[Targets] = "values"
    applies: ClassVar[frozenset[str]] = frozenset()
    metric: ClassVar[str] = "loss"
    name: str

    @property
    def bounds(self) -> tuple[float, float]:
        """From zero on."""
        return 0.0, math.inf
