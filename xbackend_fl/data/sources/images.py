"""``images:FOLDER``: a folder of images for every class; ``images:FOLDER#resize`` brings them to the size that the model takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import numpy as np

from xbackend_fl.data.dataset import SPLITS, Dataset, Splits
from xbackend_fl.data.divide import by_names, by_shares, divided
from xbackend_fl.data.kept import Writer, kept, stamps
from xbackend_fl.data.labels import classes_of, numbered, said
from xbackend_fl.data.pictures import ENDINGS, BrokenImageError, Pixels, UnfitImageError, Wanted, pixels
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError, FileError

_PARTS = {*SPLITS, "val", "valid"}
_BLOCK = 256
_SHOWN = 5

_Answer = tuple[Pixels, Sequence[str] | BrokenImageError | UnfitImageError]


@final
class _Images:
    is_code = False
    keys = frozenset({"splits", "classes", "on_error", "cache"})

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        del anew
        where, folder, wanted = _asked(place, how)
        found = {path.name for path in _folders(folder)}
        parts = sorted(found) if found and found <= _PARTS else []
        listed = [(part, *row) for part in parts or ["."] for row in _listed(where, folder / part, how)]
        names = [part for part, *_ in listed] if parts else None
        data, rows = _read(where, folder, [row[1:] for row in listed], wanted, how)
        if names is not None:
            return divided(where, data, by_names(where, [names[row] for row in rows]), None)
        return divided(where, data, by_shares(len(data), how.splits, how.seed), None)

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
    shapes = [example.shape[1:] for example in how.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] not in {1, 3}:
        shown = "; ".join(",".join(map(str, ("1", *shape))) for shape in shapes)
        raise ConfigError(
            f"{where}: images are one input of 1 or 3 channels, a height and a width, and the course's `input` is {shown}",
            hint="input: ['1,3,224,224'], for example",
        )
    channels, height, width = shapes[0]
    return where, folder, Wanted(channels, height, width, resize=bool(mark))


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
        rows, skipped, done = [], [], Counter[str]()
        for row, (array, about) in enumerate(_decoded(files, wanted)):
            name = files[row].relative_to(folder)
            if isinstance(about, UnfitImageError):
                raise ConfigError(f"{where}: {name} (image {row}) {about}", hint=about.cure)
            if isinstance(about, BrokenImageError):
                if how.on_error == "stop":
                    raise ConfigError(
                        f"{where}: {name} (image {row}) cannot be read: {about}",
                        hint="take the file away; or data.on_error: skip, which counts what it leaves out",
                    )
                skipped.append(f"{name} (image {row})")
                continue
            writer.add("inputs", array[None])
            done.update(about)
            rows.append(row)
        return {"rows": rows, "skipped": skipped, "done": done}

    found = kept(folder, ("images", stamps(files, folder), wanted, how.on_error), write, how.cache)
    rows: list[int] = found.facts["rows"]
    if not rows:
        raise ConfigError(f"{where}: none of the {len(files)} images can be read")
    notes = [said(where, classes, how)]
    notes += [f"{where}: {count} images: {what}" for what, count in found.facts["done"].items()]
    if skipped := found.facts["skipped"]:
        more = ", …" if len(skipped) > _SHOWN else ""
        notes.append(
            f"{where}: {len(skipped)} of {len(files)} images cannot be read and are skipped: {', '.join(skipped[:_SHOWN])}{more}"
        )
    targets = numbered([listed[row][0] for row in rows], classes)
    return Dataset((found.arrays["inputs"],), targets, notes=tuple(notes)), rows


def _decoded(files: list[Path], wanted: Wanted) -> Iterator[_Answer]:
    """Every image, or what is wrong with it, in order; a block of them is in memory."""

    def one(file: Path) -> _Answer:
        try:
            return pixels(file, wanted)
        except (BrokenImageError, UnfitImageError) as error:
            return np.empty(0, np.uint8), error

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _BLOCK):
            yield from pool.map(one, files[start : start + _BLOCK])
