"""The example at which a model is described: checked once, so that what is wrong with it is not blamed on the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter.structure import Given
from xbackend_fl.canonical import Description, Property, Schema, has
from xbackend_fl.errors import RefusedInput, shortened

Array = NDArray[Any]
Example: TypeAlias = Any
"""One array per input: a tuple of arrays, a dict of arrays by the names of the inputs, or containers as the model takes them."""

_FEW = 3
"""Values that may be 0 and 1 by chance."""

_WHOLE = frozenset("biu")


def checked(example: Example) -> Given:
    """An example in its form, its arrays plain and in the processor's order of bytes.

    Args:
        example: Arrays, or tensors of a framework, batch first: float32, whole numbers or booleans. Several of them in a tuple, in a
            dict, or however a model takes them.

    Raises:
        RefusedInput: Something is no such array; the message names the input, counted from 0 or by its name.
    """
    given = Given.from_example(example)
    if not given.arrays:
        raise RefusedInput(
            "the example has no arrays", hint="give one per input of the model: --input 1,3,64,64"
        )
    rows = enumerate(zip(given.names, given.arrays, strict=True))
    return replace(
        given, arrays=tuple(_checked(repr(name) if name else index, item) for index, (name, item) in rows)
    )


def checked_example(example: Example) -> tuple[Array, ...]:
    """The arrays of an example, in the order in which they stand there; see :func:`checked`."""
    return checked(example).arrays


def with_masks(description: Description, example: Sequence[Array], *, packs: bool = False) -> Description:
    """A description that says which inputs are masks: 0 and 1 in the example, both, and nothing else.

    Args:
        description: Of a model.
        example: What it was described with, one array per input.
        packs: Whether the model counts how long examples are: then rows that end in zeros are said too, as those of an input are
            whose values it adds up.
    """
    counted = _added_up(description.schema)
    ports = tuple(
        replace(port, binary=_is_mask(array), padded=(packs or port.name in counted) and _is_padded(array))
        for port, array in zip(description.schema.inputs, example, strict=True)
    )
    return replace(description, schema=replace(description.schema, inputs=ports))


def _added_up(schema: Schema) -> set[str]:
    """Inputs whose values are counted as they come: places of words from a mask."""
    origins = {port.name: port.name for port in schema.inputs}
    found: set[str] = set()
    for node in schema.nodes:
        source = origins.get(node.inputs[0]) if node.inputs else None
        if source is None:
            continue
        if node.operator == "CumSum":
            found.add(source)
        elif has(node.operator, Property.SHAPE_ONLY):
            origins |= dict.fromkeys(node.outputs, source)
    return found


def _is_mask(array: Array) -> bool:
    return array.dtype.kind in "fiu" and array.size > _FEW and set(np.unique(array).tolist()) == {0, 1}


def _is_padded(array: Array) -> bool:
    """Whether rows of whole numbers have zeros at their ends only, and begin with something else."""
    if array.dtype.kind not in "iu" or array.ndim != 2:
        return False
    zeros = array == 0
    return bool((np.diff(zeros.astype(int), axis=1) >= 0).all() and not zeros[:, 0].any())


def shown(arrays: Sequence[Array]) -> str:
    """Arrays in words: ``float32 [1, 6] and int64 [1, 5]``."""
    return " and ".join(f"{array.dtype} {list(array.shape)}" for array in arrays)


def not_finite(array: Array) -> str | None:
    """The first value that is NaN or infinite, its place and how many there are, in words; ``None`` if there is none.

    Args:
        array: Of any shape and dtype.
    """
    wrong = ~np.isfinite(array)
    count = int(wrong.sum())
    if not count:
        return None
    place = np.unravel_index(int(wrong.argmax()), array.shape)
    more = f", the first of {count} values that are not finite" if count > 1 else ""
    return f"{array[place]} at {[int(axis) for axis in place]}{more}"


def _checked(index: int | str, item: Any) -> Array:
    if not hasattr(item, "__array__"):
        raise RefusedInput(
            f"input {index} of the example is a {type(item).__name__}, not an array",
            hint="numpy.asarray(value, numpy.float32)",
        )
    try:
        array = np.asarray(item.detach().cpu() if hasattr(item, "detach") else item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RefusedInput(f"input {index} of the example is no array: {shortened(error)}") from error
    what = f"input {index} of the example is {array.dtype} {list(array.shape)}"
    if array.dtype.kind not in _WHOLE and array.dtype.newbyteorder("=") != np.float32:
        cures = {
            "f": "array.astype(numpy.float32)",
            "c": "give real and imaginary part as two inputs of float32",
        }
        raise RefusedInput(
            f"{what}; expected float32, or whole numbers",
            hint=cures.get(
                array.dtype.kind, "give the numbers that stand for it, and look them up in front of the model"
            ),
        )
    if not array.ndim:
        raise RefusedInput(f"{what}, a single number; expected an array, batch first", hint="array[None]")
    if not array.size:
        where = "no example: its batch is empty" if not array.shape[0] else "no numbers: an axis is 0 long"
        raise RefusedInput(f"{what}, which holds {where}", hint="the first axis is the batch: 1")
    # A mask that is added hides by minus infinity.
    hidden = np.isneginf(array) if array.dtype.kind == "f" else False
    if (place := not_finite(np.where(hidden, 0, array))) is not None:
        raise RefusedInput(f"{what} and holds {place}", hint="probes need finite data")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
