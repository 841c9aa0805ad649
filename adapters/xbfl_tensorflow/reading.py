"""Chooses in which order of axes a model reads its inputs: what it declares, what its first layers say, what it takes at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, product
from typing import Any

from xbackend_fl.adapter.calling import Way
from xbackend_fl.adapter.contract import Array
from xbackend_fl.canonical import Axes
from xbfl_tensorflow.axes import Shape, infer_axes, orders_of
from xbfl_tensorflow.preserve import is_unbuilt, layers_kept, unbuilt_kept
from xbfl_tensorflow.trace import Trace, call_once, raised

Traced = Callable[[Sequence[Axes]], Trace]

_MAX = 64
"""Most ways of reading all inputs that are tried."""

_ONLY = "the model takes no other order"


def read_as_declared(
    traced: Traced, batch: Sequence[Array], given: Sequence[Axes], declared: Sequence[Shape]
) -> tuple[list[Axes], Trace]:
    """How a model that declares its inputs reads them, and its graph."""
    found = traced(given)
    inferred = _inferred(found, batch, given, declared)
    return inferred, found if _same(inferred, given) else traced(inferred)


def read_as_called(
    model: Any,
    way: Way,
    traced: Traced,
    batch: Sequence[Array],
    given: Sequence[Axes],
    declared: Sequence[Shape],
) -> tuple[list[Axes], Trace]:
    """How a model that declares nothing reads its inputs, and its graph; it has its variables afterwards.

    The usual order, unless the model takes another one alone; then what its first layers say, if it takes that.

    Raises:
        UnsupportedError: It takes the data in no order, or in several and not in the usual one.
    """
    unbuilt = is_unbuilt(model)
    chosen = list(given) if takes(model, way, given, batch) else _only_one(model, way, batch, given)
    # A first call in another order may give layers variables of other shapes: they are not built by a trial.
    with layers_kept(model), unbuilt_kept(model):
        call_once(model, way, _own(chosen, batch))
        found = traced(chosen)
    inferred = _inferred(found, batch, chosen, declared)
    if not _same(inferred, chosen) and not takes(model, way, inferred, batch):
        inferred = [Axes(axes.perm, axes.note or _ONLY, axes.trailing) for axes in chosen]
    if not unbuilt and _same(inferred, chosen):
        return inferred, found
    call_once(model, way, _own(inferred, batch))
    return inferred, traced(inferred)


def _only_one(model: Any, way: Way, batch: Sequence[Array], given: Sequence[Axes]) -> list[Axes]:
    """The only way of reading all inputs that a model takes; the usual one if there are none or several."""
    options = [
        [axes]
        if axes.note
        else [Axes(order, _ONLY if order != axes.perm else "") for order in orders_of(array.ndim)]
        for axes, array in zip(given, batch, strict=True)
    ]
    every = islice(product(*options), 1, _MAX)
    found = [list(choice) for choice in every if takes(model, way, choice, batch)]
    return found[0] if len(found) == 1 else list(given)


def takes(model: Any, way: Way, axes: Sequence[Axes], batch: Sequence[Array]) -> bool:
    """Whether a model takes examples, given in its own order of inputs, when they are turned so."""
    return refusal(model, way, axes, batch) is None


def refusal(model: Any, way: Way, axes: Sequence[Axes], batch: Sequence[Array]) -> BaseException | None:
    """What a model raises then; it has no more variables afterwards than before."""
    with layers_kept(model), unbuilt_kept(model):
        return raised(model, way, _own(axes, batch))


def _own(axes: Sequence[Axes], batch: Sequence[Array]) -> list[Array]:
    return [one.to_native(array) for one, array in zip(axes, batch, strict=True)]


def _inferred(
    found: Trace, batch: Sequence[Array], given: Sequence[Axes], declared: Sequence[Shape]
) -> list[Axes]:
    rows = zip(batch, given, declared, strict=True)
    return [infer_axes(found, index, *row) for index, row in enumerate(rows)]


def _same(one: Sequence[Axes], two: Sequence[Axes]) -> bool:
    return [axes.perm for axes in one] == [axes.perm for axes in two]
