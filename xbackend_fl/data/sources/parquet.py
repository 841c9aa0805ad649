"""``parquet:FILE#INPUT,INPUT:TARGET``: columns of Parquet files; a folder is all of its files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import parquet

from xbackend_fl.data.source import Reading
from xbackend_fl.data.table import Layout, Table, TableSource, files_of
from xbackend_fl.errors import FileError, shortened

_BATCH_BYTES, _BUFFER_BYTES = 8 << 20, 1 << 20
_MAX_ROWS = 65_536


def _table(place: str, how: Reading) -> Table:
    name, _, fragment = place.partition("#")
    where = f"parquet:{name}"
    files = files_of(where, (how.base / name).resolve(), ".parquet")

    def batches(layout: Layout) -> Iterator[pa.RecordBatch]:
        for file in files:
            # Its own reading ahead would hold whole groups of rows.
            with parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened:
                about = opened.metadata
                groups = (about.row_group(number) for number in range(about.num_row_groups))
                size = sum(group.total_byte_size for group in groups) // max(about.num_rows, 1)
                rows = max(1, _BATCH_BYTES // max(size, 1))
                yield from opened.iter_batches(min(rows, _MAX_ROWS), columns=layout.names, use_threads=False)

    try:
        columns = parquet.read_schema(files[0]).names
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{where}: {shortened(error)}") from error
    return Table(where, files, tuple(columns), fragment, batches)


SOURCE = TableSource(_table)
