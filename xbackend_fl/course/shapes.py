"""Examples of a model's inputs as courses and the command line write them: ``1,3,64,64``, ``int64:1,128``, ``mask.npy`` or ``ids=int64:1,128``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from xbackend_fl.errors import ConfigError, shortened

_FILE = ".npy"
_AXIS = re.compile(r"([0-9]{1,4})\.([0-9]{1,2})")
_SHAPE = re.compile(r"(?:([a-z]+[0-9]*):)?([0-9]{1,9}(?:,[0-9]{1,9})*)")
_DTYPES = (
    {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
    | {f"float{bits}" for bits in (16, 32, 64)}
    | {"bool"}
)
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)=(.*)")
_MAX_AXES = 16
_MAX_VALUES = 1 << 28


def parse(text: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """dtype, float32 if left out, and shape; of a file only the ending is looked at.

    Raises:
        ConfigError: It is neither a file nor a shape, or that of an array without values or of more than a GiB of float32.
    """
    text = _parts(text)[1]
    match = _SHAPE.fullmatch(text)
    shown = repr(text) if len(text) <= _MAX_AXES * 4 else f"{text[: _MAX_AXES * 4]!r} …"
    if match is None:
        raise ConfigError(
            f"input {shown} is not a shape",
            hint="for example 1,3,64,64 or int64:1,128, in ONNX layout, or a file: mask.npy; with a name: ids=int64:1,128",
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


def check(text: str) -> None:
    """Raise if it is neither the name of a file nor a shape.

    Raises:
        ConfigError: It is neither.
    """
    if not text.endswith(_FILE):
        parse(text)


def sequence_axis(text: str, inputs: Sequence[str]) -> tuple[int, int]:
    """An axis of any length, ``INPUT.AXIS``: which input, from 0, and which of its axes in ONNX layout.

    Args:
        text: For example ``0.1``.
        inputs: The examples that are declared, one per input; of a file the axes are not looked at.

    Raises:
        ConfigError: It names no axis, or the batch, which is free anyway.
    """
    match = _AXIS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"sequence axis {text[:_MAX_AXES]!r} is not INPUT.AXIS",
            hint="for example 0.1: of the first input the axis after the batch, in ONNX layout",
        )
    index, axis = int(match[1]), int(match[2])
    if index >= len(inputs):
        raise ConfigError(f"sequence axis {text}: there is no input {index}, of {len(inputs)} from 0 on")
    if not axis:
        raise ConfigError(f"sequence axis {text}: axis 0 is the batch, which is always free")
    if not inputs[index].endswith(_FILE) and axis >= (rank := len(parse(inputs[index])[1])):
        raise ConfigError(f"sequence axis {text}: input {index} has {rank} axes, from 0 on")
    return index, axis


def absolute(text: str, base: Path) -> str:
    """The text with a relative file made absolute."""
    name, rest = _parts(text)
    found = str((base / rest).resolve()) if rest.endswith(_FILE) else rest
    return f"{name}={found}" if name else found


def input_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The names of the inputs, ``NAME=SHAPE``; none if they have none.

    Raises:
        ConfigError: Some have a name and some have none, or two have one.
    """
    names = tuple(_parts(text)[0] for text in texts)
    if not any(names):
        return ()
    if not all(names) or len({*names}) < len(names):
        raise ConfigError(
            f"inputs {', '.join(names[i] or repr(text) for i, text in enumerate(texts))}: a name for each, or for none",
            hint="for example user=1,6 and item=1,6: the names by which the models take them",
        )
    return names


def named(texts: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> Any:
    """Arrays as an example for a model: under the names of the inputs if they have names.

    Args:
        texts: One per input.
        arrays: One per input, in the same order.
    """
    names = input_names(texts)
    return dict(zip(names, arrays, strict=True)) if names else tuple(arrays)


def _parts(text: str) -> tuple[str, str]:
    """Name, empty if there is none, and the rest."""
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def example_arrays(texts: Sequence[str], base: Path = Path()) -> tuple[np.ndarray[Any, Any], ...]:
    """One example per ``[dtype:]1,3,64,64``: normal values for floats, zeros for integers; or the data of a ``.npy`` file.

    Args:
        texts: One per input of the model.
        base: Folder that relative files start from.

    Raises:
        ConfigError: A text is not a shape, or a file is missing or holds no such array.
    """
    return tuple(_example(text, index, base) for index, text in enumerate(texts))


def _example(text: str, index: int, base: Path) -> np.ndarray[Any, Any]:
    text = _parts(text)[1]
    if text.endswith(_FILE):
        return _read(base / text)
    dtype, shape = parse(text)
    if dtype.kind in "biu":
        return np.zeros(shape, dtype)
    return np.random.Generator(np.random.Philox(index)).standard_normal(shape).astype(dtype)


def _read(path: Path) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"input {path}: {shortened(error)}", hint="write it with numpy.save") from error
    if str(array.dtype) not in _DTYPES or not 0 < array.size <= _MAX_VALUES or not array.ndim:
        raise ConfigError(
            f"input {path} holds {array.dtype} of shape {list(array.shape)}",
            hint=f"an array of numbers, batch first, of at most {_MAX_VALUES} values",
        )
    found = np.array(array)
    if not np.isfinite(found).all():
        raise ConfigError(f"input {path} holds NaN or infinity", hint="probes need finite data")
    return found
