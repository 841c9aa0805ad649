"""Tables with named columns, read batch by batch into arrays: which columns are inputs, which one is the target."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import pyarrow as pa

from xbackend_fl.data.arrow import cast, numbers, texts
from xbackend_fl.data.column import Array
from xbackend_fl.data.dataset import Dataset, Splits
from xbackend_fl.data.divide import by_names, by_shares, divided
from xbackend_fl.data.kept import Writer, kept, stamps
from xbackend_fl.data.labels import classes_of, said
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError, FileError, shortened

KEYS = frozenset({"splits", "split_by", "owners", "classes", "cache"})
"""Keys of a course's section ``data`` that tables read."""

_ALL = {"", "*"}
_TARGET, _PARTS, _OWNERS = "target", "parts", "owners"


class Layout(NamedTuple):
    """Which columns are what.

    Attributes:
        inputs: The columns of every input of the model.
        labels: The column of targets, of the part that a row belongs to, and of its owner, as far as they are read.
    """

    inputs: tuple[tuple[str, ...], ...]
    labels: dict[str, str]

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys((*(name for one in self.inputs for name in one), *self.labels.values())))


@dataclass(frozen=True)
class Table:
    """A table in files.

    Attributes:
        where: What messages call it.
        files: The files, in order.
        columns: The columns that they have.
        fragment: ``INPUT,INPUT:TARGET``; ``*`` for all other columns.
        batches: Reads the columns of a layout, as Arrow's batches of rows.
    """

    where: str
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    fragment: str
    batches: Callable[[Layout], Iterator[pa.RecordBatch]]

    def splits(self, how: Reading) -> Splits:
        """Training, validation and test examples."""
        data, parts, owners = self._read(how, parts=how.split_by)
        rows = by_shares(len(data), how.splits, how.seed) if parts is None else by_names(self.where, parts)
        return divided(self.where, data, rows, owners)

    def own(self, how: Reading) -> Dataset:
        """All of it, to train on."""
        return self._read(how, parts=None)[0]

    def _read(self, how: Reading, *, parts: str | None) -> tuple[Dataset, list[str] | None, Array | None]:
        layout = self._layout(how, {_PARTS: parts, _OWNERS: how.owners})
        key = ("table", stamps(self.files, self.files[0].parent), layout, [str(e.dtype) for e in how.inputs])
        found = kept(self.files[0], key, lambda writer: self._write(writer, layout, how), how.cache)
        arrays, labels = found.arrays, found.facts["labels"]
        if not arrays:
            raise ConfigError(f"{self.where}: no rows")
        notes = [f"{self.where}: {note}" for note in found.facts["notes"]]
        inputs = []
        for number, example in enumerate(how.inputs):
            array, shape = arrays[f"input{number}"], example.shape[1:]
            if array.shape[1:] != shape and prod(array.shape[1:]) == prod(shape):
                if array.ndim > 1 and len(shape) > 1:
                    notes.append(
                        f"{self.where}: rows of {list(array.shape[1:])} values are read as {list(shape)}, in their order"
                    )
                array = array.reshape(len(array), *shape)
            inputs.append(array)
        targets = arrays[_TARGET]
        if _TARGET in labels:
            where = f"{self.where}: {layout.labels[_TARGET]}"
            classes = classes_of(where, labels[_TARGET], how)
            targets = np.array([classes.index(label) for label in labels[_TARGET]], np.int64)[targets]
            notes.append(said(where, classes, how))
        rows = {name: np.array(labels[name])[arrays[name]] for name in (_PARTS, _OWNERS) if name in labels}
        named = None if parts is None else rows[_PARTS].tolist()
        return Dataset(tuple(inputs), targets, notes=tuple(notes)), named, rows.get(_OWNERS)

    def _layout(self, how: Reading, beside: dict[str, str | None]) -> Layout:
        listed, colon, target = self.fragment.rpartition(":")
        if not colon or not target:
            raise ConfigError(
                f"{self.where}: which column is the target? It has {', '.join(self.columns)}",
                hint=f"KIND:FILE#INPUT,INPUT:TARGET, or #*:{self.columns[-1]} for all other columns",
            )
        labels = {_TARGET: target} | {key: name for key, name in beside.items() if name is not None}
        not_inputs = {*labels.values(), how.split_by}
        names = (
            [name for name in self.columns if name not in not_inputs]
            if listed in _ALL
            else [name.strip() for name in listed.split(",")]
        )
        for name in (*names, *labels.values()):
            if name not in self.columns:
                close = difflib.get_close_matches(name, self.columns, n=1)
                raise ConfigError(
                    f"{self.where}: no column {name!r}; there are {', '.join(self.columns)}",
                    hint=f"did you mean {close[0]!r}?" if close else None,
                )
        if len(how.inputs) < 2:
            return Layout((tuple(names),), labels)
        if len(names) != len(how.inputs):
            raise ConfigError(
                f"{self.where}: {len(names)} columns, and the course's `input` names {len(how.inputs)} inputs",
                hint="one column for every input, in their order; several numbers of one input are a list in one column",
            )
        return Layout(tuple((name,) for name in names), labels)

    def _write(self, writer: Writer, layout: Layout, how: Reading) -> dict[str, Any]:
        codes: dict[str, dict[str, int]] = {}
        rounded: set[str] = set()
        start = 0
        for batch in self._batches(layout):
            for number, (names, example) in enumerate(zip(layout.inputs, how.inputs, strict=True)):
                array, changed = self._input(batch, names, example.dtype, start)
                self._add(writer, f"input{number}", array, start, ", ".join(names))
                rounded.update(changed)
            for key, name in layout.labels.items():
                where, values = f"{self.where}: {name}", batch.column(name)
                found = texts(where, values, start)
                if found is None and key == _TARGET:
                    array = numbers(where, values, start)
                    dtype = np.dtype(np.float32 if array.dtype.kind == "f" else np.int64)
                    array, changed_target = cast(where, array, dtype, start)
                    rounded.update([name] if changed_target else [])
                else:
                    found = np.array(list(map(str, values.to_pylist()))) if found is None else found
                    known = codes.setdefault(key, {})
                    array = np.array(
                        [known.setdefault(text, len(known)) for text in found.tolist()], np.int64
                    )
                self._add(writer, key, array, start, name)
            start += len(batch)
        notes = (
            [f"the inputs are the columns {', '.join(layout.inputs[0])}"] if self.fragment[0] in "*:" else []
        )
        if rounded:
            notes.append(
                f"values of {', '.join(sorted(rounded))} are rounded to float32, the nearest to each"
            )
        return {"labels": {key: [*known] for key, known in codes.items()}, "notes": notes}

    def _input(
        self, batch: pa.RecordBatch, names: Sequence[str], dtype: np.dtype[Any], start: int
    ) -> tuple[Array, set[str]]:
        """The rows of one input, and the columns that were rounded for it."""
        arrays = [numbers(f"{self.where}: {name}", batch.column(name), start) for name in names]
        # Bytes stay bytes: they may be scaled batch by batch.
        kept_bytes = dtype.kind == "f" and all(array.dtype == np.uint8 for array in arrays)
        rounded = set()
        for place, name in enumerate(names if not kept_bytes else ()):
            arrays[place], changed = cast(f"{self.where}: {name}", arrays[place], dtype, start)
            rounded.update([name] if changed else [])
        if len(arrays) > 1 and any(array.ndim > 1 for array in arrays):
            raise ConfigError(
                f"{self.where}: {', '.join(names)} are columns of one input, and some hold lists",
                hint="one column of lists, or columns of numbers; or name several inputs in the course's `input`",
            )
        return (np.stack(arrays, 1) if len(arrays) > 1 else arrays[0]), rounded

    def _add(self, writer: Writer, key: str, array: Array, start: int, name: str) -> None:
        form = (array.dtype.str, list(array.shape[1:]))
        if key in writer.forms and (before := (writer.forms[key][0], writer.forms[key][1][1:])) != form:
            raise ConfigError(
                f"{self.where}: {name}: rows of {np.dtype(form[0])} {form[1]} from row {start} on, after rows of {np.dtype(before[0])} {before[1]}"
            )
        writer.add(key, array)

    def _batches(self, layout: Layout) -> Iterator[pa.RecordBatch]:
        source = self.batches(layout)
        while True:
            try:
                batch = next(source, None)
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(f"{self.where}: {shortened(error)}") from error
            if batch is None:
                return
            yield batch


def files_of(where: str, path: Path, ending: str) -> tuple[Path, ...]:
    """A file, or all files of a folder with an ending, in the order of their names.

    Raises:
        FileError: There is none.
    """
    files = tuple(sorted(path.glob(f"*{ending}"))) if path.is_dir() else (path,)
    if not files or not files[0].is_file():
        raise FileError(
            f"{where}: no such file: {path}" if not path.is_dir() else f"{where}: {path} holds no *{ending}"
        )
    return files


@final
@dataclass(frozen=True)
class TableSource:
    """A source whose data are a table.

    Attributes:
        table: Makes it, of the place and how it is read.
    """

    table: Callable[[str, Reading], Table]
    is_code: bool = False
    keys: frozenset[str] = KEYS

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        """Training, validation and test examples; no code is run, so that nothing is read anew."""
        del anew
        return self.table(place, how).splits(how)

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        """All of it, to train on."""
        del anew
        return self.table(place, how).own(how)
