"""Tables with named columns, read batch by batch into arrays: which columns are inputs, which one is the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from xbackend_fl.data.column import Array
from xbackend_fl.data.dataset import Dataset, Splits
from xbackend_fl.data.decoder import notes_of
from xbackend_fl.data.divide import by_names, by_shares, divided
from xbackend_fl.data.kept import Writer, kept, stamps
from xbackend_fl.data.labels import classes_note, classes_of
from xbackend_fl.data.layout import OWNERS, PARTS, Layout, layout_of
from xbackend_fl.data.source import Reading
from xbackend_fl.data.table_writer import TableWriter
from xbackend_fl.errors import ConfigError, FileError, shortened
from xbackend_fl.losses import joined

KEYS = frozenset({"splits", "split_by", "owners", "classes", "cache"})
"""Keys of a course's section ``data`` that tables read."""


@dataclass(frozen=True)
class Table:
    """A table in files.

    Attributes:
        where: What messages call it.
        files: The files, in order.
        columns_of: The columns that one of them has.
        fragment: ``INPUT,INPUT:TARGET``; ``*`` for all other columns.
        batches: Reads the columns of a layout from a file, given what messages call it, as Arrow's batches of rows.
        cure: What is done about a file that cannot be read.
        images: The columns that hold encoded images.
        resize: Whether images of other sizes are brought to that of the model.
    """

    where: str
    files: tuple[Path, ...]
    columns_of: Callable[[Path], Sequence[str]]
    fragment: str
    batches: Callable[[str, Path, Layout], Iterator[pa.RecordBatch]]
    cure: str
    images: frozenset[str] = frozenset()
    resize: bool = False

    def splits(self, how: Reading) -> Splits:
        """Training, validation and test examples."""
        data, parts, owners, skipped = self._read(how, parts=how.split_by)
        rows = by_shares(len(data), how.splits, how.seed) if parts is None else by_names(self.where, parts)
        return divided(self.where, data, rows, owners, skipped)

    def own(self, how: Reading) -> Dataset:
        """All of it, to train on."""
        return self._read(how, parts=None)[0]

    def _read(
        self, how: Reading, *, parts: str | None
    ) -> tuple[Dataset, list[str] | None, Array | None, int]:
        """The rows, the part of each, whose each is, and how many could not be read."""
        beside = {PARTS: parts, OWNERS: how.owners}
        layout = layout_of(
            self.where, self.fragment, self.columns_of(self.files[0]), self.images, how, beside
        )
        if self.resize and not layout.images:
            raise ConfigError(f"{self.where}: #resize is for images, and no column that is read holds any")
        key: tuple[object, ...] = (
            "table",
            stamps(self.files, self.files[0].parent),
            layout,
            [str(e.dtype) for e in how.inputs],
        )
        if layout.images:
            key += (self.resize, how.on_error, [e.shape[1:] for e in how.inputs])
        found = kept(self.files[0], key, lambda writer: self._write(writer, layout, how), how.cache)
        arrays, labels = found.arrays, found.facts["labels"]
        if not found.facts["count"]:
            raise ConfigError(f"{self.where}: no rows")
        notes = [f"{self.where}: {note}" for note in found.facts["notes"]]
        for about in found.facts["images"]:
            notes += notes_of(self.where, about["done"], about["skipped"], found.facts["count"])
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
        targets = {}
        for name, label in layout.targets.items():
            targets[name] = arrays[label]
            if label in labels:
                where = f"{self.where}: {layout.labels[label]}"
                classes = classes_of(where, labels[label], how)
                numbers = np.array([classes.index(text) for text in labels[label]], np.int64)
                targets[name] = numbers[arrays[label]]
                notes.append(classes_note(where, classes, how))
        rows = {name: np.array(labels[name])[arrays[name]] for name in (PARTS, OWNERS) if name in labels}
        named = None if parts is None else rows[PARTS].tolist()
        whole = joined(targets)
        skipped = found.facts["count"] - len(whole)
        return Dataset(tuple(inputs), whole, notes=tuple(notes)), named, rows.get(OWNERS), skipped

    def where_of(self, file: Path) -> str:
        """What messages call one of the files."""
        return self.where if len(self.files) == 1 else f"{self.where}: {file.name}"

    def _write(self, writer: Writer, layout: Layout, how: Reading) -> dict[str, Any]:
        into = TableWriter(self.where, writer, layout, how, resize=self.resize)
        rows = Counter[Path]()
        for file, batch in self._batches(layout):
            into.add(self.where_of(file), batch, rows[file])
            rows[file] += len(batch)
        notes = (
            [f"the inputs are the columns {', '.join(layout.inputs[0])}"] if self.fragment[0] in "*:" else []
        )
        if into.rounded:
            notes.append(
                f"values of {', '.join(sorted(into.rounded))} are rounded to float32, the nearest to each"
            )
        decoders = [into.decoders[number] for number in layout.images]
        return {
            "labels": {key: [*known] for key, known in into.codes.items()},
            "notes": notes,
            "count": rows.total(),
            "images": [{"done": decoder.done, "skipped": decoder.skipped} for decoder in decoders],
        }

    def _batches(self, layout: Layout) -> Iterator[tuple[Path, pa.RecordBatch]]:
        for file in self.files:
            where = self.where_of(file)
            columns = self.columns_of(file)
            if missing := [name for name in layout.names if name not in columns]:
                raise ConfigError(
                    f"{where} has no column {missing[0]!r}, which {self.files[0].name} has; it has {', '.join(columns)}",
                    hint="all files of one source have the same columns",
                )
            with readable(where, self.cure):
                source = self.batches(where, file, layout)
            while True:
                with readable(where, self.cure):
                    batch = next(source, None)
                if batch is None:
                    break
                yield file, batch


@contextmanager
def readable(where: str, cure: str) -> Iterator[None]:
    """Raise :class:`FileError` with a cure for whatever a library says of a file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileError(f"{where}: {shortened(error)}", hint=cure) from error


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
