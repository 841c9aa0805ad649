"""Keras's archives (``.keras``): a ZIP with HDF5 inside, as data only."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.formats.archive import Archive
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.kinds import hdf5
from xbackend_fl.formats.source import Source, open_source
from xbackend_fl.formats.strict_json import parse
from xbackend_fl.formats.zip_archive import content, is_zip, members

NAME = "keras"
_WEIGHTS = "model.weights.h5"


def read(path: Path) -> Archive:
    """The weights of a ``.keras`` archive. Its configuration is parsed as JSON and never built.

    Raises:
        FormatRefused: The archive or the weights inside break their format.
    """
    source = open_source(path)
    found = members(source)
    about: dict[str, str] = {}
    for name in ("metadata.json", "config.json"):
        if name not in found:
            source.refuse("not-keras", f"is a ZIP archive without {name}")
        parsed = parse(source, bytes(content(source, found[name])), name)
        about |= {
            k: v
            for k, v in parsed.items()
            if k in ("keras_version", "date_saved", "class_name") and type(v) is str
        }
    weights = found.get(_WEIGHTS)
    if weights is None:
        source.refuse("not-keras", f"is a Keras archive without {_WEIGHTS}")
    if weights.method != 0:
        source.refuse("zip-method", f"its {_WEIGHTS} is compressed, which Keras does not do")
    content(source, weights)  # compares the checksum
    inner = source.window(weights.offset, weights.size, _WEIGHTS)
    return hdf5.read_source(inner, NAME, about)


def _matches(head: bytes, source: Source) -> bool:
    return is_zip(head) and _WEIGHTS in members(source)


FORMAT = Format(NAME, read, (".keras",), matches=_matches)
