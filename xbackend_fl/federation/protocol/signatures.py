"""Ed25519 signatures behind frames: who made an update, provable later and to others than the connection's two ends.

A sealed frame is the frame and 64 bytes behind it: the signature of ``xbfl-frame-v1``, a zero byte and the frame's own BLAKE3-256. The
frame says its own length, so that one with a seal cannot be taken for one without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xbackend_fl.errors import FileError, UpdateRefused
from xbackend_fl.formats import wire

Frame: TypeAlias = bytes | memoryview
SERVER = "the server"
"""Its name, among those of silos."""
_CONTEXT = b"xbfl-frame-v1\0"
_LENGTH = 64


@final
@dataclass(frozen=True)
class Signatures:
    """One side's own key, and the keys of those it listens to; without any, frames go as they are.

    Attributes:
        own: Signs what this side says.
        others: By name, what is demanded of those who answer.
    """

    own: Ed25519PrivateKey | None = None
    others: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)

    def seal(self, frame: bytes) -> bytes:
        """A frame with this side's signature behind it."""
        return frame if self.own is None else frame + self.own.sign(_CONTEXT + wire.digest_of(frame))

    def open(self, sealed: Frame, name: str) -> Frame:
        """The frame, signed by ``name`` if this side knows keys.

        Raises:
            UpdateRefused: The signature is missing, of somebody else, or of another frame.
        """
        length = wire.norm_of(sealed)
        signature = bytes(sealed[length:])
        # A view: cutting the signature off would copy the frame.
        frame = memoryview(sealed)[:length] if signature else sealed
        if len(signature) not in {0, _LENGTH}:
            raise UpdateRefused(
                f"{name} sent a frame of {length} bytes with {len(signature)} bytes behind it"
            )
        if not self.others:
            return frame
        if name not in self.others:
            raise UpdateRefused(f"nobody knows a signing key of {name}", hint="see xbfl keys")
        if not signature:
            raise UpdateRefused(
                f"{name} sent a frame without a signature", hint=f"its keys folder has no {name}.ed25519"
            )
        try:
            self.others[name].verify(signature, _CONTEXT + bytes(wire.digest_of(frame)))
        except InvalidSignature as error:
            raise UpdateRefused(f"{name} sent a frame that it did not sign") from error
        return frame


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
    """A private signing key.

    Raises:
        FileError: The file is something else.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is no private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FileError(f"{path} is no Ed25519 key")
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
