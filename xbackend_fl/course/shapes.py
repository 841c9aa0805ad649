"""Shapes of a model's inputs as courses and the command line write them: ``1,3,64,64`` or ``int64:1,128``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from xbackend_fl.errors import ConfigError

_SHAPE = re.compile(r"(?:([a-z]+[0-9]+):)?([0-9]{1,9}(?:,[0-9]{1,9})*)")
_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    f"float{bits}" for bits in (16, 32, 64)
}
_MAX_AXES = 16
_MAX_VALUES = 1 << 28


def parse(text: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """dtype, float32 if left out, and shape.

    Raises:
        ConfigError: It is no shape, or that of an array without values or of more than a GiB of float32.
    """
    match = _SHAPE.fullmatch(text)
    shown = repr(text) if len(text) <= _MAX_AXES * 4 else f"{text[: _MAX_AXES * 4]!r} …"
    if match is None:
        raise ConfigError(
            f"input {shown} is not a shape", hint="for example 1,3,64,64 or int64:1,128, in ONNX layout"
        )
    dtype, shape = match[1] or "float32", tuple(int(n) for n in match[2].split(","))
    if dtype not in _DTYPES:
        raise ConfigError(f"input {shown}: no dtype {dtype!r}", hint=f"one of {', '.join(sorted(_DTYPES))}")
    if 0 in shape:
        raise ConfigError(
            f"input {shown} has no values: an axis is 0 long", hint="the first axis is the batch: 1"
        )
    if len(shape) > _MAX_AXES or prod(shape) > _MAX_VALUES:
        raise ConfigError(
            f"input {shown} is too large for an example: at most {_MAX_AXES} axes and {_MAX_VALUES} values"
        )
    return np.dtype(dtype), shape


def example_arrays(texts: Sequence[str]) -> tuple[np.ndarray[Any, Any], ...]:
    """One example per ``[dtype:]1,3,64,64``: normal values for floats, zeros for integers.

    Raises:
        ConfigError: A text is not a shape.
    """
    return tuple(_example(text, index) for index, text in enumerate(texts))


def _example(text: str, index: int) -> np.ndarray[Any, Any]:
    dtype, shape = parse(text)
    if dtype.kind in "iu":
        return np.zeros(shape, dtype)
    return np.random.Generator(np.random.Philox(index)).standard_normal(shape).astype(dtype)
