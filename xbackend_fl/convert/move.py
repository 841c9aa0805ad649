"""Moves weights: file to canonical, canonical to file, and back again before the file is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.adapter import Trainer
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.canonical.dtypes import HALVES, rounded, widened
from xbackend_fl.convert.exporting import by_exporter, needs_exporter
from xbackend_fl.convert.lite import by_lite_exporter, lite_exporter, lite_format
from xbackend_fl.convert.models import Side
from xbackend_fl.convert.outputs import Output, check_read_again, compared_outputs
from xbackend_fl.errors import FileError, RefusedInput, SchemaError
from xbackend_fl.formats.format import Format
from xbackend_fl.mapping import check_lengths
from xbackend_fl.mapping.names import naming, not_saved
from xbackend_fl.mapping.native_file import has_digits, natives_of
from xbackend_fl.weights import Archive, Weights, digest
from xbackend_fl.weights.as_onnx import write_graph
from xbackend_fl.weights.onnx_writing import Writing
from xbackend_fl.weights.store import format_of, same_bits
from xbackend_fl.writing import as_the_system_says, atomic_write, check_new, place_beside

Array = NDArray[Any]
Canonical = Mapping[str, Array]


@dataclass(frozen=True)
class Report:
    """What was done and how it was verified.

    Attributes:
        path: The new file.
        tensors: Tensors moved.
        num_bytes: Their bytes.
        verified: How the new file was compared.
        outputs: Differences of the outputs, if there was a model to compute them with.
        notes: What was left out.
    """

    path: Path
    tensors: int
    num_bytes: int
    verified: str
    outputs: tuple[Output, ...] = ()
    notes: tuple[str, ...] = ()


def convert(
    source: Archive,
    destination: Path,
    file_format: str | None = None,
    *,
    reader: Side | None = None,
    writer: Side | None = None,
    schema: Schema | None = None,
    example: Sequence[Array] = (),
    writing: Writing = Writing(),  # noqa: B008  frozen
    rounding: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Report:
    """Convert an opened file.

    Without sides, tensors keep their names and layouts. A reader turns native tensors into canonical ones, a writer
    canonical ones into native ones; with one side missing, that end of the conversion is canonical.

    Args:
        source: The file.
        destination: The new file.
        file_format: Its format, if the ending does not tell.
        reader: Model or binding that the source belongs to.
        writer: Model or binding that the destination belongs to.
        schema: Of a canonical source, from which alone a new ONNX graph is written.
        example: Inputs in ONNX layout; with them and models, both sides also compute.
        writing: How a new ONNX graph is written.
        rounding: Whether a model in half precision takes numbers that it has to round.
        overwrite: Whether an existing file may be replaced.
        on_progress: Hears how many bytes are written, and of how many.

    Raises:
        SchemaError: The file does not belong to the model or binding, or holds more digits than the model.
        RefusedInput: The destination cannot be written so.
        RunFailed: What was written is not what was read, or the models disagree.
    """
    if not len(source):
        said = "".join(f"; {note}" for note in source.notes)
        raise FileError(
            f"{source.path} holds no tensors{said}",
            hint="name a file with weights; xbfl inspect lists what is in one",
        )
    if not overwrite:
        check_new(destination, "choose another file, or --force")
    if (lite := lite_format(destination, file_format)) is not None:
        return _for_small_machines(
            lite,
            source,
            destination,
            reader,
            writer,
            example,
            writing,
            rounding=rounding,
            overwrite=overwrite,
        )
    kind = format_of(destination, file_format)
    of_schema = schema is not None and reader is None and writer is None and kind.name == "onnx"
    of_model = reader is not None and reader.trainer is not None and writer is None and kind.name == "onnx"
    if writing.asks and not (of_schema or of_model):
        raise RefusedInput(
            f"only a new ONNX graph has {'sequence axes' if writing.sequence_axes else 'an opset'}",
            hint=f"leave {'--sequence-axis' if writing.sequence_axes else '--opset'} out, or give the model of SOURCE alone (--source-model), or a run or a --schema, and a DESTINATION that ends in .onnx",
        )
    if schema is not None and of_schema:
        return _by_schema(source, destination, schema, writing)
    if reader is None and writer is None:
        weights.save(
            destination,
            source,
            source.metadata,
            format=kind.name,
            overwrite=overwrite,
            on_progress=on_progress,
        )
        return Report(destination, len(source), source.num_bytes, "every bit read again", notes=source.notes)
    places, canonical = _moved(source, reader, writer, rounding=rounding)
    with atomic_write(destination) as partial:
        own: tuple[str, ...] = ()
        if kind.name == "onnx" and writer is None and reader is not None and needs_exporter(reader):
            verified, outputs, own = by_exporter(partial, canonical, reader, example, writing)
        else:
            verified = _write(partial, kind, canonical, reader, writer, source, on_progress, writing)
            outputs = compared_outputs(canonical, reader, writer, example)
        if writing.sequence_axes:
            assert reader is not None
            # The model holds the weights since the outputs were compared.
            check_lengths(reader.model, canonical, example, writing.sequence_axes)
        _replace(destination, overwrite=overwrite)
    left = () if reader is None else _left_out(source, places, reader.binding)
    told = () if writer is not None or reader is None else _held_in(kind, reader.binding)
    size = sum(array.nbytes for array in canonical.values())
    return Report(destination, len(canonical), size, verified, outputs, (*source.notes, *own, *left, *told))


def _by_schema(source: Archive, destination: Path, schema: Schema, writing: Writing) -> Report:
    """Canonical weights as the graph of their schema; no model is needed."""
    canonical = _checked(source, schema.fingerprint, schema.by_name)
    with atomic_write(destination) as partial:
        write_graph(partial, schema, Weights.from_schema(schema, canonical), writing)
        check_read_again(canonical, weights.open_weights(partial, "onnx"), partial)
    size = sum(array.nbytes for array in canonical.values())
    return Report(destination, len(canonical), size, "every canonical bit read again", notes=source.notes)


def _for_small_machines(
    lite: str,
    source: Archive,
    destination: Path,
    reader: Side | None,
    writer: Side | None,
    example: Sequence[Array],
    writing: Writing,
    *,
    rounding: bool,
    overwrite: bool,
) -> Report:
    """A model with the weights of the file, as a file of a runtime."""
    side, exporter = lite_exporter(lite, writer or reader, writing)
    places, canonical = _moved(source, reader, writer, rounding=rounding)
    with atomic_write(destination) as partial:
        verified, outputs, notes = by_lite_exporter(partial, exporter, side, canonical, example)
        _replace(destination, overwrite=overwrite)
    left = () if reader is None else _left_out(source, places, reader.binding)
    size = sum(array.nbytes for array in canonical.values())
    return Report(destination, len(canonical), size, verified, outputs, (*source.notes, *notes, *left))


def _moved(
    source: Archive, reader: Side | None, writer: Side | None, *, rounding: bool
) -> tuple[Mapping[str, str], Canonical]:
    """Where the tensors of the file belong, and what they are in canonical form."""
    places = {} if reader is None else _places(source, reader)
    canonical = _canonical(source, reader, writer, places)
    if writer is not None and any(native.dtype in HALVES for native in writer.binding.natives.values()):
        # What a file can hold, and is compared with.
        canonical = writer.binding.export(_stored(canonical, writer.binding, rounding=rounding))
    return places, canonical


def _canonical(
    source: Archive, reader: Side | None, writer: Side | None, places: Mapping[str, str]
) -> Canonical:
    if reader is not None:
        return reader.binding.export(natives_of(source, reader.binding, reader.trainer, places))
    assert writer is not None
    return _checked(source, writer.binding.fingerprint, writer.binding.parameters)


def _checked(source: Archive, fingerprint: str, names: Collection[str]) -> dict[str, Array]:
    """Canonical tensors of a file, which must be of a schema."""
    stated = source.metadata.get("fingerprint")
    if stated not in (None, fingerprint):
        raise SchemaError(
            f"{source.path} holds weights of schema {str(stated)[:12]}, expected {fingerprint[:12]}",
            hint="give the schema they belong to (--schema), or the model they come from (--source-model)",
        )
    missing = [name for name in names if name not in source]
    if missing:
        raise SchemaError(
            f"{source.path} has no canonical parameter {missing[0]!r}",
            hint="if its names are a model's own, give that model (--source-model) or its --binding",
        )
    return {name: widened(np.array(source[name])) for name in names}


def canonical_of(source: Archive, side: Side | None) -> Mapping[str, Array]:
    """The tensors of a file in canonical form; as they are, without a side."""
    return (
        source
        if side is None
        else side.binding.export(natives_of(source, side.binding, side.trainer, _places(source, side)))
    )


def _places(source: Archive, side: Side) -> dict[str, str]:
    return naming(source, side.binding, side.trainer, source.format)


def _stored(canonical: Canonical, binding: Binding, *, rounding: bool) -> dict[str, Array]:
    """Native tensors as float32, with the digits that the model has.

    Raises:
        SchemaError: They would have to be rounded, and may not.
    """
    natives = binding.restore(canonical)
    for name, array in natives.items():
        dtype = binding.natives[name].dtype
        if dtype not in HALVES or has_digits(array, dtype):
            continue
        if not rounding:
            raise SchemaError(
                f"{name!r} of the {binding.backend} model is {dtype}, and the numbers for it have more digits",
                hint=f"--dtype {dtype} rounds to it; a sum of two numbers, as of recurrent biases, may need more digits than both",
            )
        natives[name] = _in_range(widened(rounded(array, dtype)), array, name, dtype)
    return natives


def _in_range(made: Array, array: Array, name: str, dtype: str) -> Array:
    if not np.array_equal(np.isfinite(made), np.isfinite(array)):
        largest = np.abs(array[np.isfinite(array)]).max()
        raise SchemaError(f"{name!r} holds values that {dtype} cannot, up to {largest:.3g}")
    return made


def _narrow(natives: Mapping[str, Array], binding: Binding) -> dict[str, Array]:
    """Native tensors in the dtypes of the model."""
    return {name: rounded(array, binding.natives[name].dtype) for name, array in natives.items()}


def _held_in(kind: Format, binding: Binding) -> tuple[str, ...]:
    halves = sorted({storage for name in binding.parameters if (storage := binding.storage(name))})
    if kind.name != "onnx" or not halves:
        return ()
    return (
        f"weights of {' and '.join(halves)} are float32 in the ONNX file: the same numbers, computed with in float32",
    )


def _write(
    partial: Path,
    kind: Format,
    canonical: Canonical,
    reader: Side | None,
    writer: Side | None,
    source: Archive,
    on_progress: Callable[[int, int], None],
    writing: Writing,
) -> str:
    """Write the file and read it again; returns what was compared."""
    if writer is None:
        assert reader is not None
        _write_canonical(partial, kind, canonical, reader, on_progress, writing)
        check_read_again(canonical, weights.open_weights(partial, kind.name), partial)
        return "every canonical bit read again"
    natives = _narrow(writer.binding.restore(canonical), writer.binding)
    unsaved: frozenset[str] = frozenset()
    if writer.trainer is not None:
        if writer.binding.one_way:
            raise RefusedInput(f"the map goes one way: {writer.binding.one_way}")
        unsaved = not_saved(writer.trainer, writer.binding.natives, kind.name)
        _check_unsaved(writer.trainer, natives, unsaved)
        writer.trainer.write(natives)
    if writer.trainer is not None and kind.name in writer.trainer.formats:
        _save_native(writer.trainer, partial, kind)
    else:
        # What is no number may have other bits once a framework computed with it.
        held = {} if writer.trainer is None else _all(writer.trainer, writer.binding, unsaved)
        own = {**held, **{name: array for name, array in natives.items() if name not in unsaved}}
        weights.save(
            partial, own, _provenance(source), format=kind.name, verify=False, on_progress=on_progress
        )
    check_read_again(canonical, canonical_of(weights.open_weights(partial, kind.name), writer), partial)
    return "exported again from the new file, every canonical bit"


def _all(trainer: Trainer, binding: Binding, unsaved: frozenset[str]) -> dict[str, Array]:
    """Every tensor of a model but the states of its random generators, and what its framework does not save."""
    own = {
        name: a
        for name, a in trainer.read().items()
        if name not in unsaved and (name in binding.owners or a.dtype.kind != "u")
    }
    return _narrow(own, binding)


def _check_unsaved(trainer: Trainer, natives: Mapping[str, Array], unsaved: frozenset[str]) -> None:
    """What no file of the model holds must already have the right values in the model.

    Raises:
        RefusedInput: A value would be lost.
    """
    held = trainer.read() if unsaved else {}
    for name in sorted(unsaved & natives.keys()):
        if not same_bits(held[name], widened(natives[name])):
            raise RefusedInput(
                f"{name!r} has other values in the source than in the model it is for, whose framework does not save it",
                hint="register it so that it is saved (persistent=True), or build the model with the same values",
            )


def _provenance(source: Archive) -> dict[str, str]:
    return {"converted_from": source.format}


def _save_native(trainer: Trainer, partial: Path, kind: Format) -> None:
    with place_beside(partial) as folder:
        folder.mkdir()
        with as_the_system_says(folder / "weights"):
            written = trainer.save(folder / "weights", kind.name)
        if kind.name == "checkpoint":
            partial.mkdir()
            for file in folder.iterdir():
                shutil.move(file, partial / file.name)
        else:
            shutil.move(written, partial)


def _write_canonical(
    partial: Path,
    kind: Format,
    canonical: Canonical,
    reader: Side,
    on_progress: Callable[[int, int], None],
    writing: Writing,
) -> None:
    fingerprint, schema = reader.binding.fingerprint, reader.schema
    if kind.name == "onnx":
        if schema is None:
            raise RefusedInput("an ONNX file needs the graph", hint="give the model: --source-model")
        write_graph(partial, schema, Weights.from_schema(schema, canonical), writing)
        return
    if kind.write is None:
        raise RefusedInput(
            f"a {kind.name} file is laid out by the model it belongs to", hint="give the model: --dest-model"
        )
    storage = {name: dtype for name in canonical if (dtype := reader.binding.storage(name))}
    storage = {name: dtype for name, dtype in storage.items() if has_digits(canonical[name], dtype)}
    if schema is not None and kind.name == "safetensors":
        weights.save_weights(partial, Weights.from_schema(schema, canonical), storage)
        return
    held = {name: rounded(array, storage.get(name, "float32")) for name, array in canonical.items()}
    about = {"fingerprint": fingerprint, "digest": digest(held)}
    weights.save(partial, held, about, format=kind.name, verify=False, on_progress=on_progress)


def _left_out(source: Archive, places: Mapping[str, str], binding: Binding) -> tuple[str, ...]:
    taken = set(places.values())
    left = [name for name in source if name not in taken]
    own = [name for name in binding.owners if name not in places]
    notes = []
    if own:
        what = "tensor is" if len(own) == 1 else "tensors are"
        notes.append(
            f"{len(own)} {what} never saved with this model and come from the model itself: {_some(own)}"
        )
    if left:
        notes.append(
            f"{len(left)} tensors of the file are no shared parameters and were left out: {_some(left)}"
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _replace(destination: Path, *, overwrite: bool) -> None:
    """Make room for a folder; a file is replaced by the renaming itself."""
    if destination.is_dir() and overwrite:
        shutil.rmtree(destination)
