"""Draws far beyond the example's size, and what is said of the sizes at which two models were compared."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Schema
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.cases import LARGER, LONGER, larger, sizes_of
from xbackend_fl.mapping.probe.distributions import Assignment
from xbackend_fl.mapping.probe.probe import Evidence, is_finite, observe

Array = NDArray[Any]


def at_other_sizes(
    model: CanonicalModel,
    example: Sequence[Array],
    usual: Assignment,
    found: Sequence[Evidence],
) -> Iterator[Evidence]:
    """What a model does with data that are far longer than the example, along the axes that it lets be longer.

    Args:
        model: The model, under the schema; its weights are changed.
        example: One array per input, in ONNX layout.
        usual: What the inputs are.
        found: What it did with the other draws, the first at the example's size.
    """
    schema = model.schema
    free = any(item.case.seed in {LARGER, LONGER} for item in found)
    for cases in larger(schema, example, usual):
        if free and cases and not cases[0].is_far(schema):
            return
        for case in cases:
            try:
                seen = observe(model, case, fit=found[0].case.inputs)
            except RefusedInput:
                break
            free = True
            if is_finite(seen):
                yield seen


def may_differ(schema: Schema, item: Evidence) -> bool:
    """Whether a draw is at a size at which two models may differ, for which there is a note then.

    A model may know the length of a series, wherever its channels lie: that others are wanted is for the user to declare. Images one
    step larger have no such leave.

    Args:
        schema: The schema.
        item: What a model did with the draw.
    """
    series = all(array.ndim <= 3 for array in item.case.inputs)
    return item.case.seed == LONGER or (item.case.seed == LARGER and (series or item.case.is_far(schema)))


def notes_apart(
    schema: Schema, own: Sequence[Evidence], errors: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """Labels of draws at other sizes in which two models differ, and a note for the first along every axis: the others are larger still.

    Args:
        schema: The schema.
        own: What one of them did, in order of size along every axis.
        errors: By how much outputs differ, by the label of the draw.
    """
    agreed = dict[tuple[bool, ...], str]()
    said = set[tuple[bool, ...]]()
    for item in own:
        ports = list(zip(item.case.inputs, schema.inputs, strict=True))
        axes = tuple(
            n > m for array, port in ports for n, m in zip(array.shape[1:], port.shape[1:], strict=True)
        )
        label, size = item.case.label, sizes_of([array.shape for array, _ in ports])
        if label not in errors:
            agreed[axes] = size if any(axes) else ""
            continue
        note = ""
        if axes not in said:
            error = errors[label]
            apart = f"the models differ {f'by {error:.1e}' if math.isfinite(error) else 'wholly'}"
            if item.case.is_far(schema):
                before = agreed.get(axes) or sizes_of([port.shape for _, port in ports])
                what = f"beyond the example's length, {apart}: the map holds at {before}, and somewhere between they part"
            else:
                what = f"one step longer, {apart}: the map holds at the example's length"
            note = f"{label}: {what}; a declared sequence axis asks for every length"
        said.add(axes)
        yield label, note


def compared_at(schema: Schema, own: Sequence[Evidence], labels: Collection[str]) -> Iterator[str]:
    """At which sizes two models were compared, where they take more than the example's.

    Args:
        schema: The schema.
        own: What one of them did.
        labels: Draws in which the other one did the same.
    """
    drawn = [item.case for item in own if item.case.label in labels and not item.case.reserve]
    sizes = dict.fromkeys(
        sizes_of([array.shape for array in case.inputs]) for case in drawn if not case.at_example(schema)
    )
    if sizes:
        example = sizes_of([port.shape for port in schema.inputs])
        yield f"compared with inputs of {example} (the example's), {', '.join(sizes)} values: of other sizes nothing is known"
