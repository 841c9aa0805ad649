"""Sees the parameters of a candidate cut as the reference's are: one matrix against two, several axes against one.

``[x, y] @ W`` and ``x @ U + y @ V`` are one function, and W holds U and V; a kernel of three axes may lie in two. What fits by its
lengths is a proposal: equal weights by shape give equal outputs in the right one alone.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, permutations, product

from xbackend_fl.canonical import Binding, Kind, Parameter, Schema, views
from xbackend_fl.canonical.layout import Join, Layout, Shape, Stack
from xbackend_fl.errors import UnsupportedError

MAX = 32
"""Most ways of cutting that are proposed."""

_PARTS = 4
"""Most parts of one parameter."""


@dataclass(frozen=True)
class _Cut:
    """A candidate's parameters that are taken together or apart: ``made`` are the shapes that the reference has for them.

    ``layouts`` says how to make them, in every way in which the lengths allow it.
    """

    used: tuple[str, ...]
    made: tuple[str, ...]
    layouts: tuple[tuple[Layout, ...], ...]


def recut(schema: Schema, own: Schema, binding: Binding, until: float) -> Iterator[tuple[Schema, Binding]]:
    """A candidate's schema and binding with parameters of the lengths that the reference's have, in every way that fits.

    Nothing if they have these lengths as they are.

    Args:
        schema: The reference's schema.
        own: The candidate's.
        binding: The candidate's own binding.
        until: When the search ends, in the seconds of ``time.process_time``: there may be very many ways.
    """
    ours, theirs = _spare(schema, own), _spare(own, schema)
    if not ours and not theirs:
        return
    every = (
        _changed(own, binding, cuts, choice)
        for cuts in _plans(ours, theirs, binding.parameters, until)
        for choice in product(*(cut.layouts for cut in cuts))
    )
    yield from islice(every, MAX)


def length_class(parameter: Parameter) -> tuple[tuple[int, ...], str]:
    """What a parameter is, whatever the order of its axes: lengths above one, and how it trains."""
    return tuple(sorted(_long(parameter.shape))), _kind(parameter)


def _spare(one: Schema, other: Schema) -> list[Parameter]:
    """Parameters of one side of whose lengths the other has more or fewer, the largest first."""
    counts, others = _counted(one.parameters), _counted(other.parameters)
    found = [item for item in one.parameters if counts[length_class(item)] != others[length_class(item)]]
    return sorted(found, key=lambda item: -math.prod(item.shape))


def _counted(parameters: Sequence[Parameter]) -> Counter[Hashable]:
    return Counter(map(length_class, parameters))


def _more(one: Sequence[Parameter], other: Sequence[Parameter]) -> Parameter | None:
    """The largest of one side of whose lengths the other has fewer."""
    spare = _counted(one) - _counted(other)
    return next((item for item in one if spare[length_class(item)]), None)


def _plans(
    ours: Sequence[Parameter], theirs: Sequence[Parameter], layouts: Mapping[str, Layout], until: float
) -> Iterator[list[_Cut]]:
    """Ways to make as many of the candidate's parameters of every length as the reference has."""
    first, whole = _more(ours, theirs), _more(theirs, ours)
    if first is None and whole is None:
        yield []
    if first is None or whole is None:
        return
    for cut in _cuts(first, whole, ours, theirs, layouts, until):
        rest = [item for item in ours if item.name not in cut.made]
        more = [item for item in theirs if item.name not in cut.used]
        yield from ([cut, *plan] for plan in _plans(rest, more, layouts, until))


def _cuts(
    first: Parameter,
    whole: Parameter,
    ours: Sequence[Parameter],
    theirs: Sequence[Parameter],
    layouts: Mapping[str, Layout],
    until: float,
) -> Iterator[_Cut]:
    """Cuts that make ``first`` of the candidate's parameters, or that take ``whole`` apart."""
    for item in theirs:
        alike = _kind(item) == _kind(first) and math.prod(item.shape) == math.prod(first.shape)
        turned = _regrouped(layouts[item.name], first.shape) if alike else ()
        if made := tuple((layout,) for layout in turned):
            yield _Cut((item.name,), (first.name,), made)
    for parts in _choices(first, theirs, until):
        joined = [layouts[item.name] for item in parts]
        if made := tuple((layout,) for how in (_joined, _stacked) for layout in how(joined, first.shape)):
            yield _Cut(tuple(item.name for item in parts), (first.name,), made)
    for parts in _choices(whole, ours, until):
        if cut := tuple(_apart(layouts[whole.name], [item.shape for item in parts])):
            yield _Cut((whole.name,), tuple(item.name for item in parts), cut)


def _choices(whole: Parameter, items: Sequence[Parameter], until: float) -> Iterator[tuple[Parameter, ...]]:
    """Two or more parameters in every order that together have as many values as ``whole``."""
    alike = [item for item in items if _kind(item) == _kind(whole)]
    for count in range(2, min(_PARTS, len(alike)) + 1):
        for parts in permutations(alike, count):
            if time.process_time() > until:
                return
            if sum(math.prod(item.shape) for item in parts) == math.prod(whole.shape):
                yield parts


def _regrouped(layout: Layout, shape: Shape) -> Iterator[Layout]:
    """One parameter with the lengths of ``shape``: an axis taken apart, or axes made one."""
    inner, outer = _long(layout.shape), _long(shape)
    if len(outer) > len(inner):
        yield from (views.reshaped(layout, finer) for finer in _finer(inner, outer))
        return
    for order in permutations(range(len(inner))):
        turned = tuple(inner[axis] for axis in order)
        for coarse in dict.fromkeys(permutations(outer)):
            if _covers(coarse, turned):
                short = views.transposed(views.reshaped(layout, inner), order)
                yield views.reshaped(short, coarse)


def _finer(inner: Shape, outer: Shape) -> Iterator[Shape]:
    """The orders of the lengths ``outer`` in which those of ``inner`` are products of neighbours."""
    for order in dict.fromkeys(permutations(outer)):
        if _covers(inner, order):
            yield order


def _covers(coarse: Sequence[int], fine: Sequence[int]) -> bool:
    """Whether each coarse length is the product of the next fine ones."""
    rest = list(fine)
    for length in coarse:
        found = 1
        while rest and found < length:
            found *= rest.pop(0)
        if found != length:
            return False
    return not rest


def _joined(parts: Sequence[Layout], shape: Shape) -> Iterator[Layout]:
    """Parts one behind the other on one axis, as lengths of ``shape`` allow it."""
    wanted = list(_long(shape))
    for length in sorted(set(wanted)):
        rest = [*wanted]
        rest.remove(length)
        turned = [_with_last(part, rest) for part in parts]
        if all(part is not None for part in turned) and sum(p.shape[-1] for p in turned if p) == length:
            yield Join(tuple(part for part in turned if part is not None), len(rest))


def _stacked(parts: Sequence[Layout], shape: Shape) -> Iterator[Layout]:
    """Parts of one shape as the rows of one matrix, their own axes in any order made those that ``shape`` has."""
    inner, wanted = _long(parts[0].shape), list(_long(shape))
    if len(parts) not in wanted or any(_long(part.shape) != inner for part in parts):
        return
    wanted.remove(len(parts))
    rest = tuple(wanted)
    if len(rest) == len(inner):
        return
    for order in dict.fromkeys(permutations(range(len(inner)))):
        if _covers(rest, [inner[axis] for axis in order]):
            turned = [views.transposed(views.reshaped(part, inner), order) for part in parts]
            yield Stack(tuple(views.reshaped(part, rest) for part in turned))


def _with_last(layout: Layout, rest: Sequence[int]) -> Layout | None:
    """A layout with the axes of lengths ``rest`` first and what is left behind them."""
    short = list(_long(layout.shape))
    order: list[int] = []
    for length in rest:
        place = next((axis for axis, n in enumerate(short) if n == length and axis not in order), None)
        if place is None:
            return None
        order.append(place)
    left = [axis for axis in range(len(short)) if axis not in order]
    if len(left) > 1:
        return None
    turned = views.transposed(views.reshaped(layout, tuple(short)), (*order, *left))
    return turned if left else views.reshaped(turned, (*rest, 1))


def _apart(layout: Layout, shapes: Sequence[Shape]) -> Iterator[tuple[Layout, ...]]:
    """One parameter cut into parts of such lengths, one behind the other on one axis."""
    short = _long(layout.shape)
    for axis, length in enumerate(short):
        rest = sorted(n for place, n in enumerate(short) if place != axis)
        sizes = [math.prod(shape) // math.prod(rest) for shape in shapes]
        wanted = [sorted(n for n in (*rest, size) if n > 1) for size in sizes]
        if sum(sizes) != length or wanted != [sorted(_long(shape)) for shape in shapes]:
            continue
        whole, start, parts = views.reshaped(layout, short), 0, []
        try:
            for size in sizes:
                parts.append(views.slice_axis(whole, axis, start, start + size))
                start += size
        except UnsupportedError:
            continue
        yield tuple(parts)


def _changed(
    own: Schema, binding: Binding, cuts: Sequence[_Cut], choice: Sequence[tuple[Layout, ...]]
) -> tuple[Schema, Binding]:
    """The candidate with the chosen layouts in the place of the parameters that they are made of."""
    parameters = {item.name: item for item in own.parameters}
    layouts = dict(binding.parameters)
    names: dict[str, list[str]] = {}
    for cut, made in zip(cuts, choice, strict=True):
        first = parameters[cut.used[0]]
        new = [f"{'+'.join(cut.used)}/{index}" for index in range(len(made))]
        for name in cut.used:
            names[name] = new
            del parameters[name], layouts[name]
        parameters |= {
            name: replace(first, name=name, shape=layout.shape)
            for name, layout in zip(new, made, strict=True)
        }
        layouts |= dict(zip(new, made, strict=True))
    nodes = tuple(
        replace(
            node,
            parameters={
                role if not index else f"{role}/{index}": name
                for role, old in node.parameters.items()
                for index, name in enumerate(names.get(old, [old]))
            },
        )
        for node in own.nodes
    )
    schema = replace(own, nodes=nodes, parameters=tuple(parameters.values()))
    return schema, replace(binding, parameters=layouts)


def _long(shape: Sequence[int]) -> Shape:
    return tuple(n for n in shape if n > 1)


def _kind(parameter: Parameter) -> str:
    role = parameter.role if parameter.kind in {Kind.STATISTIC, Kind.COUNTER} else ""
    return f"{parameter.kind}{role}"
