"""What is wrong with data for a model, before anything is trained: form, dtype and every value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Schema
from xbackend_fl.data import (
    Column,
    Dataset,
    blocks,
    errors_once,
    input_names,
    not_finite,
    not_held,
    notes_once,
    out_of_range,
)
from xbackend_fl.errors import ConfigError, Refusals, RefusedInput
from xbackend_fl.losses import QUANTITIES, parts_of
from xbackend_fl.metrics import Objective, Objectives

Array = NDArray[Any]
Note = Callable[[str], None]

_LARGE = 1e6
"""From here on, targets of a regression are said: models begin with outputs near 1, and their first steps are as long as the targets."""
_ONNX = "both are in ONNX layout: channels first"


@dataclass(frozen=True)
class Wanted:
    """What a course's models take.

    Attributes:
        example: One array per input, in ONNX layout, batch first.
        scaled: Whether bytes become floats by ``data.scale``.
        objective: How the losses read the targets of a data set; ``None`` as long as no model is open.
        vocabulary: For every input that a table is looked up with, the rows of the table.
    """

    example: tuple[Array, ...]
    scaled: bool
    objective: Callable[[Dataset], Objectives] | None = None
    vocabulary: Mapping[int, int] = field(default_factory=dict)


def vocabulary_of(schema: Schema) -> dict[int, int]:
    """Inputs that a table is looked up with, by position, and the rows of the smallest such table."""
    positions = {port.name: index for index, port in enumerate(schema.inputs)}
    found: dict[int, int] = {}
    for node in schema.nodes:
        if node.operator == "Gather" and node.inputs[0] in positions:
            rows = schema.by_name[node.parameters["weight"]].shape[0]
            position = positions[node.inputs[0]]
            found[position] = min(rows, found.get(position, rows))
    return found


def examine_data(
    named: Mapping[str, Dataset], wanted: Wanted, refused: Refusals, *, all_there: bool = True
) -> tuple[str, ...]:
    """Look at data sets, all their values included.

    Args:
        named: Data sets by what messages call them. Arrays that several share are looked at once.
        wanted: What the models take.
        refused: Gathers what is wrong.
        all_there: Whether every data set could be read.

    Returns:
        What is cast without loss, one line each, for people.
    """
    errors: list[tuple[str, RefusedInput]] = []
    notes = [(where, note) for where, data in named.items() for note in data.notes]
    seen: set[int] = set()
    for where, data in named.items():
        wrong = Refusals()
        said: list[str] = []
        _check_inputs(where, data, wanted, wrong, said.append, seen)
        with wrong:
            _check_targets(f"{where}: targets", data, wanted, said.append)
        notes += [(where, note) for note in said]
        errors += [(where, owned(where, error)) for error in wrong.errors]
    for error in errors_once(errors):
        refused.add(error)
    _check_scale(named, wanted, refused, all_there=all_there)
    return tuple(notes_once(notes))


def owned(where: str, error: RefusedInput) -> RefusedInput:
    """An error of a column, which does not know whose it is, as one of that participant.

    Args:
        where: What messages call its data set.
        error: The error.
    """
    owner, _, rest = where.partition(": ")
    if rest and not error.message.startswith(where) and error.message.startswith(rest):
        return ConfigError(f"{owner}: {error.message}", hint=error.hint)
    return error


@contextmanager
def owning(where: str) -> Iterator[None]:
    """Errors of a column in the block are those of its data set; see :func:`owned`."""
    try:
        yield
    except RefusedInput as error:
        if (found := owned(where, error)) is error:
            raise
        raise found from error


def _check_inputs(
    where: str, data: Dataset, wanted: Wanted, refused: Refusals, note: Note, seen: set[int]
) -> None:
    if len(data.inputs) != len(wanted.example):
        refused.add(
            ConfigError(
                f"{where}: {len(data.inputs)} inputs, but the course's `input` names {len(wanted.example)}",
                hint="hand over one array for every entry of `input`, in its order",
            )
        )
        return
    names = [f"{where}: {name}" for name in input_names(len(data.inputs))]
    for index, (name, array, example) in enumerate(zip(names, data.inputs, wanted.example, strict=True)):
        with refused:
            _check_form(name, array, example, swapped=data.targets.shape[1:] == example.shape[1:])
            if id(array) in seen:
                continue
            seen.add(id(array))
            bytes_scaled = wanted.scaled and array.dtype == np.uint8 and example.dtype.kind == "f"
            if not bytes_scaled:
                _check_values(name, array, example.dtype, note)
            rows = wanted.vocabulary.get(index)
            if rows is not None and (wrong := out_of_range(array, 0, rows - 1)):
                raise ConfigError(
                    f"{name}: the value {wrong}, but the model looks it up in a table of {rows} rows (0 to {rows - 1})"
                )


def _check_form(name: str, array: Column, example: Array, *, swapped: bool) -> None:
    received, expected = array.shape[1:], example.shape[1:]
    if received == expected:
        return
    sizes = ",".join(map(str, received))
    hint = (
        _ONNX
        if len(expected) > 1
        else f"input: ['1,{sizes}'], if the data are right and the models take that"
    )
    if len(expected) > 1 and (*received[-1:], *received[:-1]) == expected:
        last = len(array.shape) - 1
        axes = ", ".join(map(str, (0, last, *range(1, last))))
        hint = f"{_ONNX}; this is channels last: hand over x.transpose({axes})"
        if not isinstance(array, np.ndarray):
            one = ", ".join(map(str, (last - 1, *range(last - 1))))
            hint = f"{_ONNX}; this is channels last: let the data set give each example as x.transpose({one})"
    elif swapped:
        hint = "the targets have that shape: return inputs, targets, in this order"
    elif expected[:1] == (1,) and received == expected[1:]:
        hint = f"{_ONNX}; the axis of the one channel is missing: hand over x[:, None]"
    elif prod(received) == prod(expected):
        sizes = ", ".join(map(str, expected))
        hint = f"{_ONNX}; if the values are in that order: hand over x.reshape(-1, {sizes})"
    raise ConfigError(
        f"{name}: examples of shape {list(received)}, but the course's `input` says {list(expected)}",
        hint=hint,
    )


def _check_values(name: str, array: Column, dtype: np.dtype[Any], note: Note) -> None:
    if array.dtype != dtype:
        if lost := not_held(array, dtype):
            raise ConfigError(
                f"{name}: {array.dtype} values that {dtype}, which the model computes with, cannot hold: {lost}",
                hint=_cast_hint(array.dtype, dtype),
            )
        note(f"{name}: {array.dtype}, read as {dtype}; no value changes")
    if bad := not_finite(array):
        raise ConfigError(f"{name}: {bad}", hint="fill these values, or leave their examples out")


def _cast_hint(received: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    if wanted.kind != "f":
        return "the course's `input` says whole numbers; hand over indices, or name a float input without a dtype"
    if received.kind == "f":
        return "round them where that is right: x.astype(np.float32)"
    return "scale them, and round: (x / LARGEST).astype(np.float32)"


def _check_scale(named: Mapping[str, Dataset], wanted: Wanted, refused: Refusals, *, all_there: bool) -> None:
    """``data.scale`` acts on bytes alone; where some data are bytes and others are not, the model would see two scales."""
    for index, example in enumerate(wanted.example):
        kinds = {where: data.inputs[index].dtype for where, data in named.items() if index < len(data.inputs)}
        uint8 = [where for where, dtype in kinds.items() if dtype == np.uint8]
        others = [where for where, dtype in kinds.items() if dtype != np.uint8]
        if wanted.scaled and uint8 and others and example.dtype.kind == "f":
            refused.add(
                ConfigError(
                    f"{others[0]}: inputs are {kinds[others[0]]}, and those of {uint8[0]} are uint8, which data.scale scales",
                    hint="hand over uint8 everywhere, or scaled floats everywhere",
                )
            )
    if (
        wanted.scaled
        and all_there
        and all(a.dtype != np.uint8 for data in named.values() for a in data.inputs)
    ):
        refused.add(
            ConfigError(
                "data.scale scales uint8 inputs, and no input is uint8",
                hint="leave data.scale out, or hand over uint8",
            )
        )


def _check_targets(name: str, data: Dataset, wanted: Wanted, note: Note) -> None:
    targets = data.labels
    for part, array in parts_of(targets).items():
        if bad := not_finite(array):
            raise ConfigError(f"{_named(name, part)}: {bad}", hint="leave these examples out")
    if wanted.objective is None:
        return
    try:
        objectives = wanted.objective(data)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.message}", hint=error.hint) from error
    for read, array in objectives.apart(targets):
        try:
            _check_part(_named(name, read.head.name), array, read.objective, note)
        except ConfigError as error:
            raise read.head.of_it(error) from error


def _named(name: str, part: str) -> str:
    """What messages call targets, or those of one head."""
    return f"{name}: {part}" if part else name


def _check_part(name: str, targets: Array, objective: Objective, note: Note) -> None:
    if objective.note:
        note(f"{name}: {objective.note}")
    for start, block in blocks(targets):
        if (fault := objective.fault(block)) is not None:
            raise ConfigError(
                f"{name}: row {start + fault.row}: {fault.reason}", hint=_target_hint(objective, targets)
            )
    counted = objective.counted(targets)
    there = targets if counted is None else targets[counted]
    if not there.size:
        note(
            f"{name}: no target counts: all are {objective.ignore_index}; nothing is trained or measured of this output here"
        )
        return
    low, high = there.min(), there.max()
    if low == high and len(targets) > 1:
        note(f"{name}: every target is {low}")
    if objective.class_axis is None:
        _check_values(name, targets, np.dtype(np.float32), note)
        if (reach := max(-float(low), float(high))) > _LARGE:
            note(
                f"{name}: values up to {reach:.1e}, from which training may end in NaN: scale them to about 1, or lower training.optimizer.lr"
            )
    elif targets.dtype.kind == "f":
        note(f"{name}: {targets.dtype}, read as int64; no value changes")


def _target_hint(objective: Objective, targets: Array) -> str | None:
    low, high = targets.min(), targets.max()
    if objective.loss.targets == "counts" and low < 0:
        return "leave this example out, or training.loss: mean_squared_error for numbers below zero"
    if objective.loss.targets in QUANTITIES:
        return "scale the targets to about 1, or leave this example out"
    if objective.class_axis is not None:
        counted = low == 1 and high == objective.num_classes
        return "classes are counted from 0: hand over targets - 1" if counted else None
    signs = (low, high) == (-1, 1)
    return "(targets + 1) / 2 turns -1 and 1 into 0 and 1" if signs else None
