"""``xbfl convert``: weights from one file and framework to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import MODEL, External, From, Inputs, Json, Only, Rename, print_json
from xbackend_fl.cli.progress import progress_bar

if TYPE_CHECKING:
    from xbackend_fl.adapter.example import Example
    from xbackend_fl.canonical import Schema
    from xbackend_fl.convert import Report, Side
    from xbackend_fl.convert.of_run import RunRound
    from xbackend_fl.weights import Archive

_LARGE = 256 << 20
"""Bytes from which a progress bar is worth its line."""


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="Weight file, index of shards, TensorFlow's folder, or the folder of a run."),
    ],
    destination: Annotated[Path, typer.Argument(help="The new file; its ending names the format.")],
    source_format: From = None,
    to: Annotated[str | None, typer.Option("--to", metavar="FORMAT", help="Format of DESTINATION.")] = None,
    source_model: Annotated[str | None, typer.Option(help=f"Model that SOURCE belongs to: {MODEL}")] = None,
    dest_model: Annotated[str | None, typer.Option(help="Model that DESTINATION is for, likewise.")] = None,
    binding: Annotated[
        list[Path] | None,
        typer.Option(help="Binding (xbfl map -o) instead of a model; the second one is for DESTINATION."),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Schema of a canonical SOURCE, if --dest-model is another's, or for an ONNX graph without a model."
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--round", help="Which round, if SOURCE is the folder of a run; the last if left out."),
    ] = None,
    inputs: Inputs = None,
    sequence_axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT.AXIS",
            help="Axis of any length in a new ONNX graph, both from 0 on, in ONNX layout, e.g. 0.1; repeatable.",
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators in a new ONNX graph, 18 to 24.")
    ] = None,
    only: Only = None,
    rename: Rename = None,
    dtype: Annotated[str | None, typer.Option(help="Cast floating-point tensors, e.g. bfloat16.")] = None,
    external_data: External = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Convert SOURCE to DESTINATION; exit 0 only if the new file was verified.

    xbfl convert net.pt net.safetensors

    xbfl convert net.pt net.weights.h5 --source-model torch:net.py:build
    --dest-model tensorflow:keras_net.py:build --input 1,3,64,64

    xbfl convert runs/one net.onnx --round 7
    """
    from xbackend_fl import weights
    from xbackend_fl.convert import convert as run
    from xbackend_fl.convert import selected
    from xbackend_fl.course import sequence_axis as sequence_axis_of
    from xbackend_fl.weights.onnx_writing import Writing

    run_round = _round(source, number)
    opened = (
        weights.open_weights(source, source_format, external_data=external_data)
        if run_round is None
        else run_round.archive
    )
    archive = selected(opened, only or (), rename or (), dtype)
    example: Example = ()
    if source_model or dest_model:
        from xbackend_fl.cli.models import examples

        example = examples(inputs)
    free = [sequence_axis_of(text, inputs or ()) for text in sequence_axis or ()]
    modelled = source_model or dest_model or binding or (to or destination.suffix) not in {"onnx", ".onnx"}
    of_run = None if modelled else run_round
    writing = Writing(free, opset) if of_run is None else of_run.writing_with(free, opset)
    reader, writer = _sides(archive, source_model, dest_model, binding or [], schema, example)
    large = archive.num_bytes >= _LARGE and not as_json
    with progress_bar("writing", "bytes", shown=large) as on_progress:
        report = run(
            archive,
            destination,
            to,
            reader=reader,
            writer=writer,
            example=tuple(example.values()) if isinstance(example, dict) else example,
            schema=_graph(schema, run_round),
            writing=writing,
            rounding=dtype is not None,
            overwrite=force,
            on_progress=on_progress,
        )
    proof = writer.largest_error if writer is not None and writer.comparisons else None
    if as_json:
        print_json(_plain(report, proof))
    else:
        _show(report, proof)


def _sides(
    archive: Archive,
    source_model: str | None,
    dest_model: str | None,
    bindings: list[Path],
    schema: Path | None,
    example: Example,
) -> tuple[Side | None, Side | None]:
    if bindings:
        if source_model or dest_model:
            raise typer.BadParameter("--binding stands in for models; give one or the other")
        return _bound_sides(archive, bindings)
    if source_model and dest_model:
        from xbackend_fl.cli.models import build
        from xbackend_fl.convert import open_pair

        return open_pair(build(source_model), build(dest_model), example)
    if not source_model and not dest_model:
        return None, None
    from xbackend_fl.cli.models import build
    from xbackend_fl.convert import open_side
    from xbackend_fl.mapping.proof.publish import read_schema

    known = None if schema is None else read_schema(schema)
    adapter, model = build(source_model or dest_model or "")
    side = open_side(adapter, model, example, known)
    return (side, None) if source_model else (None, side)


def _round(source: Path, number: int | None) -> RunRound | None:
    """A round of a run, if SOURCE is the folder of one; who converts a file does without the rooms of courses."""
    if not ((source / "course.yaml").is_file() and (source / "checkpoints").is_dir()):
        if number is not None:
            raise typer.BadParameter(f"--round is of the folder of a run, and {source} is none")
        return None
    from xbackend_fl.convert.of_run import round_of

    return round_of(source, number)


def _graph(schema: Path | None, run_round: RunRound | None) -> Schema | None:
    """The schema that SOURCE is canonical weights of, if that is known."""
    from xbackend_fl.mapping.proof.publish import read_schema

    if schema is not None:
        return read_schema(schema)
    return None if run_round is None else run_round.schema


def _bound_sides(archive: Archive, bindings: list[Path]) -> tuple[Side | None, Side | None]:
    from xbackend_fl.convert import read_side
    from xbackend_fl.errors import SchemaError

    found = [read_side(path) for path in bindings]
    if len(found) > 2 or len({side.binding.fingerprint for side in found}) > 1:
        raise SchemaError("give at most two bindings, of one schema")
    if len(found) == 2:
        return found[0], found[1]
    canonical = set(archive).issuperset(found[0].binding.parameters)
    return (None, found[0]) if canonical else (found[0], None)


def _plain(report: Report, proof: float | None) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "tensors": report.tensors,
        "bytes": report.num_bytes,
        "verified": report.verified,
        "proof": proof,
        "outputs": [vars(output) for output in report.outputs],
        "notes": report.notes,
    }


def _show(report: Report, proof: float | None) -> None:
    for note in report.notes:
        echo(f"note: {note}")
    if proof is not None:
        echo(f"proven: both models are one function; largest relative error {proof:.1e}")
    for output in report.outputs:
        echo(f"output {output.name}: largest difference {output.max_abs:.1e}, relative {output.relative:.1e}")
    echo(f"{report.path}: {report.tensors} tensors, {report.num_bytes:,} bytes; verified: {report.verified}")
