"""Which file a path means: a file, a folder with one model, or a file whose name does not say its format."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.errors import FileError
from xbackend_fl.formats import hdf5, npz, pytorch, safetensors, wire
from xbackend_fl.formats.foreign import refuse_folder
from xbackend_fl.formats.source import Source, open_source
from xbackend_fl.formats.zip_archive import members

INDEX = ".index.json"
_BESIDE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")
"""What trainers save beside the weights, under the same endings."""


def in_folder(folder: Path, suffixes: tuple[str, ...]) -> Path | None:
    """The weights in the folder of a downloaded model: its one index, or its one weight file.

    Args:
        folder: The folder.
        suffixes: Endings of weight files.

    Returns:
        The file; ``None`` for a folder that is TensorFlow's.

    Raises:
        FileError: It holds none, or several.
        FormatRefused: It is the checkpoint of another program (``foreign-format``).
    """
    names = sorted(item.name for item in folder.iterdir() if item.is_file())
    if "saved_model.pb" in names or any(name.endswith(".index") for name in names):
        return None
    refuse_folder(folder)
    indexes = [name for name in names if name.endswith(INDEX)]
    files = [name for name in names if name.endswith(suffixes) and not name.startswith(_BESIDE)]
    found = indexes or files
    if len(found) == 1:
        return folder / found[0]
    if found:
        some = ", ".join(found[:4]) + (", …" if len(found) > 4 else "")
        raise FileError(f"{folder} holds {len(found)} models: {some}", hint="name one of them")
    inner = sorted(
        i.name for i in folder.iterdir() if i.is_dir() and any(f.name.endswith(suffixes) for f in i.iterdir())
    )
    raise FileError(
        f"{folder} holds no weight file" + (f", but its folders do: {', '.join(inner[:6])}" if inner else ""),
        hint="name one of them" if inner else f"a weight file ends in one of {' '.join(suffixes)}",
    )


def by_content(path: Path) -> str | None:
    """Name of the format of a file whose ending is none of a format, by its first bytes."""
    source = open_source(path)
    head = bytes(source.view[:512])
    if head.startswith(hdf5.SIGNATURE):
        return hdf5.NAME
    if head.startswith(wire.MAGIC):
        return wire.NAME
    if head.startswith(b"PK"):
        return _zip(source)
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        return pytorch.NAME
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= source.size - 8:
        return safetensors.NAME
    return None


def _zip(source: Source) -> str | None:
    names = list(members(source))
    if "model.weights.h5" in names:
        return hdf5.KERAS
    if any(name.endswith("/data.pkl") for name in names):
        return pytorch.NAME
    return npz.NAME if names and all(name.endswith(".npy") for name in names) else None
