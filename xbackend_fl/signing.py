"""Ed25519 keys and signatures: of frames between silos, and of certificates of models."""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xbackend_fl.errors import FileError
from xbackend_fl.text import line

_LOG = logging.getLogger("xbfl")
_OTHERS = 0o044
"""The group's and everybody's right to read."""

LENGTH = 64
"""Bytes of a signature."""


def is_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether a signature of a message was made with the private key of ``key``."""
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def raw(key: Ed25519PublicKey) -> bytes:
    """A public key, 32 bytes."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def new_pair() -> tuple[bytes, bytes]:
    """A private and a public signing key, as PEM."""
    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def read_private(path: Path) -> Ed25519PrivateKey:
    """A private signing key; a file that others may read is said to be one.

    Raises:
        FileError: The file is something else, or encrypted.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        others = path.stat().st_mode & _OTHERS
    except TypeError as error:
        raise FileError(
            f"{path} is an encrypted private key, and nobody is asked for its passphrase",
            hint=f"openssl pkey -in {path.name} -out me.ed25519 writes it without one; chmod 600 me.ed25519",
        ) from error
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is no private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FileError(f"{path} is no Ed25519 key")
    if others:
        _LOG.warning("%s is a private key that others can read: chmod 600 %s", line(path), line(path))
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """A public signing key.

    Raises:
        FileError: The file is something else.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise FileError(f"{path} is no Ed25519 key")
    return key
