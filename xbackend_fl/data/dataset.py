"""Examples with their targets, and how a course gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.data.alike import errors_once
from xbackend_fl.data.arrays import to_array
from xbackend_fl.data.column import Array, Column, Sliced, is_stored, read
from xbackend_fl.data.draws import generator
from xbackend_fl.data.examine import extreme_values
from xbackend_fl.data.leaf import Users
from xbackend_fl.errors import ConfigError, Refusals, RefusedInput
from xbackend_fl.locate import call

_SPLITS = ("train", "validation", "test")


class Examples(NamedTuple):
    """Some examples in memory, in ONNX layout.

    Attributes:
        inputs: One array per model input, batch first.
        targets: Of the same examples.
    """

    inputs: tuple[Array, ...]
    targets: Array


@dataclass(frozen=True)
class Dataset:
    """Examples in ONNX layout.

    Attributes:
        inputs: One array, or one column that reads rows when they are asked for, per model input; batch first, channels first.
        targets: Class indices in the shape of the output without its class axis, or numbers in the shape of the output, ``[N, ...]``.
        rows: Which examples of the arrays belong to it, in its own order; all if left out. Parts of a data set share
            its arrays: a thousand participants need no more memory than one.
        notes: What was handed over as something else than arrays, one line each, for people.
    """

    inputs: tuple[Column, ...]
    targets: Array
    rows: NDArray[np.intp] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets if self.rows is None else self.rows)

    def subset(self, indices: NDArray[np.intp]) -> Dataset:
        """The examples at ``indices`` over the same arrays."""
        return Dataset(self.inputs, self.targets, indices if self.rows is None else self.rows[indices])

    def gather(self, indices: NDArray[np.intp]) -> Examples:
        """Copies of the examples at ``indices``, in memory."""
        rows = indices if self.rows is None else self.rows[indices]
        return Examples(tuple(read(column, rows) for column in self.inputs), read(self.targets, rows))

    @property
    def labels(self) -> Array:
        """The targets of its own examples."""
        return self.targets if self.rows is None else self.targets[self.rows]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set.

    Attributes:
        train: What participants share out among themselves.
        validation: Watched every round; it chooses the best weights.
        test: Looked at once, at the end.
        owners: Who made each training example, ``[N]``; ``None`` if nobody knows.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    owners: Array | None = None


def extreme_rows(data: Dataset) -> NDArray[np.intp]:
    """Examples with the smallest and largest numbers of each array of inputs or of float targets, ``[K]``.

    Those with the floats closest to zero are among them; so are those with the extreme integers of each column.
    """
    columns = (*data.inputs, *([data.targets] if data.targets.dtype.kind == "f" else []))
    found = {row for column in columns for row in extreme_values(column, data.rows)}
    return np.asarray(sorted(found), np.intp)


def load_splits(
    text: str, base: Path, num_inputs: int | None = None, names: Sequence[str] = (), *, anew: bool = False
) -> Splits:
    """Call ``FILE_OR_MODULE:CALLABLE`` and check what it returns.

    Args:
        text: The callable. It returns a mapping from ``train``, ``validation`` and ``test`` to
            ``(inputs, targets)``, where inputs is an array, a sequence or a dict of arrays in ONNX layout; and perhaps from
            ``owners`` to who made each training example.
        base: Folder that relative files start from.
        num_inputs: How many arrays the model takes; what is handed over decides if left out.
        names: What the course calls its inputs, in order: they may then be handed over in a dict.
        anew: Execute the callable's file again, as another process would.

    Raises:
        ConfigError: It returns something else, or a part is empty or uneven; all mistakes at once.
    """
    found = call(text, base, anew=anew)
    if not isinstance(found, dict) or {str(name) for name in found} - {"owners"} != {*_SPLITS}:
        raise ConfigError(
            f"{text} must return a dict with the keys 'train', 'validation' and 'test', "
            f"received {sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__}",
            hint="nothing was returned: end the function with return" if found is None else None,
        )
    refused = Refusals()
    splits = _parts(text, {name: found[name] for name in _SPLITS}, num_inputs, names, refused)
    owners = None
    if found.get("owners") is not None and "train" in splits:
        with refused:
            owners = _owners(text, found["owners"], len(splits["train"]))
    refused.raise_any()
    return Splits(**splits, owners=owners)


def load_npz(path: Path) -> Splits:
    """Read ``train_x``, ``train_y``, ``validation_x``, … and perhaps ``owners`` from an ``.npz`` file.

    Several inputs are ``train_x0``, ``train_x1``, …

    Raises:
        FileError: The file is missing or broken.
        ConfigError: An array is missing, empty or uneven.
    """
    archive = weights.open(path, "npz")
    refused = Refusals()
    pairs: dict[str, Any] = {}
    for name in _SPLITS:
        inputs = [f"{name}_x"] if f"{name}_x" in archive else []
        inputs = inputs or [
            f"{name}_x{index}" for index in range(len(archive)) if f"{name}_x{index}" in archive
        ]
        if not inputs or f"{name}_y" not in archive:
            raise ConfigError(f"{path} has no {name}_x or no {name}_y; it holds {', '.join(archive)}")
        pairs[name] = (tuple(archive[key] for key in inputs), archive[f"{name}_y"])
    found = _parts(str(path), pairs, None, (), refused)
    owners = None
    if "owners" in archive and "train" in found:
        with refused:
            owners = _owners(str(path), archive["owners"], len(found["train"]))
    refused.raise_any()
    return Splits(**found, owners=owners)


def split_users(users: Users, shares: tuple[float, float, float], seed: int) -> Splits:
    """Divide every user's examples at random into training, validation and test.

    Args:
        users: The examples of many users.
        shares: Of the three parts; every user keeps at least one training example.
        seed: The course's seed.
    """
    parts: tuple[list[NDArray[np.intp]], ...] = ([], [], [])
    owners: list[NDArray[np.intp]] = []
    for number, (name, examples) in enumerate(users.ranges()):
        order = generator(seed, "split", name).permutation(len(examples)) + examples.start
        cuts = np.floor(np.cumsum(shares[:2]) / sum(shares) * len(order) + 0.5).astype(int)
        cuts = np.maximum(cuts, 1)
        for part, rows in zip(parts, np.split(order, cuts), strict=True):
            part.append(rows)
        owners.append(np.full(cuts[0], number, np.intp))
    train, validation, test = (
        Dataset((users.inputs,), users.targets, np.concatenate(part)) for part in parts
    )
    return Splits(train, validation, test, np.concatenate(owners))


def load_dataset(
    text: str, base: Path, num_inputs: int | None = None, names: Sequence[str] = (), *, anew: bool = False
) -> Dataset:
    """Call ``FILE_OR_MODULE:CALLABLE`` for one participant's ``(inputs, targets)``.

    Args:
        text: The callable.
        base: Folder that relative files start from.
        num_inputs: How many arrays the model takes; what is handed over decides if left out.
        names: What the course calls its inputs, in order: they may then be handed over in a dict.
        anew: Execute the callable's file again, as another process would.

    Raises:
        ConfigError: It returns something else, or the data are empty or uneven.
    """
    return _dataset(text, call(text, base, anew=anew), num_inputs, names)


def _parts(
    where: str, pairs: dict[str, Any], num_inputs: int | None, inputs: Sequence[str], refused: Refusals
) -> dict[str, Dataset]:
    """The parts that can be used; ``refused`` gathers what is wrong with the others."""
    parts: dict[str, Dataset] = {}
    errors: list[tuple[str, RefusedInput]] = []
    for name, pair in pairs.items():
        wrong = Refusals()
        with wrong:
            parts[name] = _dataset(f"{where}: {name}", pair, num_inputs, inputs)
        errors += [(f"{where}: {name}", error) for error in wrong.errors]
    for error in errors_once(errors):
        refused.add(error)
    return parts


def _dataset(where: str, pair: Any, num_inputs: int | None = None, inputs: Sequence[str] = ()) -> Dataset:
    if not isinstance(pair, tuple) or len(pair) != 2:
        size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise ConfigError(
            f"{where}: expected (inputs, targets), received {_article(pair)}{size}",
            hint="return inputs, targets: two arrays, or a tuple of arrays and one array",
        )
    refused = Refusals()
    columns: list[Column] = []
    notes: list[str] = []
    values = _several(f"{where}: inputs", pair[0], num_inputs, inputs)
    names = input_names(len(values))
    for name, value in zip(names, values, strict=True):
        with refused:
            column, note = _column(value, f"{where}: {name}")
            columns.append(column)
            notes += [note] if note else []
    targets = np.empty(0)
    with refused:
        targets, note = to_array(pair[1], f"{where}: targets")
        notes += [note] if note else []
    refused.raise_any()
    lengths = {
        name: len(column) for name, column in zip([*names, "targets"], [*columns, targets], strict=True)
    }
    if len({*lengths.values()}) != 1:
        shown = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise ConfigError(f"{where}: inputs and targets differ in length: {shown}")
    if not len(targets):
        raise ConfigError(f"{where}: no examples")
    return Dataset(tuple(columns), targets, notes=tuple(notes))


def _column(value: Any, where: str) -> tuple[Column, str | None]:
    """An array, or a column of what a library reads from files; and a note, if it was something else before."""
    if not is_stored(value):
        return to_array(value, where)
    # Its dtype is judged by an example, as that of an array is.
    to_array(value[:1], where)
    return Sliced(value), None


def input_names(count: int) -> list[str]:
    """What messages call the inputs of a model."""
    return ["inputs"] if count == 1 else [f"inputs[{index}]" for index in range(count)]


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


def _owners(where: str, value: Any, num_examples: int) -> Array:
    owners = np.asarray(value)
    if owners.ndim != 1 or owners.dtype.kind not in "biuUS":
        raise ConfigError(
            f"{where}: owners is an array of {owners.dtype} with {owners.ndim} axes",
            hint="one whole number or one text for every training example, [N]",
        )
    if len(owners) != num_examples:
        raise ConfigError(f"{where}: owners has {len(owners)} entries for {num_examples} examples")
    return owners


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}" if value is not None else "nothing (None)"
