"""Frames as Flower carries them."""

from __future__ import annotations

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app import Message as Envelope

from xbackend_fl.errors import UpdateRefused

_STYPE = "xbfl.frame.v1"
_FRAME = "frame"


def to_record(frame: bytes) -> RecordDict:
    """A frame in an array record, which Flower cuts into pieces."""
    array = Array(dtype="uint8", shape=(len(frame),), stype=_STYPE, data=frame)
    return RecordDict({_FRAME: ArrayRecord({_FRAME: array}), "about": ConfigRecord({"stype": _STYPE})})


def frame_of(envelope: Envelope) -> bytes:
    """The frame in a message of Flower's.

    Raises:
        UpdateRefused: It holds none; the message says Flower's reason.
    """
    if envelope.has_error():
        raise UpdateRefused(f"Flower: {envelope.error.reason}")
    record: Any = envelope.content.array_records.get(_FRAME)
    if record is None or _FRAME not in record or record[_FRAME].stype != _STYPE:
        raise UpdateRefused("the message holds no frame")
    data: bytes = record[_FRAME].data
    return data
