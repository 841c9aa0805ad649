"""One spelling for one function: what the builder recognises in the nodes it has collected so far."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from xbackend_fl.canonical.draft import Draft
from xbackend_fl.canonical.ops import OPERATORS

if TYPE_CHECKING:
    from xbackend_fl.canonical.recorder import Recorder

_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Softplus", "Exp", "Abs"})
_PASSES_FEATURES = frozenset(
    name
    for name, row in OPERATORS.items()
    if not row.slots and set(row.attributes or {}) <= {"alpha", "gamma", "beta"}
) - {"MatMul", "Sub", "Div", "Max", "Min", "Flatten"}


def foldable_pad(recorder: Recorder, value: str, operator: str) -> Draft | None:
    """A Pad in front of ``operator`` that means the same as pads of its own.

    A convolution pads with zeros. Max pooling pads with minus infinity, which is the same behind an
    activation that is never negative, gradient included.
    """
    pad = recorder.producer(value)
    if (
        pad is None
        or pad.operator != "Pad"
        or pad.attributes["mode"] != "constant"
        or pad.attributes["value"]
    ):
        return None
    if operator == "Conv":
        return pad
    source = recorder.producer(pad.inputs[0])
    bounded = source is not None and source.operator == "Clip" and source.attributes.get("min") == 0.0
    positive = source is not None and (source.operator in _NOT_NEGATIVE or bounded)
    return pad if operator == "MaxPool" and positive else None


def feature_makers(recorder: Recorder, value: str) -> list[Draft] | None:
    """Nodes whose parameters have the feature axis of a rank-2 ``value`` as their axis 0.

    They are the dense layer that makes the features, and everything elementwise between.
    ``None`` if the features come from elsewhere, or are read by anyone else on the way.
    """
    found: list[Draft] = []
    held = Counter(layout for draft in recorder.drafts.values() for layout in draft.layouts.values())
    while (draft := recorder.producer(value)) is not None:
        known = draft.operator in {"Gemm", "BatchNormalization", "Dropout", *_PASSES_FEATURES}
        shared = any(held[layout] > 1 for layout in draft.layouts.values())
        if recorder.num_readers(value) > 1 or not known or shared:
            return None
        found.append(draft)
        if draft.operator == "Gemm":
            return found
        value = draft.inputs[0]
    return None
