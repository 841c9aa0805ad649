"""Which columns of a table are inputs, which one is the target, and which hold images."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError

TARGET, PARTS, OWNERS = "target", "parts", "owners"
"""What a column of a table may be, beside an input."""

_ALL = {"", "*"}


class Layout(NamedTuple):
    """Which columns are what.

    Attributes:
        inputs: The columns of every input of the model.
        labels: The column of targets (of every head's, ``target.NAME``), of the part that a row belongs to, and of its owner, as far as they are read.
        images: Numbers of the inputs whose column holds encoded images.
    """

    inputs: tuple[tuple[str, ...], ...]
    labels: dict[str, str]
    images: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys((*(name for one in self.inputs for name in one), *self.labels.values())))

    @property
    def targets(self) -> dict[str, str]:
        """Labels that are targets, by the head's name; by an empty one where a course has one loss."""
        return {key.removeprefix(TARGET).removeprefix("."): key for key in self.labels if is_target(key)}


def is_target(key: str) -> bool:
    """Whether a label is a target."""
    return key == TARGET or key.startswith(f"{TARGET}.")


def layout_of(
    where: str,
    fragment: str,
    columns: Sequence[str],
    images: Collection[str],
    how: Reading,
    beside: dict[str, str | None],
) -> Layout:
    """What a fragment says of the columns that there are.

    Args:
        where: Which table, for messages.
        fragment: ``INPUT,INPUT:TARGET``; ``*`` for all other columns; ``HEAD,HEAD=COLUMN`` for the targets of several heads.
        columns: All of the table.
        images: Those that hold encoded images.
        how: The inputs that the model takes.
        beside: Columns that are read beside inputs and target, by what they are.

    Raises:
        ConfigError: It names no target, a column that is not there, or as many as make no inputs of the model.
    """
    listed, colon, target = fragment.rpartition(":")
    if not colon or not target:
        raise ConfigError(
            f"{where}: which column is the target? It has {', '.join(columns)}",
            hint=f"KIND:FILE#INPUT,INPUT:TARGET, or #*:{columns[-1]} for all other columns",
        )
    labels = _targets(where, target, how) | {key: name for key, name in beside.items() if name is not None}
    not_inputs = {*labels.values(), how.split_by}
    names = (
        [name for name in columns if name not in not_inputs]
        if listed in _ALL
        else [name.strip() for name in listed.split(",")]
    )
    for name in (*names, *labels.values()):
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            raise ConfigError(
                f"{where}: no column {name!r}; there are {', '.join(columns)}",
                hint=f"did you mean {close[0]!r}?" if close else None,
            )
    if len(how.inputs) < 2:
        inputs: tuple[tuple[str, ...], ...] = (tuple(names),)
    else:
        if len(names) != len(how.inputs):
            raise ConfigError(
                f"{where}: {len(names)} columns, and the course's `input` names {len(how.inputs)} inputs",
                hint="one column for every input, in their order; several numbers of one input are a list in one column",
            )
        inputs = tuple((name,) for name in names)
    found = [number for number, one in enumerate(inputs) if {*one} & {*images}]
    for number in found:
        if len(inputs[number]) > 1:
            raise ConfigError(
                f"{where}: {', '.join(inputs[number])} are columns of one input, and {', '.join(sorted({*inputs[number]} & {*images}))} holds images",
                hint="name the column of images alone; or name several inputs in the course's `input`",
            )
    return Layout(inputs, labels, tuple(found))


def _targets(where: str, text: str, how: Reading) -> dict[str, str]:
    """The columns of targets: one; or one for each head, ``HEAD=COLUMN``, or ``HEAD`` if the column is called so."""
    if not how.heads:
        return {TARGET: text}
    if len(how.heads) == 1 and "=" not in text:
        return {f"{TARGET}.{how.heads[0]}": text}
    pairs = (entry.strip().partition("=") for entry in text.split(","))
    found = {name.strip(): (column or name).strip() for name, _, column in pairs}
    if {*found} != {*how.heads}:
        raise ConfigError(
            f"{where}: the targets are {', '.join(found)}, and training.outputs reads {', '.join(how.heads)}",
            hint=f"KIND:FILE#*:{','.join(f'{name}=COLUMN' for name in how.heads)}",
        )
    return {f"{TARGET}.{name}": found[name] for name in how.heads}
