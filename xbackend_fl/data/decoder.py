"""Encoded images as arrays, in their order and several at a time; one that cannot be read stops, or is left out and counted."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, final

import numpy as np

from xbackend_fl.data.pictures import BrokenImageError, Pixels, UnfitImageError, Wanted, pixels
from xbackend_fl.errors import ConfigError

_BLOCK, _BLOCK_BYTES = 256, 32 << 20
_SHOWN = 5


class Encoded(NamedTuple):
    """An image before it is decoded.

    Attributes:
        name: What messages call it.
        image: Its file or its bytes; ``None`` if it is missing.
    """

    name: str
    image: Path | bytes | None


@final
class Decoder:
    """Decodes images of one input of a model.

    Args:
        where: Whose they are, for messages.
        wanted: What the model takes.
        on_error: What becomes of one that cannot be read.
        cure: How one is taken out, for messages.

    Attributes:
        block: How many are in memory at a time.
        done: How many were changed, by what was done to them.
        skipped: Names of those that cannot be read.
    """

    def __init__(self, where: str, wanted: Wanted, on_error: Literal["stop", "skip"], cure: str) -> None:
        self._where, self._wanted, self._on_error, self._cure = where, wanted, on_error, cure
        self.block = max(1, min(_BLOCK, _BLOCK_BYTES // (wanted.channels * wanted.height * wanted.width)))
        self.done, self.skipped = Counter[str](), list[str]()

    def read(self, images: Sequence[Encoded]) -> Iterator[tuple[int, Pixels]]:
        """Each image that can be read, ``[channels, height, width]``, with its place among those asked for; a block of them is in memory.

        Raises:
            ConfigError: An image is of another kind than the model takes; or it cannot be read, and that is to stop.
        """
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(images), self.block):
                for place, found in enumerate(pool.map(self._one, images[start : start + self.block]), start):
                    if isinstance(found, BrokenImageError):
                        self._skip(images[place].name, found)
                        continue
                    if isinstance(found, UnfitImageError):
                        raise ConfigError(f"{self._where}: {images[place].name} {found}", hint=found.cure)
                    array, done = found
                    self.done.update(done)
                    yield place, array

    def _one(self, image: Encoded) -> tuple[Pixels, Sequence[str]] | BrokenImageError | UnfitImageError:
        if image.image is None:
            return BrokenImageError("it is missing")
        try:
            return pixels(
                io.BytesIO(image.image) if isinstance(image.image, bytes) else image.image, self._wanted
            )
        except (BrokenImageError, UnfitImageError) as error:
            return error

    def _skip(self, name: str, error: BrokenImageError) -> None:
        if self._on_error == "stop":
            raise ConfigError(
                f"{self._where}: {name} cannot be read: {error}",
                hint=f"{self._cure}; or data.on_error: skip, which counts what it leaves out",
            )
        self.skipped.append(name)


def wanted_of(where: str, example: np.ndarray[Any, Any], *, resize: bool) -> Wanted:
    """What an input of the model takes, as images are asked for it.

    Raises:
        ConfigError: It takes no images.
    """
    shape = example.shape[1:]
    if len(shape) != 3 or shape[0] not in {1, 3}:
        raise ConfigError(
            f"{where}: an image is an input of 1 or 3 channels, a height and a width, and the course's `input` is {','.join(map(str, ('1', *shape)))}",
            hint="input: ['1,3,224,224'], for example",
        )
    channels, height, width = shape
    return Wanted(cast("Literal[1, 3]", channels), height, width, resize=resize)


def notes_of(where: str, done: Mapping[str, int], skipped: Sequence[str], count: int) -> list[str]:
    """What people may want to know of so many images that were decoded.

    Raises:
        ConfigError: None is left.
    """
    if len(skipped) == count:
        raise ConfigError(
            f"{where}: none of the {count} images can be read",
            hint="data.on_error: stop says what is wrong with the first",
        )
    notes = [f"{where}: {number} images: {what}" for what, number in done.items()]
    if skipped:
        more = ", …" if len(skipped) > _SHOWN else ""
        notes.append(
            f"{where}: {len(skipped)} of {count} images cannot be read and are skipped: {', '.join(skipped[:_SHOWN])}{more}"
        )
    return notes
