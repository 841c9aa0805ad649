"""Pads that a rule stands for: TensorFlow's SAME, as explicit numbers at the example's sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
