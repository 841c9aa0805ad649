"""The values of the weights around a certificate, signed by whoever embedded it there.

What is signed is ``xbfl-values-v1``, a zero byte, and the SHA-256 of the digest of the tensors and of what the file says of its schema, course, run
and round, as compact JSON.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xbackend_fl.certificate.statement import Certificate, compact
from xbackend_fl.certificate.verifying import Line
from xbackend_fl.signing import LENGTH, is_signed
from xbackend_fl.text import line
from xbackend_fl.weights import Archive, digest

KEY = "certificate_values"
"""Of the metadata."""

_CONTEXT = b"xbfl-values-v1\0"
_SAID = ("fingerprint", "course", "run", "round")


def sign_values(archive: Archive, key: Ed25519PrivateKey) -> str:
    """The signature of a file's tensors, in base64.

    Args:
        archive: The file, opened.
        key: That which signs the certificate.
    """
    return base64.b64encode(key.sign(_message(archive))).decode()


def line_of_values(archive: Archive, certificate: Certificate, *, required: bool) -> Line:
    """Whether the values in a file are those that the signer of its certificate embedded it around.

    Args:
        archive: The file, opened.
        certificate: The one in it, whose signature was checked.
        required: Whether values that nobody signed fail.
    """
    text = archive.metadata.get(KEY)
    if text is None:
        said = "nobody signed them: whoever holds the file can write others into it"
        return Line("values", passed=not required, said=said)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(certificate.key))
    if not is_signed(key, _decoded(text), _message(archive)):
        said = "others than those that the signer of the certificate embedded it around"
        return Line("values", passed=False, said=said)
    metadata = archive.metadata
    of = (
        f", round {metadata['round']} of run {metadata.get('run', '')}"
        if "round" in metadata
        else "; the file does not say of which run and round it is, so that an older one passes just as well"
    )
    return Line("values", passed=True, said=line(f"signed with the certificate's key{of}"))


def _decoded(text: str) -> bytes:
    """64 bytes; zeros, which are nobody's signature, if there is something else."""
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        found = b""
    return found if len(found) == LENGTH else bytes(LENGTH)


def _message(archive: Archive) -> bytes:
    said = {name: archive.metadata[name] for name in _SAID if name in archive.metadata}
    plain = compact({"digest": digest(archive), **said})
    return _CONTEXT + hashlib.sha256(plain.encode()).digest()
