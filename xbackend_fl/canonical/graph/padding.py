"""Pads that a rule stands for, TensorFlow's SAME, as explicit numbers at the example's sizes; and pads behind pads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xbackend_fl.canonical.graph.recorder import Recorder
from xbackend_fl.canonical.value import Value, numbers


def same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """ONNX pads (begins, then ends) of TensorFlow's SAME rule at these input sizes."""
    begin, end = [], []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        begin.append(total // 2)
        end.append(total - total // 2)
    return (*begin, *end)


def transposed_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    wanted: Sequence[int],
    *,
    same: bool,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """ONNX pads and output padding of a transposed convolution with the spatial output sizes ``wanted``.

    SAME crops what SAME would pad in the forward direction, the smaller half first.
    """
    begin, end, extra = [], [], []
    for n, k, s, d, m in zip(sizes, kernel, strides, dilations, wanted, strict=True):
        full = s * (n - 1) + d * (k - 1) + 1
        crop = max(d * (k - 1) + 1 - s, 0) // 2 if same else 0
        begin.append(crop)
        end.append(max(full - crop - m, 0))
        extra.append(max(m + crop - full, 0))
    return (*begin, *end), tuple(extra)


def pads_together(
    recorder: Recorder, value: Value, pads: Mapping[int, tuple[int, int]], fill: float, mode: str
) -> tuple[Value, list[int], list[int]]:
    """Pads of native axes as numbers before and after each canonical axis; with those of a Pad in front that means the same.

    Returns:
        The value that is padded, and both.
    """
    rank, source = len(value.shape), recorder.producer(value.name)
    before, after = [0] * rank, [0] * rank
    for axis, (low, high) in pads.items():
        before[value.perm[axis]], after[value.perm[axis]] = low, high
    if source is None or source.operator != "Pad" or not mode == source.attributes["mode"] == "constant":
        return value, before, after
    given = [int(n) for n in numbers(source.attributes["pads"])]
    if min(*given, *before, *after) < 0 or source.attributes["value"] != fill:
        return value, before, after
    before = [one + two for one, two in zip(given[:rank], before, strict=True)]
    after = [one + two for one, two in zip(given[rank:], after, strict=True)]
    inner = source.inputs[0]
    return replace(value, name=inner, shape=recorder.shape(inner)), before, after
