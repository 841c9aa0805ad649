"""What server and silos say to each other: one canonical frame per message.

A frame (``schemas/wire.v1.md``) carries text and arrays under one checksum, and decoding one runs nothing. Messages go over Flower, and
between the processes of one silo, in the same form.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from xbackend_fl.errors import Diverged, UpdateRefused, XbflError, message_of, shortened
from xbackend_fl.formats.kinds import wire
from xbackend_fl.formats.source import Source
from xbackend_fl.formats.strict_json import parse
from xbackend_fl.text import line

PROTOCOL = "3"
"""Both sides must have the same; it changes when a message does."""
UNBOUND = "unbound"
"""The kind of the answer of a silo that knows no schema yet, or no longer."""

_DEPTH, _VALUES, _LARGEST = 16, 200_000, 1 << 63
_HALVES = re.compile("[\ud800-\udfff]")
_FOLDERS = re.compile(
    r"(?:(?<![\w.…])|(?<=\\[nrt]))(?:[A-Za-z]:)?(?:/|\\(?!x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))(?:[^\s/\\'\"<>|:]+[/\\])+"
)
"""Of an absolute path, all but its last part; what is written for a character that is not printable is none, and one may stand behind it."""
_ENDLESS = re.compile(r"\b(nans?|inf|infs|infinit[ey]\w*|non-?finite|not finite)\b", re.IGNORECASE)
_TRACEBACK = "Traceback (most recent call last)"


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
        hint = None if error.hint is None else public(error.hint)
        found = {"diverged": True} if _endless(error) else {}
        return Message("refused", {"message": public(error.message), "hint": hint, **found})

    @staticmethod
    def raised(error: BaseException) -> Message:
        """The answer of whoever met something unforeseen: what it is, and nothing of the machine where it was."""
        found = {"diverged": True} if _endless(error) else {}
        return Message("raised", {"message": public(f"{type(error).__name__}: {error}"), **found})

    @property
    def diverged(self) -> bool:
        """Whether its sender says that the weights it was given lead to NaN or infinity."""
        return self.fields.get("diverged") is True

    @property
    def reason(self) -> str:
        """Why it is not the answer that was wanted, in one line."""
        text = str(self.fields.get("message", f"unexpected answer {self.kind!r}"))
        return public(text)

    @property
    def hint(self) -> str | None:
        """What its sender says can be done, in one line."""
        text = self.fields.get("hint")
        return public(text) if isinstance(text, str) else None

    def to_bytes(self) -> bytes:
        """As a frame."""
        about = {"kind": self.kind, "protocol": PROTOCOL, "fields": json.dumps(self.fields)}
        return b"".join(wire.encode(self.arrays, about))

    @staticmethod
    def from_bytes(frame: bytes | memoryview, where: str) -> Message:
        """Read a frame; the arrays are views of it.

        Args:
            frame: The bytes.
            where: Who sent it, for messages.

        Raises:
            UpdateRefused: It is no frame, is damaged, is of another protocol, or says what nobody says: lists without end, numbers
                beyond 64 bits, text that is no text.
        """
        try:
            archive = wire.decode(frame)
            about = archive.metadata
            kind, protocol, fields = about["kind"], about["protocol"], _fields(about["fields"])
            arrays = {name: archive[name] for name in archive}
        except KeyError as error:
            raise UpdateRefused(f"{where} sent a frame that cannot be read: it has no {error}") from error
        except (XbflError, ValueError) as error:
            reason = error.message if isinstance(error, XbflError) else shortened(error)
            raise UpdateRefused(f"{where} sent a frame that cannot be read: {public(reason)}") from error
        if protocol != PROTOCOL:
            raise UpdateRefused(
                f"{where} speaks protocol {quoted(protocol)}, expected {PROTOCOL!r}",
                hint="install the same version of xbackend-fl on both sides",
            )
        return Message(kind, fields, arrays, frame)


def _endless(error: BaseException) -> bool:
    """Whether an error is about numbers that are not finite: one of ours, or one that a model, a loss or a framework's own check raised."""
    if isinstance(error, Diverged):
        return True
    cause = error.__cause__ if isinstance(error, XbflError) else error
    return cause is not None and (
        isinstance(cause, FloatingPointError) or bool(_ENDLESS.search(message_of(cause)))
    )


def public(text: str) -> str:
    """A text as another organisation may read it: one line, files without the folders that they are in."""
    # Of a traceback, the last line is the reason; the others are somebody's folders.
    last = text.strip().rpartition("\n")[2] if _TRACEBACK in text else text
    return line(_FOLDERS.sub("…/", last))


def quoted(value: object) -> str:
    """What stands where something else was expected, as Python writes it, fit for another organisation, 80 characters at most."""
    return line(public(repr(public(value) if isinstance(value, str) else value)), 80)


def _fields(text: str) -> dict[str, Any]:
    """What a stranger's message says.

    Raises:
        FormatRefused: It is no JSON object, or too large.
        ValueError: It holds what no message does.
    """
    found = parse(Source(Path("frame"), memoryview(b""), None), text.encode(), "what it says")
    waiting: list[tuple[int, object]] = [(0, found)]
    for count in itertools.count(1):
        if not waiting:
            return found
        depth, value = waiting.pop()
        # What a list holds is counted before it is looked at.
        held = len(value) if isinstance(value, dict | list) else 0
        if depth > _DEPTH or count + len(waiting) + held > _VALUES:
            raise ValueError(f"its fields go deeper than {_DEPTH} or hold more than {_VALUES:,} values")
        match value:
            case dict():
                waiting += [(depth + 1, item) for pair in value.items() for item in pair]
            case list():
                waiting += [(depth + 1, item) for item in value]
            case str() if not value.isascii() and _HALVES.search(value):
                raise ValueError(f"its fields hold half of a character: {line(value, 60)}")
            case bool():
                pass
            case int() if not -_LARGEST <= value < _LARGEST:
                raise ValueError(f"its fields hold a number of {value.bit_length()} bits")
            case float() if not math.isfinite(value):
                raise ValueError(f"its fields hold {value}")
            case _:
                pass
    raise AssertionError
