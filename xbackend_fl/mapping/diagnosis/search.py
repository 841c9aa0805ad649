"""Looks for the one change that makes two graphs one function, and for the place where their values part if there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.mapping.diagnosis.change import Change, Pool
from xbackend_fl.mapping.diagnosis.confirm import confirmed
from xbackend_fl.mapping.diagnosis.edits import further, simple
from xbackend_fl.mapping.diagnosis.graft import Graft, fitted, grafts
from xbackend_fl.mapping.diagnosis.graph import Graph
from xbackend_fl.mapping.diagnosis.repeated import everywhere
from xbackend_fl.mapping.diagnosis.twins import EQUAL, Parting, parting, twins
from xbackend_fl.mapping.diagnosis.weightings import Draw

Array = NDArray[Any]
Weights: TypeAlias = Mapping[str, Array]
Data: TypeAlias = tuple[tuple[Array, ...], tuple[Array, ...]]
"""Inputs of the reference and of the candidate."""

_LARGEST = 1 << 22
"""Most values of a graph that is looked at."""

_BETTER = 0.05
"""By so much more must agree under other weights that these are looked at first."""

_GRAFTING = 0.5
"""Part of the time that branches have besides."""

_CONFIRMING = 1.0
"""Processor seconds besides for changes that were found, which other weights have to confirm."""

_STEPS = 80
"""Most steps behind a parting that are changed."""


@dataclass(frozen=True)
class Finding:
    """Where two graphs part, and what would bring them together.

    Attributes:
        partings: Of the reference and of the candidate.
        known: Values of the reference that the candidate has, and which.
        side: 0 where the reference is changed, 1 where the candidate is.
        changes: One change at several steps; empty if none was found.
        graft: A branch that differs, where no change of one step was found; ``None`` if none was found either.
        draws: How many kinds of data show that the changed graph is the other one.
        error: How far outputs differ then, at most.
        before: How far they differ as they are.
    """

    partings: tuple[Parting, Parting]
    known: Mapping[str, str]
    side: int
    changes: tuple[Change, ...]
    draws: int
    error: float
    before: float
    graft: Graft | None = None


@dataclass(frozen=True)
class _Run:
    data: Data
    values: tuple[dict[str, Array], dict[str, Array]]
    apart: float


def finding(
    graphs: tuple[Graph, Graph],
    draws: Iterator[Draw],
    data: Sequence[Data],
    outputs: Sequence[tuple[str, str]],
    seconds: float,
) -> Finding | None:
    """Where two graphs part; ``None`` if they do not, or cannot be compared.

    Args:
        graphs: Reference and candidate.
        draws: Make weights of both that are equal if the models are, the likeliest first.
        data: What both are run on.
        outputs: Names of outputs that belong together.
        seconds: Processor time after which no further change is tried.
    """
    until = time.process_time() + seconds
    first: Finding | None = None
    for draw, worst in _ranked(graphs, draws, data, outputs, until):
        weights, others = draw(0), draw(1)
        again = [run for inputs in data[:2] if (run := _run(graphs, others, inputs, outputs))]
        rest = [_run(graphs, weights, inputs, outputs) for inputs in data if inputs is not worst.data]
        runs = [worst, *again, *(run for run in rest if run)]
        known = twins(*worst.values), twins(*worst.values[::-1])
        partings = parting(graphs[0], known[0]), parting(graphs[1], known[1])
        sure = partial(_sure, graphs, draw, [run.data for run in runs[:2]], outputs, until + _CONFIRMING)
        nothing = Finding(partings, known[0], 0, (), len(runs) - len(again), 0.0, worst.apart)
        if first is None:
            first = nothing
            if (changed := _changed(graphs, nothing, runs, outputs, until, sure)) is not None:
                return changed
            until = time.process_time() + _GRAFTING * seconds
        if (other := _with_branch(graphs, nothing, runs, outputs, until, sure)) is not None:
            return other
        if time.process_time() > until:
            break
    return first


def _ranked(
    graphs: tuple[Graph, Graph],
    draws: Iterator[Draw],
    data: Sequence[Data],
    outputs: Sequence[tuple[str, str]],
    until: float,
) -> list[tuple[Draw, _Run]]:
    """Weights under which the graphs differ, with a run that shows it; those first under which most agrees."""
    found: list[tuple[float, Draw, _Run]] = []
    for draw in draws:
        weights = draw(0)
        every = (_run(graphs, weights, inputs, outputs) for inputs in data)
        run = next((run for run in every if run is not None and run.apart > EQUAL), None)
        if run is not None:
            found.append((_share(graphs, run), draw, run))
        if time.process_time() > until:
            break
    best = max((share for share, _, _ in found), default=0.0)
    found.sort(key=lambda item: item[0] < best - _BETTER)
    return [(draw, run) for _, draw, run in found]


def _changed(
    graphs: tuple[Graph, Graph],
    nothing: Finding,
    runs: Sequence[_Run],
    outputs: Sequence[tuple[str, str]],
    until: float,
    sure: Callable[..., bool],
) -> Finding | None:
    """The first small change of one step, or of all that are written alike, that makes both graphs one function."""
    regions = [_around(graphs[side], nothing.partings[side]) for side in (0, 1)]
    pools = Pool(graphs[1]), Pool(graphs[0])
    tried: set[object] = set()
    for side, changes in _proposals(graphs, regions, pools, runs[0]):
        key = side, repr([(c.index, c.new, c.new_words) for c in changes])
        if key in tried:
            continue
        tried.add(key)
        if time.process_time() > until:
            return None
        apart = partial(_error, graphs[side], side, changes, outputs=outputs)
        error = _everywhere_equal(runs, apart)
        if error is None or _erased(graphs[side], changes[0], runs[0].values[side]):
            continue
        if sure(apart, changes[0].what):
            return replace(nothing, side=side, changes=changes, error=error)
    return None


def _erased(graph: Graph, change: Change, values: Mapping[str, Array]) -> bool:
    """Whether a change is another way to leave a step out: an activation that is one everywhere, a bound that nothing reaches."""
    if change.what in {"presence", "input"}:
        return False
    return graph.erases(values, change.index, change.new, change.constants)


def _with_branch(
    graphs: tuple[Graph, Graph],
    nothing: Finding,
    runs: Sequence[_Run],
    outputs: Sequence[tuple[str, str]],
    until: float,
    sure: Callable[..., bool],
) -> Finding | None:
    """The smallest branch whose value, taken from the other graph, makes both graphs one function."""
    for graft in grafts(graphs, nothing.partings, runs[0].values):
        if time.process_time() > until:
            return None
        if graphs[graft.side].also_read(graft.location):
            # A value that is taken over would not show what else these weights are read for.
            continue
        apart = partial(_grafted, graphs, graft, outputs=outputs)
        error = _everywhere_equal(runs, apart)
        if error is not None and sure(apart):
            return replace(nothing, side=graft.side, graft=graft, error=error)
    return None


def _sure(
    graphs: tuple[Graph, Graph],
    draw: Draw,
    data: Sequence[Data],
    outputs: Sequence[tuple[str, str]],
    until: float,
    apart: Callable[[_Run], float],
    what: str = "",
) -> bool:
    """Whether a change makes both graphs one function with other numbers in every place too."""
    if draw.in_parts and what == "constant":
        # Constants in another order may be but the other order of the parts.
        return False

    def agrees(inputs: Data, weights: tuple[Weights, Weights]) -> bool:
        run = _run(graphs, weights, inputs, outputs)
        return run is not None and apart(run) <= EQUAL

    return confirmed(draw, [partial(agrees, inputs) for inputs in data], until)


def _everywhere_equal(runs: Sequence[_Run], error: Callable[[_Run], float]) -> float | None:
    """The largest error of several runs; ``None`` if one is more than rounding."""
    largest = 0.0
    for run in runs:
        found = error(run)
        if found > EQUAL:
            return None
        largest = max(largest, found)
    return largest


def _grafted(
    graphs: tuple[Graph, Graph], graft: Graft, run: _Run, outputs: Sequence[tuple[str, str]]
) -> float:
    """How far the outputs of a graph with a value of the other one are from the other's, at most."""
    side = graft.side
    own, other = run.values[side], run.values[1 - side]
    if own[graft.location].size != other[graft.source].size:
        return float("inf")
    new, constants = graft.steps(graphs[side], fitted(other[graft.source], own[graft.location]))
    found = graphs[side].changed(own, new, constants)
    if found is None:
        return float("inf")
    return max(_apart(found[pair[side]], other[pair[1 - side]]) for pair in outputs)


def _proposals(
    graphs: tuple[Graph, Graph], regions: Sequence[Sequence[int]], pools: tuple[Pool, Pool], run: _Run
) -> Iterator[tuple[int, tuple[Change, ...]]]:
    """Changes of either graph, small ones first, and those first that are near the parting."""
    for propose in (simple, further):
        for place in range(max(map(len, regions))):
            for side in (0, 1):
                region = regions[side]
                if place < len(region):
                    for change in propose(graphs[side], region[place], pools[side], run.values[side]):
                        for changes in _together(graphs[side], change, region):
                            yield side, changes


def _around(graph: Graph, where: Parting) -> list[int]:
    """The steps behind a parting, and then those in front of it: equal values may lie in another order of axes."""
    before: list[int] = []
    wanted = {name for index in where.region for name in graph.steps[index].inputs}
    inside = set(where.region)
    for index in range(len(graph.steps) - 1, -1, -1):
        step = graph.steps[index]
        if index not in inside and not wanted.isdisjoint(step.outputs):
            before.append(index)
            wanted |= set(step.inputs)
    return [*where.region[:_STEPS], *before[:_STEPS]]


def _share(graphs: tuple[Graph, Graph], run: _Run) -> float:
    """Which part of both graphs agrees."""
    left = [
        len(parting(graphs[side], twins(*run.values[:: 1 - 2 * side])).region)
        / (len(graphs[side].steps) or 1)
        for side in (0, 1)
    ]
    return 1.0 - max(left)


def _together(graph: Graph, change: Change, region: Sequence[int]) -> Iterator[tuple[Change, ...]]:
    several = everywhere(graph, change, region)
    if len(several) > 1:
        yield tuple(several.values())
    yield (change,)


def _run(
    graphs: tuple[Graph, Graph],
    weights: tuple[Weights, Weights],
    inputs: Data,
    outputs: Sequence[tuple[str, str]],
) -> _Run | None:
    one = graphs[0].values(weights[0], inputs[0])
    two = graphs[1].values(weights[1], inputs[1])
    if one is None or two is None or sum(array.size for array in one.values()) > _LARGEST:
        return None
    return _Run(inputs, (one, two), max(_apart(one[a], two[b]) for a, b in outputs))


def _error(
    graph: Graph, side: int, changes: Sequence[Change], run: _Run, outputs: Sequence[tuple[str, str]]
) -> float:
    """How far the outputs of a changed graph are from the other's, at most; infinite where it cannot run."""
    constants = {name: array for change in changes for name, array in change.constants.items()}
    found = graph.changed(run.values[side], {change.index: change.new for change in changes}, constants)
    if found is None:
        return float("inf")
    other = run.values[1 - side]
    return max(_apart(found[pair[side]], other[pair[1 - side]]) for pair in outputs)


def _apart(one: Array, two: Array) -> float:
    """Relative difference of two outputs, whose axes may lie otherwise; infinite if nothing can be compared."""
    if one.size != two.size or not one.size:
        return float("inf")
    a, b = one.astype(np.float64), two.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        if np.isfinite(a).sum() != np.isfinite(b).sum():
            return float("inf")
        a, b = np.nan_to_num(a, posinf=1e30, neginf=-1e30), np.nan_to_num(b, posinf=1e30, neginf=-1e30)
    if a.shape != b.shape:
        short = [[n for n in array.shape if n > 1] for array in (a, b)]
        if short[0] == short[1]:
            b = b.reshape(a.shape)
        else:
            a, b = np.sort(a, axis=None), np.sort(b, axis=None)
    size = max(float(np.abs(a).max()), float(np.abs(b).max()), 1e-12)
    return float(np.abs(a - b).max()) / size
