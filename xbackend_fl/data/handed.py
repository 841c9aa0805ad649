"""What a loader hands over, as data sets: pairs of inputs and targets, in whatever form they are arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackend_fl.data.alike import errors_once
from xbackend_fl.data.arrays import to_array
from xbackend_fl.data.column import Array, Column, Sliced, is_stored
from xbackend_fl.data.dataset import Dataset, input_names
from xbackend_fl.data.elements import article
from xbackend_fl.data.items import is_items, items_of
from xbackend_fl.data.source import Reading
from xbackend_fl.data.stream import gives_batches, is_stream, stream_of
from xbackend_fl.data.targets import named, targets_of
from xbackend_fl.errors import ConfigError, Refusals, RefusedInput, shortened
from xbackend_fl.losses import joined


def parts_of(where: str, pairs: dict[str, Any], how: Reading, refused: Refusals) -> dict[str, Dataset]:
    """The parts that can be used; ``refused`` gathers what is wrong with the others."""
    parts: dict[str, Dataset] = {}
    errors: list[tuple[str, RefusedInput]] = []
    for name, pair in pairs.items():
        wrong = Refusals()
        with wrong:
            parts[name] = dataset_of(f"{where}: {name}", pair, how)
        errors += [(f"{where}: {name}", error) for error in wrong.errors]
    for error in errors_once(errors):
        refused.add(error)
    return parts


def dataset_of(where: str, value: Any, how: Reading) -> Dataset:
    """What was handed over as a data set.

    Args:
        where: Whose it is, for messages.
        value: ``(inputs, targets)``; or a data set with examples by number, or one that gives batches.
        how: The inputs that the model takes: how many, and their names and shapes.

    Raises:
        ConfigError: It is something else, or empty or uneven; all mistakes at once.
    """
    if isinstance(value, tuple) and len(value) == 2:
        return _of_pair(where, value, how)
    # A loader of PyTorch's that only streams has an item access that raises.
    if is_items(value):
        batched = gives_batches(where, value, how)
        return stream_of(where, batched, how) if batched is not None else items_of(where, value, how)
    if is_stream(value):
        return stream_of(where, value, how)
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    raise ConfigError(
        f"{where}: expected (inputs, targets), received {article(value)}{size}",
        hint="return inputs, targets: two arrays, or a tuple of arrays and one array; or a data set or loader of a framework",
    )


def _of_pair(where: str, pair: tuple[Any, Any], how: Reading) -> Dataset:
    refused = Refusals()
    columns: list[Column] = []
    notes: list[str] = []
    values = _several(f"{where}: inputs", pair[0], how.num_inputs, how.names)
    names = input_names(len(values))
    for name, value in zip(names, values, strict=True):
        with refused:
            column, note = _column(value, f"{where}: {name}")
            columns.append(column)
            notes += [note] if note else []
    parts: dict[str, Array] = {}
    with refused:
        parts, said = targets_of(f"{where}: targets", pair[1], how.heads)
        notes += said
    refused.raise_any()
    names = [*names, *(named("targets", name) for name in parts)]
    lengths = {name: len(column) for name, column in zip(names, [*columns, *parts.values()], strict=True)}
    if len({*lengths.values()}) != 1:
        shown = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise ConfigError(
            f"{where}: inputs and targets differ in length: {shown}",
            hint="every example has one of each: hand over as many",
        )
    if not max(lengths.values()):
        raise ConfigError(f"{where}: no examples")
    return Dataset(tuple(columns), joined(parts), notes=tuple(notes))


def _column(value: Any, where: str) -> tuple[Column, str | None]:
    """An array, or a column of what a library reads from files; and a note, if it was something else before."""
    try:
        stored = is_stored(value)
    except Exception as error:  # whatever a library raises
        raise ConfigError(
            f"{where}: {article(value)} that cannot be read: {shortened(error)}",
            hint="leave its file open as long as the course runs: h5py.File('x.h5')['x'], without `with`",
        ) from error
    if not stored:
        return to_array(value, where)
    # Its dtype is judged by an example, as that of an array is.
    found = Sliced(value, where)
    to_array(found[:1], where)
    return found, None


def _several(where: str, value: Any, num_inputs: int | None, names: Sequence[str]) -> Sequence[Any]:
    """The arrays of several inputs, or the one that ``value`` is."""
    if isinstance(value, dict):
        if {*value} == {*names}:
            return [value[name] for name in names]
        wanted = f"; the course's `input` has the names {', '.join(names)}" if names else ""
        raise ConfigError(
            f"{where}: a dict with the keys {', '.join(map(str, value))}{wanted}",
            hint="hand over a tuple of arrays, in the order of the course's `input`, or name the inputs there as the data does: "
            "input: ['ids=int64:1,128', 'mask=1,128']",
        )
    if not isinstance(value, list | tuple) or not value:
        return (value,)
    arrays = all(hasattr(item, "__array__") and np.ndim(item) for item in value)
    if num_inputs is None or isinstance(value, tuple):
        return value if arrays or len(value) == num_inputs else (value,)
    # A list of arrays may also be one array, row by row.
    return value if len(value) == num_inputs and (arrays or num_inputs > 1) else (value,)


def owners_of(where: str, value: Any, num_examples: int) -> Array:
    """Who made each of so many examples.

    Raises:
        ConfigError: The value says it of others, or in no way that can be compared.
    """
    owners = np.asarray(value)
    if owners.ndim != 1 or owners.dtype.kind not in "biuUS":
        raise ConfigError(
            f"{where}: owners is an array of {owners.dtype} with {owners.ndim} axes",
            hint="one whole number or one text for every training example, [N]",
        )
    if len(owners) != num_examples:
        raise ConfigError(f"{where}: owners has {len(owners)} entries for {num_examples} examples")
    return owners
