"""What a certificate says, as data; its bytes, and the signature over them.

The bytes that are signed are the statement as JSON with sorted keys and no spaces: the same statement has the same bytes everywhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from xbackend_fl.errors import FileError, RefusedInput
from xbackend_fl.signing import LENGTH, is_signed, raw, read_public
from xbackend_fl.text import line
from xbackend_fl.writing import write_text

Array = NDArray[Any]

VERSION = 1
"""Of the form of a certificate; a reader refuses a later one."""

_CONTEXT = b"xbfl-certificate-v1\0"
_LARGEST = 256 << 20
_DTYPES = frozenset({"float32", "float64", "int32", "int64", "bool", "uint8", "int8", "int16", "uint16"})

# Of the form as published; the reader says in its own words what is none.
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_KEY = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
_SIGNATURE = "^[A-Za-z0-9+/]{85}[AQgw]==$"


def _json(**words: Any) -> Any:
    return Field(json_schema_extra=words)


@dataclass(frozen=True)
class StoredArray:
    """An array.

    Attributes:
        dtype: NumPy dtype name.
        shape: Its shape.
        data: Its bytes, little-endian, in base64.
    """

    dtype: Annotated[str, _json(enum=sorted(_DTYPES))]
    shape: tuple[Annotated[int, Field(ge=0, lt=1 << 63)], ...]
    data: Annotated[str, _json(pattern=_BASE64)]

    @staticmethod
    def from_array(array: Array) -> StoredArray:
        """An array as text."""
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        return StoredArray(array.dtype.name, array.shape, base64.b64encode(little.tobytes()).decode())

    def array(self) -> Array:
        """The array.

        Raises:
            RefusedInput: It is none.
        """
        if self.dtype not in _DTYPES:
            raise RefusedInput(f"the certificate holds an array of {line(self.dtype, 20)}")
        try:
            content = base64.b64decode(self.data, validate=True)
            found = np.frombuffer(content, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)
        except (binascii.Error, ValueError, OverflowError) as error:
            raise RefusedInput(f"the certificate holds an array that is none: {line(error, 100)}") from error
        return found.astype(self.dtype)


@dataclass(frozen=True)
class Input:
    """An input of the example that probes are drawn like.

    Attributes:
        spec: As ``--input`` names it.
        digest: SHA-256 of dtype, shape and bytes.
        values: The data, if they are small and of a file; else they are drawn again by ``spec``, or given again.
    """

    spec: str
    digest: str
    values: StoredArray | None = None


@dataclass(frozen=True)
class Probe:
    """One question, by seed, and what the reference answered.

    Attributes:
        label: For people.
        seed: Draws weights, data, cotangents and targets.
        asks: What was asked besides outputs, and how weights are drawn: fields of a case that are true.
        redrawn: What becomes of the weights or the data that are drawn.
        inputs: SHA-256 of the data.
        given: The data, where no seed draws them.
        fit: What running statistics are fitted to: ``own`` data, ``usual`` data; ``given`` where they are in ``statistics``; empty without any.
        statistics: Running statistics by canonical name.
        outputs: Outputs, or a sketch of 64 numbers of each where ``sketched``.
        sketched: Whether the outputs are sketches; ONNX Runtime then computes them again.
        runtime: Largest relative error of ONNX Runtime's outputs when the certificate was made; nothing where it was not asked.
        gradients: Sketch of the gradient by parameter.
        moved: Sketch of one optimizer step by parameter.
        updated: Sketch of the running statistics after it.
        rounding: How far rounding moves the named sketch.
    """

    label: str
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    asks: tuple[str, ...]
    redrawn: str
    inputs: str
    given: tuple[StoredArray, ...]
    fit: str
    statistics: Mapping[str, StoredArray]
    outputs: tuple[StoredArray, ...]
    sketched: bool
    runtime: float | None
    gradients: Mapping[str, StoredArray]
    moved: Mapping[str, StoredArray]
    updated: Mapping[str, StoredArray]
    rounding: Mapping[str, StoredArray]


@dataclass(frozen=True)
class Certified:
    """A model that was certified; the first is the reference.

    Attributes:
        backend: Its adapter.
        framework: Name and version of what computed.
        source: As the command line names it.
        digest: SHA-256 of its file, if it is one.
        binding: ``binding.v1.json``.
        errors: Largest relative error by what was compared; the reference's is ONNX Runtime's.
        comparisons: How many comparisons those are.
        notes: What was said besides.
    """

    backend: str
    framework: str
    source: str
    digest: str
    binding: Mapping[str, Any]
    errors: Mapping[str, float]
    comparisons: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """What is certified: that models are the function of one schema, as far as the probes show.

    Attributes:
        fingerprint: Of the schema.
        schema: ``schema.v1.json``.
        inputs: The example.
        usual: Kind of data of every input, where a probe names no other.
        probes: What was asked, and the reference's answers.
        models: Who was asked.
        tolerance: Largest relative error that passes.
        roundings: So many times measured rounding passes as well.
        packages: Version by name.
        machine: System, processor, its instructions and the library of linear algebra.
        own_loop: A training loop of the user's own, by name; nothing of it was looked at.
        not_proven: What none of this shows.
    """

    fingerprint: str
    schema: Mapping[str, Any]
    inputs: tuple[Input, ...]
    usual: tuple[str, ...]
    probes: tuple[Probe, ...]
    models: tuple[Certified, ...]
    tolerance: float
    roundings: float
    packages: Mapping[str, str]
    machine: Mapping[str, str]
    own_loop: str
    not_proven: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """What is signed."""
        return compact(asdict(self)).encode()


@final
@dataclass(frozen=True)
class Certificate:
    """A statement, and who signed it.

    Attributes:
        version: Of this form.
        statement: What is said.
        key: The public key, 32 bytes in base64.
        signature: Ed25519 over the statement, in base64.
    """

    version: Annotated[int, _json(const=VERSION)]
    statement: Statement
    key: Annotated[str, _json(pattern=_KEY)]
    signature: Annotated[str, _json(pattern=_SIGNATURE)]

    def to_json(self) -> str:
        """One line of JSON, the same for the same certificate."""
        return compact(asdict(self))

    def require_trusted(self, trusted: Sequence[Path]) -> Path:
        """The file of the key that signed it.

        Raises:
            RefusedInput: Nobody is trusted, the key is unknown, or the certificate is not what was signed.
        """
        known = {base64.b64encode(raw(read_public(path))).decode(): path for path in trusted}
        if not known:
            raise RefusedInput(
                "whom to trust? a certificate is worth what its signer is",
                hint="--trust FILE.ed25519.pem is the public key of a signer that you know; repeatable",
            )
        if self.key not in known:
            raise RefusedInput(
                f"the certificate was signed with the key {self.key[:12]}…, which is none of {', '.join(path.name for path in trusted)}",
                hint="ask the signer for the public key by another way, and --trust it",
            )
        path = known[self.key]
        signature = base64.b64decode(self.signature)
        if len(signature) != LENGTH or not is_signed(read_public(path), signature, _message(self.statement)):
            raise RefusedInput(
                "the certificate was altered: its signature is of another statement",
                hint="get the certificate again from whoever made it",
            )
        return path


_ADAPTER = TypeAdapter(Certificate)


def sign(statement: Statement, key: Ed25519PrivateKey) -> Certificate:
    """A certificate; Ed25519 signs the same statement with the same bytes."""
    public = base64.b64encode(raw(key.public_key())).decode()
    signature = base64.b64encode(key.sign(_message(statement))).decode()
    return Certificate(VERSION, statement, public, signature)


def read(text: str, where: str) -> Certificate:
    """A certificate from JSON; whether it is signed is asked later.

    Args:
        text: The JSON.
        where: For messages.

    Raises:
        FileError: It is none, or of a later version, or holds what is not signed.
    """
    try:
        plain = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where} is no certificate: {line(str(error))}") from error
    version = plain.get("version") if isinstance(plain, dict) else None
    if type(version) is not int or version < VERSION:
        raise FileError(f"{where} is no certificate: its version is {line(version, 20)}, expected {VERSION}")
    if version > VERSION:
        raise FileError(
            f"{where} is a certificate of version {version}, and this program reads up to {VERSION}",
            hint="pip install --upgrade xbackend-fl",
        )
    try:
        # From the text: a tuple is a list there, half of a character is none, and it is as deep as a schema needs at most.
        found = _ADAPTER.validate_json(text, strict=True)
        _canonical("key", found.key, 32)
        _canonical("signature", found.signature, LENGTH)
    except (ValidationError, ValueError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise FileError(f"{where} is no certificate: {line(str(what), 200)}") from error
    # What is signed is what was understood: whoever looks at the file must see nothing else.
    if strange := _strange(plain, json.loads(found.to_json())):
        raise FileError(
            f"{where} {line(strange, 200)}",
            hint="get the certificate again from whoever made it",
        )
    return found


def _canonical(what: str, text: str, count: int) -> None:
    """Bytes in the one way that base64 writes them."""
    content = base64.b64decode(text, validate=True)
    if len(content) != count or base64.b64encode(content).decode() != text:
        raise ValueError(f"its {what} {line(text, 100)!r} is not {count} bytes in base64")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _strange(given: Any, understood: Any, place: str = "") -> str:
    """The first place where JSON is not what was understood of it, in words; empty if there is none."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key in sorted(given | understood):
            name = f"{place}.{key}".lstrip(".")
            if key not in understood:
                return f"holds {line(name, 100)}, which is no part of a certificate and is not signed"
            if key not in given:
                return f"has no {line(name, 100)}, which is part of a certificate"
            if found := _strange(given[key], understood[key], name):
                return found
        return ""
    if isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        pairs = enumerate(zip(given, understood, strict=True))
        return next((found for i, (a, b) in pairs if (found := _strange(a, b, f"{place}[{i}]"))), "")
    if compact(given) == compact(understood) or (_is_number(given) and given == understood):
        return ""
    return f"holds {line(place, 100)} in another form than the part of a certificate that is signed"


def _is_number(plain: Any) -> bool:
    """Whether it is a JSON number: 10 and 10.0 are one."""
    return isinstance(plain, int | float) and not isinstance(plain, bool)


def read_file(path: Path) -> Certificate:
    """A certificate from its own file.

    Raises:
        FileError: It is missing, too large, or none.
    """
    if not path.is_file():
        raise FileError(f"no such file: {path}")
    if path.stat().st_size > _LARGEST:
        raise FileError(f"{path} is no certificate: it has {path.stat().st_size:,} bytes")
    return read(path.read_text(encoding="utf-8", errors="replace"), str(path))


def write(path: Path, certificate: Certificate) -> None:
    """Write a certificate; the file is there as a whole, or not at all."""
    write_text(path, certificate.to_json() + "\n")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a certificate, as published in ``schemas/``: what it finds no certificate, :func:`read` refuses."""
    document = _ADAPTER.json_schema()
    for form in (document, *document["$defs"].values()):
        # What is no part of it is not signed, and every part is written.
        form |= {"additionalProperties": False, "required": list(form["properties"])}
    return document


def digest_of(arrays: Sequence[Array]) -> str:
    """SHA-256 (hex) of arrays in their order: dtype, shape and bytes, little-endian."""
    state = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        state.update(f"{array.dtype.name}\0{array.shape}\0".encode())
        state.update(little.tobytes())
    return state.hexdigest()


def _message(statement: Statement) -> bytes:
    return _CONTEXT + hashlib.sha256(statement.to_bytes()).digest()


def compact(plain: object) -> str:
    """JSON as it is signed: sorted keys, no spaces, and every character as it is that JSON has no need to escape."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
