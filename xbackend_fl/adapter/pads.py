"""ONNX's list of pads as every framework's arguments name them."""

from __future__ import annotations

import ast


def pads_of(value: object) -> tuple[tuple[int, int], ...]:
    """(before, after) per spatial axis, of ONNX's ``(before…, after…)``, also written as text."""
    flat = ast.literal_eval(str(value))
    half = len(flat) // 2
    return tuple((int(low), int(high)) for low, high in zip(flat[:half], flat[half:], strict=True))
