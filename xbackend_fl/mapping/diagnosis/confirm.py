"""Asks whether a change still makes two graphs one function where no two parameters hold equal numbers.

Weights that are equal by shape are what no map is needed for. They are symmetric as well, and equal in all places of one shape: a
query that is taken for a key, and half of the features for the other half, go unseen. So a change counts only if there is a pairing of
parameters under which the graphs agree with other numbers in every place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.weightings import Draw, Parts, Weighting

Array = NDArray[Any]
_Pairing: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""Piece of the candidate, and the order of its axes in the reference's, by piece of the reference."""


def confirmed(draw: Draw, agrees: Sequence[Callable[[Weighting], bool]], until: float) -> bool:
    """Whether a change holds under two draws of different weights.

    Args:
        draw: The weights under which it was found.
        agrees: Whether the changed graph and the other one agree under some weights, on one kind of data each.
        until: Processor time after which nothing is confirmed.
    """
    if draw.by_place:
        return True
    first, second = draw.parts(2), draw.parts(3)
    pairing = _paired(draw, first, agrees[0], until)
    if pairing is None:
        return False
    ours, theirs = _fresh(first, pairing, 2), _fresh(second, pairing, 3)
    return all(agree(draw.put(*ours)) and agree(draw.put(*theirs)) for agree in agrees)


def _paired(draw: Draw, parts: Parts, agrees: Callable[[Weighting], bool], until: float) -> _Pairing | None:
    """A pairing under which both graphs agree with other numbers in every place: in order, else piece by piece."""
    in_order = dict(_in_order(parts))
    if agrees(draw.put(*_fresh(parts, in_order, 2))):
        return in_order
    pairing: _Pairing = {}
    ours, theirs = dict(parts[0]), dict(parts[1])
    for name, old in parts[0].items():
        new = _other(name, old, 2)
        ours[name] = new
        taken = {place for place, _ in pairing.values()}
        for place, order in _candidates(old, parts[1], taken):
            if time.process_time() > until:
                return None
            if agrees(draw.put(ours, {**theirs, place: _turned(new, order, parts[1][place])})):
                pairing[name] = place, order
                theirs[place] = _turned(new, order, parts[1][place])
                break
        else:
            # What one graph alone has, a branch that the change leaves out, moves no output.
            if not agrees(draw.put(ours, theirs)):
                return None
    return pairing


def _in_order(parts: Parts) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    taken: set[str] = set()
    for name, old in parts[0].items():
        first = next(iter(_candidates(old, parts[1], taken)), None)
        if first is not None:
            taken.add(first[0])
            yield name, first


def _candidates(
    array: Array, others: Mapping[str, Array], taken: set[str]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Pieces that hold as many numbers along the same axes, in every order of these."""
    lengths = _long(array)
    for place, other in others.items():
        if place in taken or sorted(_long(other)) != sorted(lengths):
            continue
        for order in permutations(range(len(lengths))):
            if [lengths[axis] for axis in order] == _long(other):
                yield place, order


def _fresh(parts: Parts, pairing: _Pairing, number: int) -> Parts:
    """Numbers of their own in every place of both."""
    ours = {name: _other(name, old, number) for name, old in parts[0].items()}
    theirs = {name: _other(f"alone {name}", old, number) for name, old in parts[1].items()}
    for name, (place, order) in pairing.items():
        theirs[place] = _turned(ours[name], order, parts[1][place])
    return ours, theirs


def _other(name: str, old: Array, number: int) -> Array:
    """Numbers as large as those that stood there, and positive where those were."""
    if old.dtype.kind != "f" or not old.size:
        return old
    generator = np.random.default_rng([number, *name.encode()])
    if (old > 0).all():
        positive: Array = generator.uniform(0.5, 1.5, old.shape) * float(old.mean())
        return positive.astype(old.dtype)
    size = float(np.sqrt(np.square(old, dtype=np.float64).mean())) or 0.3
    return (generator.standard_normal(old.shape) * size).astype(old.dtype)


def _turned(array: Array, order: tuple[int, ...], like: Array) -> Array:
    turned: Array = array.reshape(_long(array)).transpose(order).reshape(like.shape)
    return turned.astype(like.dtype)


def _long(array: Array) -> list[int]:
    return [n for n in array.shape if n > 1]
