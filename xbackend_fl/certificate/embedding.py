"""A certificate in the metadata of the weights that it is about, and a look whether a file is of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xbackend_fl import weights
from xbackend_fl.canonical import Schema
from xbackend_fl.certificate.statement import Certificate, read, read_file
from xbackend_fl.certificate.verifying import Line
from xbackend_fl.errors import FileError, SchemaError, shortened
from xbackend_fl.mapping.probe.draw import draw_inputs
from xbackend_fl.mapping.probe.runtime import execute
from xbackend_fl.mapping.proof.verify import TOLERANCE, relative_error
from xbackend_fl.writing import atomic_write

KEY = "certificate"
"""Of the metadata."""

_FORMATS = ("onnx", "safetensors")


def embed(path: Path, certificate: Certificate) -> None:
    """Write a certificate into a file of canonical weights, which is whole before and after.

    Args:
        path: ``.onnx`` or ``.safetensors``.
        certificate: Of the same schema.

    Raises:
        FileError: The file has no place for it.
        SchemaError: It holds weights of another schema.
    """
    archive = weights.open_weights(path)
    if archive.format not in _FORMATS:
        raise FileError(f"{path} has no place for a certificate", hint="give a .onnx or .safetensors file")
    _require_same(path, archive.metadata, certificate)
    if archive.format == "safetensors":
        metadata = {**archive.metadata, KEY: certificate.to_json()}
        weights.save(path, archive, metadata, format="safetensors", overwrite=True)
        return
    import onnx  # noqa: PLC0415

    from xbackend_fl.canonical.onnx_export import to_bytes  # noqa: PLC0415

    model = onnx.load_model_from_string(path.read_bytes())
    held = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, {**held, KEY: certificate.to_json()})
    with atomic_write(path) as partial:
        partial.write_bytes(to_bytes(model))


def certificate_in(path: Path) -> Certificate:
    """The certificate in a file: one of its own, or of weights.

    Raises:
        FileError: There is none.
    """
    if path.suffix == ".json":
        return read_file(path)
    text = weights.open_weights(path).metadata.get(KEY)
    if text is None:
        raise FileError(f"{path} holds no certificate", hint="xbfl certify … --embed writes one into a file")
    return read(text, str(path))


def line_of(path: Path, certificate: Certificate) -> Line:
    """Whether a file of weights is of the certificate's schema, and a graph in it computes what the schema does with its weights."""
    archive = weights.open_weights(path)
    statement = certificate.statement
    schema = Schema.from_json(json.dumps(statement.schema))
    try:
        _require_same(path, archive.metadata, certificate)
        held = weights.Weights.from_schema(schema, {name: archive[name] for name in schema.by_name})
    except (KeyError, SchemaError) as error:
        return Line(f"file {path.name}", passed=False, said=shortened(error))
    if archive.format != "onnx":
        return Line(f"file {path.name}", passed=True, said=f"weights of {statement.fingerprint[:12]}")
    from xbackend_fl.canonical.onnx_session import OnnxSession, SessionRefused  # noqa: PLC0415

    inputs = draw_inputs(schema, [port.shape for port in schema.inputs], 0)
    feeds: Mapping[str, NDArray[Any]] = {
        port.name: array for port, array in zip(schema.inputs, inputs, strict=True)
    }
    try:
        found = OnnxSession(path).run(feeds)
    except SessionRefused as error:
        return Line(f"file {path.name}", passed=False, said=shortened(error))
    pairs = zip(found, execute(schema, held, inputs), strict=True)
    apart = max(relative_error(one, two) for one, two in pairs)
    return Line(
        f"file {path.name}",
        apart <= TOLERANCE,
        f"its graph and the schema differ by {apart:.1e} with its weights",
    )


def _require_same(path: Path, metadata: Mapping[str, str], certificate: Certificate) -> None:
    found, wanted = metadata.get("fingerprint"), certificate.statement.fingerprint
    if found != wanted:
        raise SchemaError(
            f"{path} is of schema {str(found)[:12]}, the certificate of {wanted[:12]}",
            hint="certify the model that the file was made from",
        )
