"""Whether a file of weights is of a certificate: its tensors are the schema's, and its graph is the one that the schema exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.canonical import Schema
from xbackend_fl.canonical.dtypes import widened
from xbackend_fl.certificate.difference import difference
from xbackend_fl.certificate.statement import Statement
from xbackend_fl.errors import FileError, RefusedInput, SchemaError, shortened
from xbackend_fl.text import line, shown_names
from xbackend_fl.weights import Archive, Weights
from xbackend_fl.weights.values import check_values

if TYPE_CHECKING:
    import onnx

_DIGEST = "digest"
"""Of the metadata: what the tensors were when they were written."""

_METADATA = {_DIGEST, "fingerprint", "course", "run", "round", "certificate", "certificate_values"}
"""Of an ONNX file: what the toolkit writes there, of which no runtime takes anything."""

_FOR_PEOPLE = {"author", "description", "license", "model_author", "model_license"}
"""Of an ONNX file: what is said of a model to people, the last two by ONNX's own page. Others are data to some program: sherpa-onnx takes even ``version`` from there."""

_OTHER = (
    "a graph that somebody changed, optimized or exported otherwise is not what was certified: take its weights, xbfl convert FILE.onnx "
    "weights.safetensors, and write the graph again with them: xbfl convert weights.safetensors net.onnx --source-model … --input …"
)


def check_file(path: Path, archive: Archive, statement: Statement) -> str:
    """Hold a file against a statement.

    Args:
        path: The file.
        archive: It, opened.
        statement: What is certified.

    Returns:
        What was found to be so.

    Raises:
        SchemaError: It is of another schema, a tensor is none of its weights, or its graph is not the schema's.
        FileError: A tensor of it cannot be read.
    """
    fingerprint = archive.metadata.get("fingerprint")
    if fingerprint != statement.fingerprint:
        raise SchemaError(
            f"{path.name} is of schema {line(fingerprint, 12)}, the certificate of {line(statement.fingerprint, 12)}",
            hint="certify the model that the file was made from",
        )
    _check_no_checkpoint(path, archive)
    schema = Schema.from_json(json.dumps(statement.schema))
    held = Weights.from_schema(schema, {name: widened(array) for name, array in archive.items()})
    check_values(held, schema.variances)
    recorded = archive.metadata.get(_DIGEST)
    if recorded is not None and recorded != weights.digest(archive):
        raise SchemaError(
            "its tensors are not those that its header has the digest of", hint="get the file again"
        )
    if archive.format != "onnx":
        return f"{len(held)} tensors of {schema.fingerprint[:12]}"
    _check_graph(path, schema, held)
    said = f"the graph that {schema.fingerprint[:12]} exports, with {len(held)} tensors"
    if beside := sorted(_FOR_PEOPLE & archive.metadata.keys()):
        return f"{said}; nobody certified what it says as {shown_names(beside)}"
    return said


def _check_no_checkpoint(path: Path, archive: Archive) -> None:
    from xbackend_fl.rounds.checkpoint import is_checkpoint  # noqa: PLC0415  what runs are made of, which a certificate needs for nothing else

    if archive.format != "safetensors" or not is_checkpoint(archive):
        return
    number, run = archive.metadata.get("round", "N"), path.absolute().parent.parent
    raise SchemaError(
        f"{path.name} is the checkpoint of round {line(number, 20)}: it holds the state of the course beside the weights",
        hint=line(
            f"a certificate goes into model.onnx, last.safetensors or best.safetensors of the run, or into the model of that round: xbfl convert {run} net.onnx --round {number}",
            400,
        ),
    )


def _check_graph(path: Path, schema: Schema, held: Mapping[str, NDArray[Any]]) -> None:
    """The model in a file is, byte by byte, what the schema exports with the file's weights: all of it that a runtime reads."""
    import onnx  # noqa: PLC0415  weights alone need none

    from xbackend_fl.canonical.onnx_export import to_onnx  # noqa: PLC0415

    try:
        found = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # whatever protobuf says
        raise FileError(f"{path} is no ONNX file: {shortened(error, 100)}") from error
    opset = next((item.version for item in found.opset_import if not item.domain), 0)
    try:
        fresh = to_onnx(schema, held, sequence_axes=_free_axes(found, schema), opset=opset)
    except RefusedInput as error:
        raise SchemaError(
            f"nothing to hold its graph against: {error.message}",
            hint="embed the certificate in the weights alone, as .safetensors",
        ) from error
    others = sorted({item.key for item in found.metadata_props} - _METADATA - _FOR_PEOPLE)
    if others:
        raise SchemaError(
            f"its metadata have {line(repr(others[0]), 40)}, which the export does not write: there are programs that take settings from there",
            hint=f"take it out, or say it beside the file; {', '.join(sorted(_FOR_PEOPLE))} may stay",
        )
    for model in (found, fresh):
        del model.metadata_props[:]
        # What is said for people.
        model.ClearField("doc_string")
        model.graph.ClearField("doc_string")
    if place := difference(found, fresh):
        raise SchemaError(
            f"its graph is not the one that {schema.fingerprint[:12]} exports: {place}", hint=_OTHER
        )


def _free_axes(model: onnx.ModelProto, schema: Schema) -> list[tuple[int, int]]:
    """Which axes of the inputs a file leaves free, besides the batch; whether they may be is seen from the graph that they make."""
    return [
        (index, axis)
        for index, (item, port) in enumerate(zip(model.graph.input, schema.inputs, strict=False))
        for axis, dim in enumerate(item.type.tensor_type.shape.dim[: len(port.shape)])
        if axis and dim.HasField("dim_param")
    ]
