"""``csv:FILE#INPUT,INPUT:TARGET``: columns of text files with a line of names; a folder is all of its files."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from xbackend_fl.data.layout import Layout
from xbackend_fl.data.source import Reading
from xbackend_fl.data.table import Batches, Table, TableSource, files_of
from xbackend_fl.errors import FileError, shortened

_SEPARATORS = ",;\t"


def _table(place: str, how: Reading) -> Table:
    name, _, fragment = place.partition("#")
    where = f"csv:{name}"
    files = files_of(where, (how.base / name).resolve(), ".csv")
    try:
        parsing = csv.ParseOptions(delimiter=_separator(files[0]))
        with csv.open_csv(files[0], parse_options=parsing) as opened:
            columns = opened.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileError(f"{where}: {shortened(error)}") from error

    def batches(layout: Layout) -> Batches:
        # Inferred types would hang on a file's first rows.
        types = {
            name: pa.float64() if example.dtype.kind == "f" else pa.int64()
            for names, example in zip(layout.inputs, how.inputs, strict=True)
            for name in names
        }
        types |= {name: pa.string() for key, name in layout.labels.items() if key != "target"}
        wanted = csv.ConvertOptions(include_columns=layout.names, column_types=types)
        for file in files:
            with csv.open_csv(file, parse_options=parsing, convert_options=wanted) as opened:
                yield from zip(repeat(file), opened)

    return Table(where, files, tuple(columns), fragment, batches)


def _separator(file: Path) -> str:
    """What stands between the names of the first line."""
    with file.open(encoding="utf-8-sig") as stream:
        names = stream.readline()
    return max(_SEPARATORS, key=names.count)


SOURCE = TableSource(_table)
