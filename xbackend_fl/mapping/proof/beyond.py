"""Whole numbers beyond the example's: what a hash, a bound or a comparison makes of ids that no table forbids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Schema
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.distributions import Assignment, vocabularies
from xbackend_fl.mapping.probe.draw import draw_inputs, range_of
from xbackend_fl.mapping.probe.lookups import lookups_of
from xbackend_fl.mapping.probe.markers import compared, values
from xbackend_fl.mapping.probe.probe import Case, Evidence, is_finite, observe
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error

Array = NDArray[Any]

BEYOND = "whole numbers beyond the example's"
"""Label of the draw."""

_SEED = 25
_LARGEST = 10_000
"""A hash by a million overflows 32 bits there, and float16 has lost count."""


def beyond_example(
    model: CanonicalModel, example: Sequence[Array], usual: Assignment, fit: Sequence[Array]
) -> Evidence | None:
    """What a reference does with whole numbers that are larger than the example's; ``None`` if it has no such input, or takes none.

    Args:
        model: The reference; its weights are changed.
        example: One array per input, in ONNX layout.
        usual: What the other inputs are.
        fit: Data that running statistics are fitted to.
    """
    for case in _cases(model.schema, example, usual):
        try:
            seen = observe(model, case, fit=fit)
        except RefusedInput:
            continue
        return seen if is_finite(seen) else None
    return None


def beyond_notes(
    model: CanonicalModel,
    example: Sequence[Array],
    evidence: Sequence[Evidence] | None,
    reference: Evidence | None,
) -> Iterator[str]:
    """Where two models part beyond the whole numbers of the example, or that nobody knows.

    Args:
        model: The candidate; its weights are changed.
        example: One array per input, in ONNX layout.
        evidence: What the reference did otherwise; nothing is said without.
        reference: What it did there, if it takes such numbers.
    """
    places = _open(model.schema, example)
    if evidence is None or not places:
        return
    told = " and ".join(f"{model.schema.inputs[i].name!r} above {int(example[i].max())}" for i in places)
    if reference is None:
        yield f"whole numbers of {told}, the example's largest, were not compared: the reference takes none that were drawn"
        return
    try:
        own = observe(model, reference.case, reference.statistics).outputs
    except RefusedInput:
        yield f"whole numbers of {told}, the example's largest: the reference takes more than this model, and the map holds up to there"
        return
    apart = max(relative_error(two, one) for one, two in zip(reference.outputs, own, strict=True))
    if apart > TOLERANCE:
        yield f"whole numbers of {told}, the example's largest: the models differ by {apart:.1e}; the map holds up to there"


def _open(schema: Schema, example: Sequence[Array]) -> list[int]:
    """Inputs of whole numbers that are no mask, and of which no table says how many there are."""
    tables = vocabularies(schema)
    return [
        index
        for index, (port, array) in enumerate(zip(schema.inputs, example, strict=True))
        if array.size and range_of(array) is not None and not port.binary and port.name not in tables
    ]


def _cases(schema: Schema, example: Sequence[Array], usual: Assignment) -> Iterator[Case]:
    """Numbers up to some thousands first, then as many as the smallest table has rows, and fewer; some are those that the graph names."""
    places, marks = _open(schema, example), compared(schema)
    if not places:
        return
    shapes = [array.shape for array in example]
    plain = draw_inputs(schema, shapes, _SEED, assignment=usual, like=example)
    tables = [schema.by_name[n.parameters["weight"]].shape[0] for n in schema.nodes if n.operator == "Gather"]
    generator = np.random.Generator(np.random.Philox(key=[_SEED, 2]))
    known = max(int(example[index].max()) for index in places)
    limit = max(_LARGEST, min(2 * known + 2, np.iinfo(np.int32).max))
    rows = min([limit, *tables, *map(len, lookups_of(schema).values())])
    for largest in dict.fromkeys((limit, rows, (known + rows) // 2)):
        if largest <= known + 1:
            continue
        inputs = list(plain)
        for index in places:
            drawn, several = plain[index], [*values(marks.get(schema.inputs[index].name, ())), largest - 1]
            low, high = int(example[index].min()), min(2 * int(example[index].max()) + 2, largest)
            near, far = (generator.integers(min(low, n - 1), n, drawn.shape) for n in (high, largest))
            named = generator.choice([n for n in several if low <= n < largest and n == int(n)], drawn.shape)
            made = np.choose(generator.integers(0, 3, drawn.shape), (near, far, named)).astype(drawn.dtype)
            inputs[index] = np.where(drawn == 0, 0, made) if schema.inputs[index].padded else made
        yield Case(BEYOND, _SEED, tuple(inputs), differentiate=False, step=False)
