"""``images:FOLDER``: a folder of images for every class; ``images:FOLDER#resize`` brings them to the size that the model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from xbackend_fl.data.dataset import SPLITS, Dataset, Splits
from xbackend_fl.data.decoder import Decoder, Encoded, notes_of, wanted_of
from xbackend_fl.data.divide import by_names, by_shares, divided
from xbackend_fl.data.kept import Writer, kept, stamps
from xbackend_fl.data.labels import classes_note, classes_of, numbered
from xbackend_fl.data.pictures import ENDINGS, Wanted
from xbackend_fl.data.source import Reading
from xbackend_fl.data.targets import of_one
from xbackend_fl.errors import ConfigError, FileError

_PARTS = {*SPLITS, "val", "valid"}
_SHOWN = 5


@final
class _Images:
    is_code = False
    keys = frozenset({"splits", "classes", "on_error", "cache"})

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        del anew
        where, folder, wanted = _asked(place, how)
        there = {path.name for path in _folders(folder)}
        parts = sorted(there) if there and there <= _PARTS else []
        listed = [(part, *row) for part in parts or ["."] for row in _listed(where, folder / part, how)]
        names = [part for part, *_ in listed] if parts else None
        data, rows = _read(where, folder, [row[1:] for row in listed], wanted, how)
        found = (
            by_shares(len(data), how.splits, how.seed)
            if names is None
            else by_names(where, [names[row] for row in rows])
        )
        return divided(where, data, found, None, len(listed) - len(rows))

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        del anew
        where, folder, wanted = _asked(place, how)
        return _read(where, folder, _listed(where, folder, how), wanted, how)[0]


SOURCE = _Images()


def _asked(place: str, how: Reading) -> tuple[str, Path, Wanted]:
    where = f"images:{place}"
    name, mark, option = place.partition("#")
    if mark and option != "resize":
        raise ConfigError(
            f"{where}: {option!r} is nothing that is done to images", hint="images:FOLDER#resize"
        )
    folder = (how.base / name).resolve()
    if not folder.is_dir():
        raise FileError(f"{where}: no such folder: {folder}")
    if len(how.inputs) != 1:
        raise ConfigError(
            f"{where}: images are one input, and the course's `input` names {len(how.inputs)}",
            hint="keep them in a column beside the others: parquet:FILE#image,age:outcome",
        )
    return where, folder, wanted_of(where, how.inputs[0], resize=bool(mark))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listed(where: str, folder: Path, how: Reading) -> list[tuple[str, Path]]:
    """The class and the file of every image, by class and then by name."""
    classes = _folders(folder)
    if not classes:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:_SHOWN])
        raise ConfigError(
            f"{where}: {folder} holds no folder, and every class is one; it holds {there or 'nothing'}",
            hint="FOLDER/cat/1.png, FOLDER/dog/2.png, …",
        )
    found: list[tuple[str, Path]] = []
    for path in classes:
        images = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in ENDINGS]
        if not images and how.classes is None:
            raise ConfigError(
                f"{where}: the class {path.name!r} has no image",
                hint="take the folder away; or state the classes, if others have images of it: data.classes",
            )
        found += [(path.name, image) for image in images]
    return found


def _read(
    where: str, folder: Path, listed: list[tuple[str, Path]], wanted: Wanted, how: Reading
) -> tuple[Dataset, list[int]]:
    """The images that can be read, and which they are."""
    classes = classes_of(where, [label for label, _ in listed], how)
    files = [file for _, file in listed]

    def write(writer: Writer) -> dict[str, Any]:
        decoder = Decoder(where, wanted, how.on_error, "take the file away")
        rows = []
        names = (f"{file.relative_to(folder)} (image {row})" for row, file in enumerate(files))
        for row, array in decoder.read([*map(Encoded, names, files)]):
            writer.add("inputs", array[None])
            rows.append(row)
        return {"rows": rows, "skipped": decoder.skipped, "done": decoder.done}

    found = kept(folder, ("images", stamps(files, folder), wanted, how.on_error), write, how.cache)
    rows: list[int] = found.facts["rows"]
    notes = [classes_note(where, classes, how)]
    notes += notes_of(where, found.facts["done"], found.facts["skipped"], len(files))
    targets = of_one(where, numbered([listed[row][0] for row in rows], classes), how.heads)
    return Dataset((found.arrays["inputs"],), targets, notes=tuple(notes)), rows
