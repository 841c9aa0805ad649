"""What server and silos say to each other: one canonical frame per message.

A frame (``schemas/wire.v1.md``) carries text and arrays under one checksum, and decoding one runs nothing. Messages go over Flower, and
between the processes of one silo, in the same form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.errors import UpdateRefused, XbflError
from xbackend_fl.weights.formats import wire

PROTOCOL = "2"
"""Both sides must have the same; it changes when a message does."""
UNBOUND = "unbound"
"""The kind of the answer of a silo that knows no schema yet, or no longer."""


@final
@dataclass(frozen=True)
class Message:
    """A request or an answer.

    Attributes:
        kind: What is asked for, or ``refused``, or ``raised``.
        fields: Plain data.
        arrays: Arrays by name.
        frame: The frame that it was read from, or nothing.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    frame: bytes | memoryview = field(default=b"", repr=False, compare=False)

    @property
    def identity(self) -> str:
        """BLAKE3-256 (hex) of everything in it: equal messages have equal identities. Empty for one that was not received."""
        return bytes(wire.digest_of(self.frame)).hex() if self.frame else ""

    @staticmethod
    def refusal(error: XbflError) -> Message:
        """The answer of whoever cannot do what was asked."""
        return Message("refused", {"message": error.message, "hint": error.hint})

    @property
    def reason(self) -> str:
        """Why it is not the answer that was wanted."""
        return str(self.fields.get("message", f"unexpected answer {self.kind!r}"))[:20_000]

    def to_bytes(self) -> bytes:
        """As a frame."""
        about = {"kind": self.kind, "protocol": PROTOCOL, "fields": json.dumps(self.fields)}
        return b"".join(wire.encode(self.arrays, about))

    @staticmethod
    def of_bytes(frame: bytes | memoryview, where: str) -> Message:
        """Read a frame; the arrays are views of it.

        Args:
            frame: The bytes.
            where: Who sent it, for messages.

        Raises:
            UpdateRefused: It is no frame, is damaged, or is of another protocol.
        """
        try:
            archive = wire.decode(frame)
            about = archive.metadata
            kind, protocol, fields = about["kind"], about["protocol"], json.loads(about["fields"])
        except (XbflError, KeyError, ValueError) as error:
            reason = error.message if isinstance(error, XbflError) else str(error)
            raise UpdateRefused(f"{where} sent a frame that cannot be read: {reason}") from error
        if not isinstance(fields, dict):
            raise UpdateRefused(f"{where} sent a frame whose fields are a {type(fields).__name__}")
        if protocol != PROTOCOL:
            raise UpdateRefused(
                f"{where} speaks protocol {protocol!r}, expected {PROTOCOL!r}",
                hint="install the same version of xbackend-fl on both sides",
            )
        return Message(kind, fields, {name: archive[name] for name in archive}, frame)
