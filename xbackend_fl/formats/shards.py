"""Models in several files with an index, as Hugging Face's libraries write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xbackend_fl.formats.archive import Archive, Entry, check_count, checked
from xbackend_fl.formats.source import open_source, shown
from xbackend_fl.formats.strict_json import parse


def read(path: Path, read_one: Callable[[Path], Archive]) -> Archive:
    """All tensors that an index names, from the files beside it.

    Args:
        path: The index: ``{"weight_map": {tensor: file}}``.
        read_one: Reads one file.

    Raises:
        FormatRefused: The index is none (``bad-header``), names a file elsewhere (``outside``), or a tensor
            that its file does not hold (``shards``).
    """
    source = open_source(path)
    index = parse(source, bytes(source.view[: source.size]), "the index")
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        source.refuse("bad-header", "the index has no map of tensors to files")
    check_count(path, len(places))
    files: dict[str, Archive] = {}
    for file in dict.fromkeys(places.values()):
        if not file or Path(file).name != file or "\\" in file or "\0" in file:
            source.refuse("outside", f"names the file {shown(file)}, outside its own folder")
        files[file] = read_one(path.with_name(file))
    entries: dict[str, Entry] = {}
    for name, file in places.items():
        if name not in files[file]:
            source.refuse("shards", f"says that {shown(file)} holds {shown(name)}, which it does not")
        entries[name] = files[file].entries[name]
    metadata = {key: value for archive in files.values() for key, value in archive.metadata.items()}
    notes = tuple(dict.fromkeys(note for archive in files.values() for note in archive.notes))
    return checked(
        Archive(path, next(iter(files.values())).format if files else "index", entries, metadata, notes)
    )
