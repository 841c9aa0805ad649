"""A certificate in the metadata of the weights that it is about, and a look whether a file is of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from xbackend_fl import weights
from xbackend_fl.certificate.files import check_file
from xbackend_fl.certificate.statement import Certificate, Statement, read, read_file
from xbackend_fl.certificate.values import KEY as VALUES
from xbackend_fl.certificate.values import line_of_values, sign_values
from xbackend_fl.certificate.verifying import Line
from xbackend_fl.errors import FileError, RefusedInput
from xbackend_fl.text import line
from xbackend_fl.weights import Archive
from xbackend_fl.writing import atomic_write

KEY = "certificate"
"""Of the metadata."""

_FORMATS = ("onnx", "safetensors")


def embed(path: Path, certificate: Certificate, key: Ed25519PrivateKey) -> None:
    """Write a certificate into a file of canonical weights, which is whole before and after, and sign the values that are in it.

    Args:
        path: ``.onnx`` or ``.safetensors``.
        certificate: Of the same schema.
        key: That which signed it.

    Raises:
        FileError: The file has no place for it.
        SchemaError: It holds weights of another schema, or another graph than the schema's.
    """
    archive = can_hold(path, certificate.statement)
    signed = {KEY: certificate.to_json(), VALUES: sign_values(archive, key)}
    if archive.format == "safetensors":
        metadata = {**archive.metadata, **signed}
        weights.save(path, archive, metadata, format="safetensors", overwrite=True)
        return
    import onnx  # noqa: PLC0415

    from xbackend_fl.canonical.onnx_export import to_bytes  # noqa: PLC0415

    model = onnx.load_model_from_string(path.read_bytes())
    held = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, {**held, **signed})
    with atomic_write(path) as partial:
        partial.write_bytes(to_bytes(model))


def can_hold(path: Path, statement: Statement) -> Archive:
    """A file, opened, that a certificate of a statement can be embedded in.

    Raises:
        FileError: The file has no place for it.
        SchemaError: It holds weights of another schema, or another graph than the schema's.
    """
    archive = weights.open_weights(path)
    if archive.format not in _FORMATS:
        raise FileError(f"{path} has no place for a certificate", hint="give a .onnx or .safetensors file")
    check_file(path, archive, statement)
    return archive


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


def lines_of(path: Path, certificate: Certificate, *, signed: bool = False) -> Iterator[Line]:
    """Whether a file of weights is of its certificate, and its values are those that were signed.

    Args:
        path: The file.
        certificate: The one in it, whose signature was checked.
        signed: Whether values that nobody signed fail.
    """
    of_file = line_of(path, certificate)
    yield of_file
    if of_file.passed:
        yield line_of_values(weights.open_weights(path), certificate, required=signed)


def line_of(path: Path, certificate: Certificate) -> Line:
    """Whether a file of weights is of the certificate's schema, and its graph the one that the schema exports."""
    name = f"file {path.name}"
    try:
        return Line(
            name, passed=True, said=check_file(path, weights.open_weights(path), certificate.statement)
        )
    except RefusedInput as error:
        cure = f"; {error.hint}" if error.hint else ""
        return Line(name, passed=False, said=f"{line(error.message, 400)}{cure}")
