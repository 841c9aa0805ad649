"""``csv:FILE#INPUT,INPUT:TARGET``: columns of text files with a line of names; a folder is all of its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from xbackend_fl.data.layout import Layout, is_target
from xbackend_fl.data.source import Reading
from xbackend_fl.data.table import Table, TableSource, files_of, readable
from xbackend_fl.errors import ConfigError, FileError, shortened

_SEPARATORS = ",;\t"
_CURE = (
    "UTF-8 text, a line of names, and as many fields in every line; quote a field that holds the separator"
)
_NO_NUMBER = re.compile(
    r"In CSV column #(\d+): Row #(\d+): CSV conversion error to \w+: invalid value '(.*)'"
)
_ROW = re.compile(r"Row #(\d+)")


def _table(place: str, how: Reading) -> Table:
    name, _, fragment = place.partition("#")
    where = f"csv:{name}"
    files = files_of(where, (how.base / name).resolve(), ".csv")

    def columns_of(file: Path) -> Sequence[str]:
        place = where if len(files) == 1 else f"{where}: {file.name}"
        with (
            readable(place, _CURE),
            _counting(place),
            csv.open_csv(file, parse_options=_parsing(file)) as opened,
        ):
            return list(opened.schema.names)

    def batches(where: str, file: Path, layout: Layout) -> Iterator[pa.RecordBatch]:
        # Inferred types would hang on a file's first rows.
        types = {
            name: pa.float64() if example.dtype.kind == "f" else pa.int64()
            for names, example in zip(layout.inputs, how.inputs, strict=True)
            for name in names
        }
        types |= {name: pa.string() for key, name in layout.labels.items() if not is_target(key)}
        wanted = csv.ConvertOptions(include_columns=layout.names, column_types=types)
        with (
            _counting(where, partial(columns_of, file)),
            csv.open_csv(file, parse_options=_parsing(file), convert_options=wanted) as opened,
        ):
            yield from opened

    return Table(where, files, columns_of, fragment, batches, _CURE)


@contextmanager
def _counting(where: str, columns: Callable[[], Sequence[str]] = tuple) -> Iterator[None]:
    """Say what Arrow finds wrong in a text with rows as every other message counts them, and with the names of ``columns``."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if found := _NO_NUMBER.search(str(error)):
            column, row, value = found.groups()
            raise ConfigError(
                f"{where}: {columns()[int(column)]}: {value!r} in {_row(row)} is no number",
                hint="number it, leave its row out, or name other columns as inputs",
            ) from error
        text = _ROW.sub(lambda found: _row(found[1]), shortened(error))
        raise FileError(f"{where}: {text}", hint=_CURE) from error


def _row(number: str) -> str:
    """A row that Arrow counts from 1, the line of names among them, as every other message counts it."""
    return f"row {int(number) - 2} (counted from 0, behind the line of names)"


def _parsing(file: Path) -> csv.ParseOptions:
    """Fields are separated by what stands between the names of the first line."""
    with file.open(encoding="utf-8-sig") as stream:
        names = stream.readline()
    return csv.ParseOptions(delimiter=max(_SEPARATORS, key=names.count))


SOURCE = TableSource(_table)
