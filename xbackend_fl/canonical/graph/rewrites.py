"""One spelling for one function: what the builder recognises in the nodes it has collected so far."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from xbackend_fl.canonical.draft import Draft
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.ops import has
from xbackend_fl.canonical.row import Property
from xbackend_fl.canonical.value import Value

if TYPE_CHECKING:
    from xbackend_fl.canonical.graph.recorder import Recorder

_PIXELS = Property.PASSES_FEATURES | Property.KEEPS_PIXELS


def fold_pad(
    recorder: Recorder, operator: str, value: Value, attributes: dict[str, AttributeValue]
) -> tuple[Value, dict[str, AttributeValue]]:
    """Move a Pad into the ``pads`` of the window behind it, where both mean the same."""
    pad = _foldable_pad(recorder, value.name, operator)
    if pad is None:
        return value, attributes
    pads, own = pad.attributes["pads"], attributes["pads"]
    assert isinstance(pads, tuple)
    assert isinstance(own, tuple)
    rank = len(value.shape)
    before, after = [int(n) for n in pads[:rank]], [int(n) for n in pads[rank:]]
    if any((*before[:2], *after[:2])):
        return value, attributes
    folded = tuple(int(a) + b for a, b in zip(own, (*before[2:], *after[2:]), strict=True))
    shape = tuple(n - b - a for n, b, a in zip(value.shape, before, after, strict=True))
    counted: dict[str, AttributeValue] = (
        {"count_include_pad": 1} if operator == "AveragePool" and any(folded) else {}
    )
    return replace(value, name=pad.inputs[0], shape=shape), attributes | {"pads": folded} | counted


def _foldable_pad(recorder: Recorder, value: str, operator: str) -> Draft | None:
    """A Pad in front of ``operator`` that means the same as pads of its own.

    A convolution pads with zeros, and so does an average that counts its padding. Max pooling pads with minus
    infinity; zero is the same behind an activation that is never negative, gradient included.
    """
    pad = recorder.producer(value)
    if pad is None or pad.operator != "Pad" or pad.attributes["mode"] != "constant":
        return None
    if pad.attributes["value"] == -math.inf:
        return pad if operator == "MaxPool" else None
    if pad.attributes["value"]:
        return None
    if operator in {"Conv", "AveragePool"}:
        return pad
    source = recorder.producer(pad.inputs[0])
    bounded = source is not None and source.operator == "Clip" and source.attributes.get("min") == 0.0
    positive = source is not None and (has(source.operator, Property.NOT_NEGATIVE) or bounded)
    return pad if operator == "MaxPool" and positive else None


def pooled(recorder: Recorder, value: str) -> bool:
    """Whether the spatial axes of ``value`` are what a global pooling left of them: one each, at every size."""
    draft = recorder.producer(value)
    while draft is not None:
        if draft.operator in {"ReduceMean", "ReduceMax"}:
            return True
        if not has(draft.operator, _PIXELS):
            return False
        draft = recorder.producer(draft.inputs[0])
    return False


def feature_makers(recorder: Recorder, value: str) -> list[Draft] | None:
    """Nodes whose parameters have the feature axis of a rank-2 ``value`` as their axis 0.

    They are the dense layer that makes the features, and everything elementwise between.
    ``None`` if the features come from elsewhere, or are read by anyone else on the way.
    """
    found: list[Draft] = []
    held = Counter(layout for draft in recorder.drafts.values() for layout in draft.layouts.values())
    while (draft := recorder.producer(value)) is not None:
        known = draft.operator in {"Gemm", "BatchNormalization", "Dropout"}
        known = known or has(draft.operator, Property.PASSES_FEATURES)
        shared = any(held[layout] > 1 for layout in draft.layouts.values())
        if recorder.num_readers(value) > 1 or not known or shared:
            return None
        found.append(draft)
        if draft.operator == "Gemm":
            return found
        value = draft.inputs[0]
    return None
