"""In what order two models read the same features, told by columns of gradients that agree.

Where all features weigh alike (``draw.draw_by_shape``), the gradient of a weight says for every feature what value it had, and
equal values make equal columns. A flattened image, a reshape of patches and a grouping of heads are orders that a few lengths
and their permutation explain; any other order is an index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical.layout import Blocks, Layout, Reorder, Segment, feature_order
from xbackend_fl.mapping.probe.norms import norm_of
from xbackend_fl.mapping.probe.sketch import columns

Array = NDArray[Any]
Order = Segment | tuple[int, ...] | None
"""How features of a candidate lie: as the reference's (``None``), by lengths and their permutation, or one by one."""

EQUAL = 1e-2
"""Largest relative difference of columns of one feature."""

_SOME = 16
_LARGEST = 1 << 13
"""Most features of which an order is looked for that no lengths explain."""


def feature_distance(expected: Array, gradient: Array, axis: int) -> tuple[float, Order]:
    """How far apart two gradients are in the best order of features, from 0 to 1, and that order.

    Args:
        expected: The reference's columns, ``[4, features]``.
        gradient: The candidate's gradient.
        axis: Its axis of features.
    """
    received = columns(gradient, axis)
    if expected.shape != received.shape:
        return 1.0, None
    best = _distance(expected, received)
    if best <= EQUAL:
        return best, None
    # Both hold the same columns, or no order helps.
    if _distance(np.sort(expected, 1), np.sort(received, 1)) > EQUAL:
        return best, None
    for segment in _segments(expected.shape[1]):
        places = feature_order((segment,))
        if _distance(expected[:, places[:_SOME]], received[:, :_SOME]) > EQUAL:
            continue
        if (distance := _distance(expected[:, places], received)) <= EQUAL:
            return distance, segment
    if expected.shape[1] <= _LARGEST:
        nearest = _nearest(expected, received)
        if len(set(nearest)) == len(nearest):
            return _distance(expected[:, list(nearest)], received), nearest
    return best, None


def ordered(layout: Layout, axis: int, order: Order) -> Layout:
    """A candidate's layout with its features in the reference's order."""
    if order is None:
        return layout
    if isinstance(order, Segment):
        return Reorder(layout, axis, (order,))
    return Blocks(layout, axis, tuple(int(place) for place in np.argsort(order)))


def _distance(one: Array, two: Array) -> float:
    size = norm_of(one) + norm_of(two)
    return norm_of(one - two) / size if size else 0.0


def _segments(count: int) -> Iterator[Segment]:
    """Ways to see features as two, three or four axes in another order."""
    divisors = [n for n in range(2, count) if count % n == 0]
    for first in divisors:
        yield Segment((first, count // first), (1, 0))
    for parts in (3, 4):
        turns = [turn for turn in permutations(range(parts)) if not _merges(turn)]
        for shape in _factors(count, parts, divisors):
            yield from (Segment(shape, turn) for turn in turns)


def _merges(turn: tuple[int, ...]) -> bool:
    """Whether two axes stay beside each other: fewer axes say the same."""
    return any(two == one + 1 for one, two in pairwise(turn))


def _factors(count: int, parts: int, divisors: list[int]) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        if count > 1:
            yield (count,)
        return
    for first in divisors:
        if count % first == 0 and first < count:
            yield from ((first, *rest) for rest in _factors(count // first, parts - 1, divisors))


def _nearest(expected: Array, received: Array) -> tuple[int, ...]:
    """For every column received, the place of the closest one expected."""
    wide, squares = expected.astype(np.float64), np.square(expected.astype(np.float64)).sum(0)
    found: list[int] = []
    step = max(1, (1 << 22) // math.prod(expected.shape[1:]))
    for start in range(0, received.shape[1], step):
        part = received[:, start : start + step].astype(np.float64)
        found += (squares[None] - 2 * part.T @ wide).argmin(1).tolist()
    return tuple(found)
