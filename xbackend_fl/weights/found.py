"""Which file a path means: a file, a folder with one model, or a file whose name does not say its format."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.errors import FileError
from xbackend_fl.formats.foreign import refuse_folder
from xbackend_fl.formats.format import HEAD, Format
from xbackend_fl.formats.registry import FORMATS
from xbackend_fl.formats.source import open_source

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


def by_content(path: Path) -> Format | None:
    """The format of a file whose ending is none of a format, by its content."""
    source = open_source(path)
    head = bytes(source.view[:HEAD])
    return next((item for item in FORMATS.values() if item.matches(head, source)), None)
