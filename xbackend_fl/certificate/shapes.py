"""Whether the sketches of a probe have the names and shapes that a probe of its schema has, whoever signed them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.certificate.statement import Probe, StoredArray
from xbackend_fl.mapping.probe.draw import features
from xbackend_fl.mapping.probe.pieces import in_pieces
from xbackend_fl.mapping.probe.sketch import BUCKETS, COLUMN
from xbackend_fl.text import line

_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def strange_sketch(schema: Schema, probe: Probe) -> str:
    """The first sketch of a probe, or array of statistics, that no probe of this schema has; empty if there is none."""
    return next(_strange(schema, probe), "")


def _strange(schema: Schema, probe: Probe) -> Iterator[str]:
    own = {parameter.name: parameter.shape for parameter in schema.parameters}
    sketches = {name: _of(shape) for name, shape in own.items()}
    statistics = {p.name for p in schema.parameters if p.kind is Kind.STATISTIC}
    yield from _apart("a gradient", probe.gradients, _gradients(schema, probe))
    yield from _apart("a step", probe.moved, sketches)
    yield from _apart("statistics after a step", probe.updated, {name: sketches[name] for name in statistics})
    yield from _apart("statistics", probe.statistics, own)
    if probe.moved and (missing := statistics - probe.updated.keys()):
        yield f"a step, and no running statistics {line(min(missing), 80)!r} after it"
    if probe.rounding and "rounding" not in probe.asks:
        yield "rounding, and does not ask for it"
    yield from _apart("rounding", probe.rounding, dict.fromkeys(probe.rounding, (1,)))


def _gradients(schema: Schema, probe: Probe) -> _Shapes:
    """By parameter; by piece of one where equal shapes hold equal weights, and by column where features weigh alike."""
    if "by_shape" not in probe.asks:
        return {parameter.name: _of(parameter.shape) for parameter in schema.parameters}
    read = features(schema) if "alike" in probe.asks else {}
    return {
        parameter.name: (COLUMN, parameter.shape[read[parameter.name]])
        if parameter.name in read
        else _of(parameter.shape)
        for parameter in in_pieces(schema).parameters
    }


def _of(shape: tuple[int, ...]) -> tuple[int]:
    return (min(math.prod(shape), BUCKETS),)


def _apart(what: str, held: Mapping[str, StoredArray], wanted: _Shapes) -> Iterator[str]:
    for name, array in held.items():
        shown = f"{what} of {line(name, 80)!r}"
        if name not in wanted:
            yield f"{shown}, which its schema does not have"
        elif array.shape != wanted[name]:
            yield f"{shown} of shape {array.shape}, expected {wanted[name]}"
