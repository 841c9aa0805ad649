"""How a loss reads an output and its targets: which axis holds the classes, which positions count, what a target may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import QUANTITIES, BuiltIn, Loss
from xbackend_fl.metrics.features import feature_axis

Array = NDArray[Any]
Shape = tuple[int, ...]

_LARGEST = float(np.sqrt(np.finfo(np.float32).max)) / 2
"""A larger target has a squared error, or a squared derivative of it (twice the error), that is infinite in float32."""


class Fault(NamedTuple):
    """A target that the loss does not accept.

    Attributes:
        row: Its row in the array of targets.
        reason: What it is and what was expected, in one line.
    """

    row: int
    reason: str


@final
@dataclass(frozen=True)
class Objective:
    """A loss over one output and its targets, in ONNX layout.

    Attributes:
        loss: The loss.
        output: Shape of the output, without the batch axis.
        class_axis: Axis of the output, the batch counted, that holds the classes; ``None`` where there are no classes.
        ignore_index: Targets of this value do not count; ``None`` if all count.
        note: How the class axis was found, where the shapes alone leave it open.
        asked: The mean loss of outputs and targets, both in ONNX layout, where only a backend can compute it.
    """

    loss: Loss
    output: Shape
    class_axis: int | None = None
    ignore_index: int | None = None
    note: str = ""
    asked: Callable[[Array, Array], float] | None = field(default=None, compare=False, repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 where there are none."""
        return 0 if self.class_axis is None else self.output[self.class_axis - 1]

    @property
    def targets(self) -> Shape:
        """Shape of the targets, without the batch axis."""
        return tuple(n for axis, n in enumerate(self.output, 1) if axis != self.class_axis)

    def arranged(self, targets: Array) -> Array:
        """Targets ``[N, ...]`` in :attr:`targets`' shape: axes of length 1 come and go, nothing else does (a view)."""
        return targets.reshape(len(targets), *self.targets)

    def prepared(self, targets: Array) -> Array:
        """Targets ``[N, ...]`` as a model trains on them, in ONNX layout: class indices as int64, everything else as float32."""
        dtype = np.float32 if self.class_axis is None else np.int64
        return self.arranged(targets).astype(dtype, copy=False)

    def layout_note(self, perm: tuple[int, ...]) -> str:
        """What is said of targets that would also fit the model's own order of axes; empty where their shape tells the order.

        Args:
            perm: Axis ``i`` of the model's own output is axis ``perm[i]`` of the ONNX layout.
        """
        sizes = (0, *self.output)
        # An axis of length 1 may stand anywhere.
        own = [axis for axis in perm if axis and axis != self.class_axis and sizes[axis] != 1]
        lengths = [sizes[axis] for axis in own]
        if own == sorted(own) or lengths != [sizes[axis] for axis in sorted(own)]:
            return ""
        return (
            f"the targets, {_shown(self.targets)}, are read in ONNX layout; the model's own output has these axes in the order "
            f"{', '.join(str(axis) for axis in own)}, which the shape does not show, because they have the same lengths"
        )

    def counted(self, targets: Array) -> Array | None:
        """Where targets count, bool in their shape; ``None`` if all do."""
        return None if self.ignore_index is None else targets != self.ignore_index

    def counting(self, targets: Array) -> Objective:
        """The same, and without :attr:`ignore_index` if no target has that value: nothing then has to be left out."""
        counted = self.counted(targets)
        return replace(self, ignore_index=None) if counted is None or counted.all() else self

    def fault(self, targets: Array) -> Fault | None:
        """The first target that the loss does not accept; ``None`` if it accepts all.

        Args:
            targets: ``[N, ...]``, numbers. May be a block of a larger array.
        """
        if not len(targets):
            return None
        counted = self.counted(targets)
        bad = ~self._accepted(targets)
        if counted is not None:
            bad &= counted
        if not bad.any():
            return None
        place = np.unravel_index(int(np.argmax(bad)), bad.shape)
        return Fault(
            int(place[0]), f"the target {targets[place].item()!r}{_where(place)} is not {self.accepts}"
        )

    @property
    def accepts(self) -> str:
        """What a target may be, in words."""
        match self.loss.targets:
            case "counts":
                return f"a number from 0 to {_LARGEST:.1e}"
            case "classes":
                words = f"a class of the model, 0 to {self.num_classes - 1}"
            case "shares":
                words = "a number from 0 to 1"
            case "values":
                return f"a number up to {_LARGEST:.1e}, whose squared error and its derivative's square float32 has"
        return words if self.ignore_index is None else f"{words}, nor ignore_index {self.ignore_index}"

    def _accepted(self, targets: Array) -> NDArray[np.bool_]:
        kind = self.loss.targets
        if kind in QUANTITIES:
            with np.errstate(invalid="ignore"):
                within: NDArray[np.bool_] = np.abs(targets) <= _LARGEST
            return within & (targets >= 0) if kind == "counts" else within
        high = self.num_classes - 1 if kind == "classes" else 1
        # Comparisons with NaN are false.
        good: NDArray[np.bool_] = (targets >= 0) & (targets <= high)
        if kind == "classes" and targets.dtype.kind == "f":
            good &= targets == np.floor(targets)
        return good


def objective_of(
    schema: Schema,
    loss: Loss,
    targets: Array,
    *,
    place: int = 0,
    class_axis: int | None = None,
    ignore_index: int | None = None,
) -> Objective:
    """How a loss reads an output of a model and these targets.

    Args:
        schema: The model's schema, described at an example of the size of the data.
        loss: The loss.
        targets: ``[N, ...]``; their kind of number and their shape are looked at here, their values by :meth:`Objective.fault`.
        place: The place of the output.
        class_axis: The declared axis of the classes, the batch counted; negative ones count from the end. It decides where
            the shapes leave several.
        ignore_index: Targets of this value do not count, if the loss has classes or shares.

    Raises:
        ConfigError: The targets are no numbers, or no axis of the output can hold the classes, or several can.
    """
    output, kind = schema.outputs[place].shape[1:], loss.targets
    if targets.dtype.kind not in "biuf":
        raise ConfigError(
            f"the targets are of dtype {targets.dtype}, which are no numbers",
            hint="class indices as int64, everything else as float32",
        )
    if not targets.ndim:
        raise ConfigError("the targets are one number, expected an array with one row per example")
    if kind in QUANTITIES:
        ignore_index = None
    if kind != "classes":
        if not _alike(output, targets.shape[1:]):
            raise ConfigError(
                f"{loss.name} compares an output {_shown(output)} with targets {_shown(targets.shape[1:])}",
                hint=f"give targets {_shown(output)}, in ONNX layout, or change the last layer of every model"
                if isinstance(loss, BuiltIn)
                else f"training.loss: {{…, targets: classes}}, if these are classes; or give targets {_shown(output)}",
            )
        return _fit(Objective(loss, output, None, ignore_index))
    axis, note = _class_axis(schema, place, targets.shape[1:], class_axis)
    if output[axis - 1] < 2:
        raise ConfigError(
            f"{loss.name} chooses between classes, and the output {_shown(output)} has one",
            hint="training.loss: binary_cross_entropy for one logit, or a last layer with one output per class",
        )
    return _fit(Objective(loss, output, axis, ignore_index, note))


def _fit(found: Objective) -> Objective:
    if reason := found.loss.unfit(found.output, found.class_axis):
        raise ConfigError(f"training.loss: {found.loss.name}: {reason}")
    return found


def _class_axis(schema: Schema, place: int, targets: Shape, declared: int | None) -> tuple[int, str]:
    """The axis of the output that targets lack, and how it was found where several would do."""
    output = schema.outputs[place].shape[1:]
    axes = range(1, len(output) + 1)
    rest = {axis: output[: axis - 1] + output[axis:] for axis in axes}
    found = [axis for axis in axes if rest[axis] == targets] or [
        axis for axis in axes if _alike(rest[axis], targets)
    ]
    # A single class is no choice; it is refused later unless another axis will do.
    found = [axis for axis in found if output[axis - 1] > 1] or found
    if declared is not None:
        axis = declared if declared >= 0 else len(output) + 1 + declared
        if axis not in found:
            raise ConfigError(_unlike(output, targets) + f", and training.class_axis is {declared}")
        return axis, ""
    if not found:
        raise ConfigError(_unlike(output, targets), hint=_cure(output, targets, feature_axis(schema, place)))
    if len(found) == 1:
        return found[0], ""
    features = feature_axis(schema, place)
    if features in found:
        name = schema.outputs[place].name
        return (
            features,
            f"the classes are axis {features} of the output {_shown(output)}: there {name!r} has its features",
        )
    raise ConfigError(
        f"the classes may be each of the axes {', '.join(map(str, found))} of the output {_shown(output)}: "
        f"without any of them it is the shape of the targets, {_shown(targets)}",
        hint=f"training.class_axis: {found[0]}, or {found[-1]}; axes are counted in ONNX layout, the batch is 0",
    )


def _cure(output: Shape, targets: Shape, features: int | None) -> str:
    if output and _alike(output, targets):
        return "targets are class indices, not one-hot rows: np.argmax(targets, axis) over the axis of the classes"
    if not output:
        return "the model returns one number per example: training.loss: binary_cross_entropy or mean_squared_error"
    axis = len(output) if features is None else features
    rest = output[: axis - 1] + output[axis:]
    return (
        f"give targets {_shown(rest)} for {output[axis - 1]} classes, or change the last layer of every model; "
        "shapes are in ONNX layout"
    )


def _unlike(output: Shape, targets: Shape) -> str:
    return (
        f"a loss of classes needs targets in the shape of the output without its class axis: the output is {_shown(output)}, "
        f"the targets are {_shown(targets)}"
    )


def _alike(one: Shape, other: Shape) -> bool:
    """Whether two shapes differ in axes of length 1 only."""
    return [n for n in one if n != 1] == [n for n in other if n != 1]


def _shown(shape: Shape) -> str:
    return f"[{', '.join(['N', *map(str, shape)])}]"


def _where(place: tuple[Any, ...]) -> str:
    inner = ", ".join(str(int(index)) for index in place[1:])
    return f" at [{inner}]" if inner else ""
