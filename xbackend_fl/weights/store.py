"""Opens and saves weight files of any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.errors import FileError
from xbackend_fl.formats import shards
from xbackend_fl.formats.archive import Archive, Entry
from xbackend_fl.formats.foreign import refuse_file
from xbackend_fl.formats.format import Format
from xbackend_fl.formats.registry import FORMATS
from xbackend_fl.formats.source import forget_pages
from xbackend_fl.weights import found
from xbackend_fl.writing import atomic_write, check_new, is_of_disk

_BLOCK = 1 << 20
_FORGET = 64 << 20


_SUFFIXES = tuple(suffix for item in FORMATS.values() for suffix in item.suffixes)


def format_of(path: Path, name: str | None = None) -> Format:
    """The format of a file, by ``name``, by the ending of ``path``, or by what is there.

    Raises:
        FileError: No format has that name or ending.
    """
    if name is not None:
        if name not in FORMATS:
            raise FileError(f"there is no format {name!r}", hint=f"one of {', '.join(FORMATS)}")
        return FORMATS[name]
    kind = (
        next((item for item in FORMATS.values() if item.is_at(path)), None)
        or _by_ending(path.name.removesuffix(found.INDEX))
        or (found.by_content(path) if path.is_file() else None)
    )
    if kind is not None:
        return kind
    raise FileError(
        f"cannot tell the format of {path} by its name",
        hint=f"name the format, or use one of {' '.join(_SUFFIXES)}",
    )


def _by_ending(name: str) -> Format | None:
    fitting = [(len(end), item) for item in FORMATS.values() for end in item.suffixes if name.endswith(end)]
    return max(fitting, key=itemgetter(0))[1] if fitting else None


def open_weights(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    *,
    external_data: bool = False,
) -> Archive:
    """Open a weight file without running anything that it says.

    Args:
        path: A file, an index of shards (``….index.json``), a folder with a TensorFlow checkpoint, or the folder of a
            downloaded model with one index or one weight file.
        format: Name of its format, if the ending does not tell.
        external_data: Also read the tensors that an ONNX model keeps in other files of its own folder.

    Returns:
        A lazy mapping of name to read-only array.

    Raises:
        FileError: The file is missing, or its format is unknown.
        FormatRefused: It breaks its format, or a limit; its ``code`` says which rule.
    """
    path = Path(path)
    if path.is_dir() and format is None:
        path = found.in_folder(path, _SUFFIXES) or path
    refuse_file(path)
    kind = format_of(path, format)
    read = (kind.read_beside if external_data else None) or kind.read
    if path.name.endswith(found.INDEX):
        return shards.read(path, read)
    archive = read(path)
    return Archive(archive.path, kind.name, archive.entries, archive.metadata, archive.notes)


def save(
    path: Path | str,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    *,
    format: str | None = None,  # noqa: A002
    overwrite: bool = False,
    verify: bool = True,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write tensors; the file appears whole, compared with what it should hold, or not at all.

    Args:
        path: Where; its ending names the format.
        tensors: Arrays by name. An :class:`Archive` is streamed, one tensor at a time, and keeps its ties.
        metadata: Text by key, where the format has a place for it.
        format: Name of the format, if the ending does not tell.
        overwrite: Whether an existing file may be replaced.
        verify: Read the file again before it takes its place.
        on_progress: Hears how many bytes are written, and of how many.

    Raises:
        FileError: The format cannot hold these tensors, the file exists, or it could not be written there.
        OSError: The disk is full or broken; it names the file.
    """
    path = Path(path)
    kind = format_of(path, format)
    if kind.write is None:
        raise FileError(
            f"a {kind.name} file is laid out by the model it belongs to", hint="give the model: --dest-model"
        )
    if not overwrite:
        check_new(path, "choose another file, or --force")
    entries = entries_of(tensors)
    with atomic_write(path) as partial_path:
        try:
            with partial_path.open("x+b") as file:
                kind.write(file, entries, metadata or {}, _counted(on_progress, entries))
        except OSError as error:
            if is_of_disk(error):
                raise
            raise FileError(f"cannot write {path}: {error}") from error
        if verify:
            compare(kind.read(partial_path), entries, path)


def _counted(on_progress: Callable[[int, int], None], entries: Mapping[str, Entry]) -> Callable[[int], None]:
    """Counts what a writer says it wrote, and gives back the pages of mapped files now and then."""
    total = sum(entry.num_bytes for entry in entries.values())
    done = since = 0

    def on_bytes(count: int) -> None:
        nonlocal done, since
        done, since = done + count, since + count
        if since >= _FORGET:
            forget_pages()
            since = 0
        on_progress(done, total)

    return on_bytes


def entries_of(tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, Entry]:
    """Tensors as entries, those of a file not yet read."""
    if isinstance(tensors, Archive):
        return tensors.entries
    return {name: Entry.from_array(array) for name, array in tensors.items()}


def compare(archive: Archive, expected: Mapping[str, Entry], path: Path) -> None:
    """Hold a written file to what was to be written, bit for bit.

    Raises:
        FileError: They differ.
    """
    if archive.entries.keys() != expected.keys():
        raise FileError(f"{path} was written with other tensors than it should have")
    on_bytes = _counted(lambda *_: None, expected)
    for name, entry in expected.items():
        on_bytes(entry.num_bytes)
        if not same_bits(archive[name], entry.read()):
            raise FileError(f"{path} was written with other values of {name!r} than it should have")


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two arrays have one dtype, one shape and the same bytes; NaN equals itself."""
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    if not (left.flags.c_contiguous and right.flags.c_contiguous):
        left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    one, two = left.reshape(-1).view(np.uint8), right.reshape(-1).view(np.uint8)
    # In blocks that stay in the cache: comparing makes an array of the answers.
    blocks = range(0, len(one), _BLOCK)
    return all(np.array_equal(one[start : start + _BLOCK], two[start : start + _BLOCK]) for start in blocks)
