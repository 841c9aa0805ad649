"""How far rounding alone moves the outputs of a model, and of ONNX Runtime: each opinion rounds in its own way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Schema
from xbackend_fl.mapping.probe.derivatives import coins, nudged, shifted
from xbackend_fl.mapping.probe.native import outputs_with
from xbackend_fl.mapping.probe.probe import Evidence, weights_of

Array = NDArray[Any]
Run: TypeAlias = Callable[[Mapping[str, Array], Sequence[Array]], Sequence[Array]]
"""Outputs for canonical weights and data, in ONNX layout."""


def run_of(model: CanonicalModel) -> Run:
    """A native model as something to run; its weights are changed."""
    return lambda weights, inputs: outputs_with(model, weights, inputs)


def output_noise(
    schema: Schema, run: Run, item: Evidence, answer: Sequence[Array] = (), expected: Sequence[Array] = ()
) -> float:
    """How far outputs move if weights move by one unit in the last place, relative to their size or to the expected one's.

    Args:
        schema: The schema.
        run: Whose outputs.
        item: With what weights and data.
        answer: What it answers there, if that is known.
        expected: Outputs whose size counts as well.

    Returns:
        NaN if a moved output is not finite: that is no rounding, and no comparison with it is true.
    """
    return _widest(_moves(schema, run, item, answer, expected, 2, there_and_back=False))


def widest_noise(
    schema: Schema, run: Run, item: Evidence, answer: Sequence[Array] = (), expected: Sequence[Array] = ()
) -> float:
    """:func:`output_noise` with more moves, and of moves by a millionth there and back as well.

    A unit of a small weight is nothing beside a large constant that is added later; in the mean of two outputs, there and back, all
    but rounding cancels.
    """
    kinds = (_moves(schema, run, item, answer, expected, 4, there_and_back=back) for back in (False, True))
    return _widest(_widest(kind) for kind in kinds)


def _widest(found: Iterable[float]) -> float:
    """The largest; NaN if any is NaN, which ``max`` keeps or loses by its place."""
    moves = list(found)
    return math.nan if any(map(math.isnan, moves)) else max(moves)


def _moves(
    schema: Schema,
    run: Run,
    item: Evidence,
    answer: Sequence[Array],
    expected: Sequence[Array],
    times: int,
    *,
    there_and_back: bool,
) -> Iterator[float]:
    # An implementation that cancels large numbers is off by much in few places, so a single move may show nothing.
    weights, inputs = weights_of(schema, item.case) | dict(item.statistics), item.case.inputs
    before = answer or run(weights, inputs)
    for seed in range(times):
        generator = np.random.Generator(np.random.Philox(key=[seed, 7]))
        if there_and_back:
            signs = {name: coins(array.size, generator) for name, array in weights.items()}
            pair = [run(shifted(weights, signs, way), inputs) for way in (1, -1)]
            after = [(one.astype(np.float64) + two) / 2 for one, two in zip(*pair, strict=True)]
        else:
            moved = {name: nudged(array, generator) for name, array in weights.items()}
            after = [array.astype(np.float64) for array in run(moved, inputs)]
        for one, two, wanted in zip(after, before, expected or before, strict=True):
            if not (np.isfinite(one).all() and np.isfinite(two).all() and np.isfinite(wanted).all()):
                yield math.nan
                continue
            size = float(max(np.abs(two).max(initial=0.0), np.abs(wanted).max(initial=0.0)))
            yield float(np.abs(one - two).max(initial=0.0)) / size if size else 0.0
