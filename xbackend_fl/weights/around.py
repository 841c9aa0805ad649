"""Whether an ONNX file is another one with metadata added behind it, as somebody's certificate is."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.errors import RefusedInput
from xbackend_fl.formats.protobuf import fields
from xbackend_fl.formats.source import open_source
from xbackend_fl.weights.store import open_weights

_PROPERTY = 14
"""Of a ``ModelProto``; nothing that the export writes comes behind it."""


def holds_with_more(path: Path, model: Path) -> bool:
    """Whether a file is a model, byte by byte, and behind it further metadata, or nothing.

    Args:
        path: The file; it may be missing, or anything.
        model: A model that was just written.
    """
    try:
        # It refuses a key that stands twice.
        open_weights(path, "onnx")
        found, expected = open_source(path), open_source(model)
        behind = fields(found, found.view[expected.size :])
        return found.view[: expected.size] == expected.view and all(
            number == _PROPERTY for number, _, _ in behind
        )
    except RefusedInput:
        return False


def metadata_of(path: Path) -> frozenset[str]:
    """The keys of the metadata of an ONNX file; none of one that is missing, or cannot be read."""
    try:
        return frozenset(open_weights(path, "onnx").metadata)
    except RefusedInput:
        return frozenset()
