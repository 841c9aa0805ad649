"""What kind of numbers a value holds: floats, whole numbers or truth values; and floats of half the width."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.canonical.ops import OPERATORS
from xbackend_fl.canonical.schema import Schema
from xbackend_fl.errors import RefusedInput

HALVES: Mapping[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""Dtypes that a model may hold its weights in beside float32, the coarsest first."""

UNITS: Mapping[str, float] = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}
"""Unit roundoff: the most that rounding to the dtype changes a number by, relative to it, where it is no subnormal."""

_LOST_BITS = {"bfloat16": 16, "float16": 13}


def output_dtypes(
    operator: str,
    attributes: Mapping[str, AttributeValue],
    inputs: Sequence[str],
    outputs: int,
    *,
    parametric: bool,
) -> tuple[str, ...]:
    """NumPy dtype names of a node's outputs.

    Args:
        operator: Row of the operator table.
        attributes: Attributes of the node.
        inputs: Dtypes of what it reads.
        outputs: How many outputs it has.
        parametric: Whether it holds parameters, which are floats.
    """
    told = attributes.get("to", attributes.get("dtype"))
    if told is not None:
        return (str(told),) * outputs
    row = OPERATORS[operator]
    data = "float32" if parametric or not inputs else inputs[row.data]
    own = (*row.dtypes, *[""] * outputs)[:outputs]
    return tuple(dtype or data for dtype in own)


def value_dtypes(schema: Schema) -> dict[str, str]:
    """NumPy dtype name of every value of a graph."""
    found = {port.name: port.dtype for port in schema.inputs}
    for node in schema.nodes:
        inputs = [found[name] for name in node.inputs]
        made = output_dtypes(
            node.operator, node.attributes, inputs, len(node.outputs), parametric=bool(node.parameters)
        )
        found |= dict(zip(node.outputs, made, strict=True))
    return found


def is_whole(dtype: str) -> bool:
    """Whether values of a dtype are whole numbers, truth values aside."""
    return dtype.startswith(("int", "uint"))


def coarsest(dtypes: Collection[str]) -> str:
    """The dtype of half precision with the fewest digits among ``dtypes``; float32 if there is none."""
    return next((name for name in HALVES if name in dtypes), "float32")


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """An array of half precision as float32, exactly: subnormals, infinities, and the bits of what is no number; others as they are."""
    name = array.dtype.name
    if name not in HALVES:
        return array
    wide: NDArray[Any] = array.astype(np.float32)
    broken = np.isnan(wide)
    if broken.any():
        bits = array[broken].view(np.uint16).astype(np.uint32)
        payload = (bits << _LOST_BITS[name]) & 0x7FFFFF
        wide[broken] = ((bits & 0x8000) << 16 | 0x7F800000 | payload).view(np.float32)
    return wide


def rounded(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """An array in another dtype of floats: to the nearest, ties to even; the inverse of :func:`widened` for what that gives.

    Args:
        array: Floats; anything else is returned as it is.
        dtype: NumPy dtype name. What it cannot hold becomes infinite.
    """
    if dtype not in HALVES or array.dtype.kind != "f" or array.dtype.name == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        narrow: NDArray[Any] = array.astype(HALVES[dtype])
    broken = np.isnan(array)
    if broken.any():
        bits = array[broken].astype(np.float32).view(np.uint32)
        payload = (bits & 0x7FFFFF) >> _LOST_BITS[dtype]
        # Of a number that is none something must be left.
        top = np.uint32(0x7F80 if dtype == "bfloat16" else 0x7C00)
        quiet = np.where(payload == 0, np.uint32(0x40 if dtype == "bfloat16" else 0x200), 0)
        narrow[broken] = (bits >> 16 & 0x8000 | top | payload | quiet).astype(np.uint16).view(HALVES[dtype])
    return narrow


def check_fits(name: str, dtype: str, largest: NDArray[Any]) -> None:
    """Refuse a float32 master that its own tensor cannot hold.

    Args:
        name: Of the tensor.
        dtype: NumPy dtype name of the tensor.
        largest: The largest magnitude in its master, one float32.

    Raises:
        RefusedInput: It is finite and would become infinite.
    """
    if np.isfinite(largest) and np.isinf(widened(rounded(largest, dtype))):
        raise RefusedInput(
            f"{name!r} is {dtype}, and its float32 master holds {float(largest):.3g}, which is infinite there",
            hint="build the model in bfloat16 or float32",
        )
