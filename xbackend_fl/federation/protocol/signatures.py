"""Ed25519 signatures behind frames: who made an update, provable later and to others than the connection's two ends.

A sealed frame is the frame and 64 bytes behind it: the signature of ``xbfl-frame-v1``, a zero byte and the frame's own BLAKE3-256. The
frame says its own length, so that one with a seal cannot be taken for one without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xbackend_fl.errors import UpdateRefused
from xbackend_fl.formats.kinds import wire
from xbackend_fl.signing import LENGTH, is_signed

Frame: TypeAlias = bytes | memoryview
SERVER = "the server"
"""Its name, among those of silos."""
_CONTEXT = b"xbfl-frame-v1\0"


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

    def sign(self, frame: bytes) -> bytes:
        """A frame with this side's signature behind it."""
        return frame if self.own is None else frame + self.own.sign(_CONTEXT + wire.digest_of(frame))

    def verify(self, sealed: Frame, name: str) -> Frame:
        """The frame, signed by ``name`` if this side knows keys.

        Raises:
            UpdateRefused: The signature is missing, of somebody else, or of another frame.
        """
        length = wire.norm_of(sealed)
        signature = bytes(sealed[length:])
        # A view: cutting the signature off would copy the frame.
        frame = memoryview(sealed)[:length] if signature else sealed
        if len(signature) not in {0, LENGTH}:
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
        if not is_signed(self.others[name], signature, _CONTEXT + bytes(wire.digest_of(frame))):
            raise UpdateRefused(f"{name} sent a frame that it did not sign")
        return frame
