"""``parquet:FILE#INPUT,INPUT:TARGET``: columns of Parquet files; a folder is all of its files.

A column of bytes, or of ``{bytes, path}`` as Hugging Face writes them, holds encoded images; with ``#resize`` at the end they are brought
to the size that the model takes.
"""

from __future__ import annotations

from itertools import repeat

import pyarrow as pa
from pyarrow import parquet

from xbackend_fl.data.arrow import are_images
from xbackend_fl.data.layout import Layout
from xbackend_fl.data.source import Reading
from xbackend_fl.data.table import KEYS, Batches, Table, TableSource, files_of
from xbackend_fl.errors import ConfigError, FileError, shortened

_BATCH_BYTES, _BUFFER_BYTES = 8 << 20, 1 << 20
_MAX_ROWS = 65_536
_RESIZE = "#resize"


def _table(place: str, how: Reading) -> Table:
    name, _, fragment = place.partition("#")
    where = f"parquet:{name}"
    files = files_of(where, (how.base / name).resolve(), ".parquet")

    def batches(layout: Layout) -> Batches:
        for file in files:
            # Its own reading ahead would hold whole groups of rows.
            with parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened:
                about = opened.metadata
                if missing := [name for name in layout.names if name not in opened.schema_arrow.names]:
                    raise ConfigError(
                        f"{where}: {file.name} has no column {missing[0]!r}, which {files[0].name} has; it has {', '.join(opened.schema_arrow.names)}",
                        hint="all files of one source have the same columns",
                    )
                groups = (about.row_group(number) for number in range(about.num_row_groups))
                size = sum(group.total_byte_size for group in groups) // max(about.num_rows, 1)
                rows = max(1, _BATCH_BYTES // max(size, 1))
                found = opened.iter_batches(min(rows, _MAX_ROWS), columns=layout.names, use_threads=False)
                yield from zip(repeat(file), found)

    try:
        schema = parquet.read_schema(files[0])
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{where}: {shortened(error)}") from error
    images = frozenset(field.name for field in schema if are_images(field.type))
    return Table(
        where,
        files,
        tuple(schema.names),
        fragment.removesuffix(_RESIZE),
        batches,
        images,
        resize=fragment.endswith(_RESIZE),
    )


SOURCE = TableSource(_table, keys=KEYS | {"on_error"})
