"""How the axes of a value lie where it leaves the model, and where axes of length one come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xbackend_fl.canonical.binding import Axes
from xbackend_fl.canonical.graph.recorder import Recorder
from xbackend_fl.canonical.layout import Shape, inverse
from xbackend_fl.canonical.value import Value, without
from xbackend_fl.errors import UnsupportedError


def check_returned(value: Value, *, first: bool) -> None:
    """Refuse what a model returns if another model cannot return the same, or nothing can be trained on it.

    Args:
        value: The output.
        first: Whether it is the first one, which the loss is computed of.

    Raises:
        UnsupportedError: It is flattened in an order of its own, or the first output has no batch.
    """
    if value.order is not None:
        raise UnsupportedError(
            "the model returns flattened channels-last features, whose order another model cannot share",
            hint="end the model with a Dense layer or with global pooling",
        )
    if not value.shape and first:
        raise UnsupportedError(
            "the model returns one number for the whole batch",
            hint="return something of every example, and take the mean in the loss",
        )


def returned_axes(perm: tuple[int, ...], inputs: Sequence[Axes], declared: tuple[int, ...] | None) -> Axes:
    """The order of an output's axes; see :meth:`GraphBuilder.output`.

    Args:
        perm: How they lie in the graph: native axis ``i`` is canonical axis ``perm[i]``.
        inputs: Orders of the inputs.
        declared: The order in which the user says that it is returned.
    """
    rank = len(perm)
    plain, last = tuple(range(rank)), (0, *range(2, rank), 1)
    if declared is not None:
        return Axes(declared, "declared")
    if perm == last != plain:
        return Axes(perm, "channels last")
    if perm != plain and any(axes.perm[:1] not in {(), (0,)} for axes in inputs):
        return Axes(perm, "follows the axes of the graph")
    return Axes(plain, "as returned")


def without_singletons(value: Value, shape: Shape) -> tuple[Shape, tuple[int, ...]]:
    """Canonical shape and order of ``value`` reshaped to the native ``shape``, where only axes of length one come or go.

    They are squeezed first and added at the end, so that an image keeps its order.
    """
    native = value.native_shape
    # A batch of one keeps its axis.
    single = bool(native and shape) and native[0] == 1 == shape[0]
    kept = [axis for axis, n in enumerate(native) if n != 1 or (single and axis == 0)]
    new = [axis for axis, n in enumerate(shape) if n == 1 and not (single and axis == 0)]
    old = [axis for axis in range(len(shape)) if axis not in new]
    gone = [value.perm[axis] for axis in range(len(native)) if axis not in kept]
    squeezed = without(value.perm, gone)
    if value.perm == tuple(range(len(native))) and native[1:2] == shape[1:2]:
        return shape, tuple(range(len(shape)))
    placed = dict(zip(old, squeezed, strict=True)) | {axis: len(squeezed) + i for i, axis in enumerate(new)}
    perm = tuple(placed[axis] for axis in range(len(shape)))
    return tuple(shape[axis] for axis in inverse(perm)), perm


def with_leading_ones(recorder: Recorder, value: Value) -> Value:
    """A constant or a parameter with all of its axes: what broadcasts needs no leading ones, and what moves axes counts them."""
    if len(recorder.shape(value.name)) == len(value.shape):
        return value
    (name,) = recorder.add(
        "Reshape", f"{value.name}.reshape", (value.name,), [value.shape], {}, {"shape": value.shape}, None
    )
    return replace(value, name=name)
