"""Writes the columns of a table as plain arrays, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, final

import numpy as np
import pyarrow as pa

from xbackend_fl.data.arrow import cast, encoded, numbers, texts
from xbackend_fl.data.column import Array
from xbackend_fl.data.decoder import Decoder, Encoded, wanted_of
from xbackend_fl.data.kept import Writer
from xbackend_fl.data.layout import Layout, is_target
from xbackend_fl.data.pictures import Pixels
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError


@final
class TableWriter:
    """Turns batches of rows into arrays in files.

    Args:
        where: Which table, for messages.
        writer: Where arrays go: ``input0``, ``input1``, …, and one for each label of the layout.
        layout: Which columns are what.
        how: The inputs that the model takes, and what becomes of an image that cannot be read.
        resize: Whether images of other sizes are brought to that of the model.

    Attributes:
        codes: Texts of labels that are text, in the order in which they occur; their arrays hold numbers of these.
        rounded: Columns of which values were rounded.
        decoders: What decodes images, by the number of their input.
    """

    def __init__(self, where: str, writer: Writer, layout: Layout, how: Reading, *, resize: bool) -> None:
        self._where, self._writer, self._layout, self._how = where, writer, layout, how
        self.codes: dict[str, dict[str, int]] = {}
        self.rounded: set[str] = set()
        self.decoders = {
            number: Decoder(
                where,
                wanted_of(f"{where}: {layout.inputs[number][0]}", how.inputs[number], resize=resize),
                how.on_error,
                "leave its row out of the file",
            )
            for number in layout.images
        }

    def add(self, where: str, batch: pa.RecordBatch, start: int) -> None:
        """Write some rows.

        Args:
            where: Which file, for messages.
            batch: The columns of the layout.
            start: How many rows of the file came before.

        Raises:
            ConfigError: They hold something else than numbers, images or text in their place, or another form than those before.
        """
        block = min((decoder.block for decoder in self.decoders.values()), default=max(len(batch), 1))
        for first in range(0, len(batch), block):
            self._add(where, batch.slice(first, block), start + first)

    def _add(self, where: str, batch: pa.RecordBatch, start: int) -> None:
        images = {
            number: self._images(where, batch, number, start, decoder)
            for number, decoder in self.decoders.items()
        }
        kept = [row for row in range(len(batch)) if all(row in found for found in images.values())]
        for number, (names, example) in enumerate(zip(self._layout.inputs, self._how.inputs, strict=True)):
            if number in images:
                found = [images[number][row] for row in kept]
                array = np.stack(found) if found else np.empty(0)
            else:
                array = self._numbers(where, batch, names, example.dtype, start)[kept]
            self._write(where, f"input{number}", array, start, ", ".join(names))
        for key, name in self._layout.labels.items():
            array = self._labels(where, key, batch.column(name), start, name)
            self._write(where, key, array[kept], start, name)

    def _images(
        self, where: str, batch: pa.RecordBatch, number: int, start: int, decoder: Decoder
    ) -> dict[int, Pixels]:
        """The images of one input that can be read, by their place in the batch."""
        (name,) = self._layout.inputs[number]
        found = encoded(f"{where}: {name}", batch.column(name), start)
        place = f"{where}: {name}".removeprefix(f"{self._where}: ")
        names = (f"{place} in row {row}" for row in count(start))
        return dict(decoder.read([*map(Encoded, names, found)]))

    def _labels(self, where: str, key: str, values: Any, start: int, name: str) -> Array:
        """Targets that are numbers; or numbers of texts."""
        found = texts(f"{where}: {name}", values, start)
        if is_target(key) and key in self._writer.forms and (found is None) == (key in self.codes):
            raise ConfigError(
                f"{where}: {name}: {values.type} values from row {start} on, after {'text' if found is None else 'numbers'}",
                hint="write all targets of a source as text, or all as numbers",
            )
        if found is None and is_target(key):
            array = numbers(f"{where}: {name}", values, start)
            dtype = np.dtype(np.float32 if array.dtype.kind == "f" else np.int64)
            array, changed = cast(f"{where}: {name}", array, dtype, start)
            self.rounded.update([name] if changed else [])
            return array
        found = np.array(list(map(str, values.to_pylist()))) if found is None else found
        known = self.codes.setdefault(key, {})
        return np.array([known.setdefault(text, len(known)) for text in found.tolist()], np.int64)

    def _numbers(
        self, where: str, batch: pa.RecordBatch, names: Sequence[str], dtype: np.dtype[Any], start: int
    ) -> Array:
        """The rows of one input of numbers."""
        arrays = [numbers(f"{where}: {name}", batch.column(name), start) for name in names]
        # Bytes stay bytes: they may be scaled batch by batch.
        kept_bytes = dtype.kind == "f" and all(array.dtype == np.uint8 for array in arrays)
        for place, name in enumerate(names if not kept_bytes else ()):
            arrays[place], changed = cast(f"{where}: {name}", arrays[place], dtype, start)
            self.rounded.update([name] if changed else [])
        if len(arrays) > 1 and any(array.ndim > 1 for array in arrays):
            raise ConfigError(
                f"{where}: {', '.join(names)} are columns of one input, and some hold lists",
                hint="one column of lists, or columns of numbers; or name several inputs in the course's `input`",
            )
        return np.stack(arrays, 1) if len(arrays) > 1 else arrays[0]

    def _write(self, where: str, key: str, array: Array, start: int, name: str) -> None:
        if not len(array):
            return
        form = (array.dtype.str, list(array.shape[1:]))
        forms = self._writer.forms
        if key in forms and (before := (forms[key][0], forms[key][1][1:])) != form:
            raise ConfigError(
                f"{where}: {name}: rows of {np.dtype(form[0])} {form[1]} from row {start} on, after rows of {np.dtype(before[0])} {before[1]}"
            )
        self._writer.add(key, array)
