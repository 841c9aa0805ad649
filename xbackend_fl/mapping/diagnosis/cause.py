"""The cause for which two graphs are two functions, found by running both with equal weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import Binding, Node, Schema
from xbackend_fl.mapping.align.forms import floors_of
from xbackend_fl.mapping.diagnosis.graph import graph_of
from xbackend_fl.mapping.diagnosis.search import Data, finding
from xbackend_fl.mapping.diagnosis.weightings import weightings
from xbackend_fl.mapping.diagnosis.words import cure, found_lines
from xbackend_fl.mapping.probe.cases import by_shape_cases
from xbackend_fl.mapping.probe.distributions import Distribution
from xbackend_fl.mapping.probe.frozen import FrozenValues
from xbackend_fl.mapping.probe.memory import check_memory

Array = NDArray[Any]

SECONDS = 2.0
"""Processor time for changes that may explain a difference."""

_KINDS = 6
"""Kinds of data that both graphs are run on."""

_LARGEST = 1 << 22
"""Most parameters of a model that is looked at: many graphs are run."""


_SIDES = "reference", "candidate"


@dataclass(frozen=True)
class Cause:
    """What differs.

    Attributes:
        lines: In words.
        sure: Whether one change was found that makes both one function on all data.
        cure: What to write instead; empty if that is not known.
    """

    lines: tuple[str, ...]
    sure: bool
    cure: str


def cause_of(
    schema: Schema,
    trainer: Trainer,
    example: Sequence[Array],
    frozen: FrozenValues | None,
    binding: Binding | None,
) -> Cause | None:
    """Why a candidate is another function than the reference; ``None`` if it does not show in the values of their graphs.

    Args:
        schema: The reference.
        trainer: The candidate; its weights are read only.
        example: One array per input, in ONNX layout.
        frozen: What both models keep as it is.
        binding: A map that the numbers contradict, if there is one.
    """
    own = trainer.description.schema
    found = _by_values(schema, trainer, example, frozen, binding)
    if found is not None:
        return found
    apart = tuple(_numbers_apart(schema, own))
    return Cause(apart, sure=False, cure="") if apart else None


def _by_values(
    schema: Schema,
    trainer: Trainer,
    example: Sequence[Array],
    frozen: FrozenValues | None,
    binding: Binding | None,
) -> Cause | None:
    """What runs of both graphs say; ``None`` if they cannot run, or are alike."""
    own = trainer.description.schema
    if max(schema.num_values, own.num_values) > _LARGEST:
        return None
    graphs = graph_of(schema), graph_of(own)
    if graphs[0] is None or graphs[1] is None:
        return None
    check_memory(schema)
    both = graphs[0], graphs[1]
    data = _data(schema, own, example)
    until = time.process_time() + SECONDS
    pairs = _outputs(schema, own)
    if not data or not pairs:
        return None
    found = finding(both, weightings(schema, trainer, frozen, binding, until), data, pairs, SECONDS)
    if found is None:
        return None
    places = trainer.description.places
    return Cause(
        tuple(found_lines(found, both, places)), bool(found.changes or found.graft), cure(found, both, places)
    )


def _numbers_apart(schema: Schema, own: Schema) -> Iterator[str]:
    """Epsilons and slopes of which one graph has another value than the other, where more cannot be said."""
    ours, theirs = _numbers(schema), _numbers(own)
    for name in ours.keys() & theirs.keys():
        alone = [
            [f"{value:g} ({node.operator} {node.name!r})" for value, node in one.items() if value not in two]
            for one, two in ((ours[name], theirs[name]), (theirs[name], ours[name]))
        ]
        if all(alone) or (name == "epsilon" and any(alone)):
            told = [f"{one[0]} in the {side} alone" for one, side in zip(alone, _SIDES, strict=True) if one]
            yield f"{name} is {', and '.join(told)}"


def _numbers(schema: Schema) -> dict[str, dict[float, Node]]:
    """Numbers by what they are, with the first node that has them."""
    found: dict[str, dict[float, Node]] = {"epsilon": floors_of(schema)}
    for node in schema.nodes:
        for name in ("alpha", "beta", "gamma"):
            value = node.attributes.get(name)
            if isinstance(value, float):
                found.setdefault(name, {}).setdefault(float(f"{value:.3g}"), node)
    return found


def _data(schema: Schema, own: Schema, example: Sequence[Array]) -> list[Data]:
    """Data of several kinds for both, as far as their inputs have the same lengths; blank examples are nobody's question."""
    if len(schema.inputs) != len(own.inputs):
        return []
    every = [case for case in by_shape_cases(schema, example) if Distribution.BLANK not in case.label]
    found: list[Data] = []
    # A graph may say how many examples there are.
    wanted = {port.shape[0] for port in (*schema.inputs, *own.inputs) if port.shape}
    count = min(len(array) for array in example) if all(array.ndim for array in example) else 1
    count = min(count, *wanted) if len(wanted) == 1 else count
    for case in [*every[:1], *every[-1:], *every[1:-1]][:_KINDS]:
        theirs, ours = [], tuple(array[:count] for array in case.inputs)
        for array, port in zip(ours, own.inputs, strict=True):
            shape = (array.shape[0], *port.shape[1:])
            if array.size != int(np.prod(shape)):
                return []
            theirs.append(array.reshape(shape).astype(port.dtype))
        found.append((ours, tuple(theirs)))
    return found


def _outputs(schema: Schema, own: Schema) -> list[tuple[str, str]]:
    """Names of outputs that belong together: by key if both have keys, else by place."""
    if len(schema.outputs) != len(own.outputs):
        return []
    keys = {port.key: port.name for port in own.outputs}
    by_key = all(port.key and port.key in keys for port in schema.outputs)
    return [
        (port.name, keys[port.key] if by_key else other.name)
        for port, other in zip(schema.outputs, own.outputs, strict=True)
    ]
