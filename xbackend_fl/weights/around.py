"""Metadata that somebody added to a file of weights, such as a certificate: kept with the same model, and missed with another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from xbackend_fl.errors import RefusedInput
from xbackend_fl.formats.protobuf import Field, fields
from xbackend_fl.formats.source import open_source
from xbackend_fl.text import shown_names
from xbackend_fl.weights.container import Weights
from xbackend_fl.weights.files import OWN, save_weights
from xbackend_fl.weights.store import open_weights

_PROPERTY = 14
"""Of a ``ModelProto``; nothing that the export writes comes behind it."""

_KEY = 1
"""Of a property."""


def holds_with_more(path: Path, model: Path) -> bool:
    """Whether a file is a model, field by field, and behind it further metadata, or nothing.

    The run in its metadata may have another name: its folder was copied or renamed since.

    Args:
        path: The file; it may be missing, or anything.
        model: A model that was just written.
    """
    try:
        # It refuses a key that stands twice.
        open_weights(path, "onnx")
        found, expected = _but_the_run(path), _but_the_run(model)
        more = found[len(expected) :]
        return found[: len(expected)] == expected and all(number == _PROPERTY for number, _, _ in more)
    except RefusedInput:
        return False


def _but_the_run(path: Path) -> list[Field]:
    source = open_source(path)
    found = []
    for field in fields(source, source.view):
        number, _, value = field
        if number != _PROPERTY or (_KEY, 2, b"run") not in fields(source, value):
            found.append(field)
    return found


def replace_weights(path: Path, weights: Weights, known: str = "") -> tuple[str, str]:
    """Write canonical weights where others may be; metadata that somebody added there stay with the same weights.

    Args:
        path: A safetensors file; it may be missing, or anything.
        weights: The weights.
        known: Their digest, where somebody has it.

    Returns:
        The digest of what was written, and what is to be said of metadata that are gone; empty if none are.
    """
    before, known = metadata_of(path), known or weights.digest
    further = {key: text for key, text in before.items() if key not in OWN}
    if (before.get("fingerprint"), before.get("digest")) == (weights.fingerprint, known):
        return save_weights(path, weights, known=known, further=further), ""
    return save_weights(path, weights, known=known), are_gone(path, further) if further else ""


def metadata_of(path: Path) -> Mapping[str, str]:
    """The metadata of a file; none of one that is missing, or cannot be read."""
    try:
        return open_weights(path).metadata
    except RefusedInput:
        return {}


def are_gone(path: Path, keys: Collection[str]) -> str:
    """What is to be said of metadata that were in a file before it was written again."""
    return (
        f"{path.name} is another model than before, and so {shown_names(sorted(keys))} of its metadata are gone; "
        "xbfl certify … --embed writes a certificate again"
    )
