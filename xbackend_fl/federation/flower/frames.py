"""Frames as Flower carries them."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app import Message as Envelope

from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation.protocol.signatures import Frame

_STYPE = "xbfl.frame.v1"
_FRAME = "frame"
_PIECE = 4 << 20
"""Bytes of an array. Flower puts the chunks of one array together in two more copies of it, so that a frame is several arrays of a chunk each."""


def to_record(frame: Frame) -> RecordDict:
    """A frame in pieces."""
    view = memoryview(frame)
    arrays = ArrayRecord()
    for number, start in enumerate(range(0, len(view), _PIECE)):
        piece = bytes(view[start : start + _PIECE])
        arrays[f"{number:05d}"] = Array(dtype="uint8", shape=(len(piece),), stype=_STYPE, data=piece)
    return RecordDict({_FRAME: arrays, "about": ConfigRecord({"stype": _STYPE})})


def take_frame(envelope: Envelope) -> Frame:
    """The frame in a message of Flower's, which is empty afterwards: a piece is freed when it is copied.

    Raises:
        UpdateRefused: It holds none; the message says Flower's reason.
    """
    if envelope.has_error():
        raise UpdateRefused(f"Flower: {envelope.error.reason}")
    if not envelope.has_content():
        raise UpdateRefused("the message holds nothing")
    record = envelope.content.array_records.get(_FRAME)
    if not record or any(array.stype != _STYPE for array in record.values()):
        raise UpdateRefused("the message holds no frame")
    frame = bytearray(sum(len(array.data) for array in record.values()))
    start = 0
    for name in sorted(record):
        piece = record.pop(name).data
        frame[start : start + len(piece)] = piece
        start += len(piece)
    return memoryview(frame).toreadonly()
