"""``parquet:FILE#INPUT,INPUT:TARGET``: columns of Parquet files; a folder is all of its files.

A column of bytes, or of ``{bytes, path}`` as Hugging Face writes them, holds encoded images; with ``#resize`` at the end they are brought
to the size that the model takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from xbackend_fl.data.arrow import are_images
from xbackend_fl.data.layout import Layout
from xbackend_fl.data.source import Reading
from xbackend_fl.data.table import KEYS, Table, TableSource, files_of, readable

_BATCH_BYTES, _BUFFER_BYTES = 8 << 20, 1 << 20
_MAX_ROWS = 65_536
_RESIZE = "#resize"
_CURE = "it is damaged or was cut short: copy or write it again"


def _table(place: str, how: Reading) -> Table:
    name, _, fragment = place.partition("#")
    where = f"parquet:{name}"
    files = files_of(where, (how.base / name).resolve(), ".parquet")

    def schema_of(file: Path) -> pa.Schema:
        with readable(where if len(files) == 1 else f"{where}: {file.name}", _CURE):
            return parquet.read_schema(file)

    def batches(_: str, file: Path, layout: Layout) -> Iterator[pa.RecordBatch]:
        # Its own reading ahead would hold whole groups of rows.
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened:
            about = opened.metadata
            groups = (about.row_group(number) for number in range(about.num_row_groups))
            size = sum(group.total_byte_size for group in groups) // max(about.num_rows, 1)
            rows = max(1, _BATCH_BYTES // max(size, 1))
            yield from opened.iter_batches(min(rows, _MAX_ROWS), columns=layout.names, use_threads=False)

    images = frozenset(field.name for field in schema_of(files[0]) if are_images(field.type))
    return Table(
        where,
        files,
        lambda file: list(schema_of(file).names),
        fragment.removesuffix(_RESIZE),
        batches,
        _CURE,
        images,
        resize=fragment.endswith(_RESIZE),
    )


SOURCE = TableSource(_table, keys=KEYS | {"on_error"})
