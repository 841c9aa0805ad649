"""An image file as an array: one size, one number of channels, and nothing done in silence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xbackend_fl.errors import shortened

# Pillow's others are rare, or start programs.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
ENDINGS = frozenset(ending for ending, name in Image.registered_extensions().items() if name in _FORMATS)
"""Names of files that hold images end like this, in small letters."""

MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Kinds of pixels that are bytes of grey or colour, as Pillow calls them."""

Pixels = NDArray[np.uint8]


class BrokenImageError(Exception):
    """A file that holds no image, or half of one."""


class UnfitImageError(Exception):
    """An image of another kind than the model takes.

    Attributes:
        cure: What to do.
    """

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True)
class Wanted:
    """What the model takes.

    Attributes:
        channels: 1 for grey, 3 for colour.
        height: Rows of pixels.
        width: Columns of pixels.
        resize: Whether images of other sizes are brought to this one.
    """

    channels: Literal[1, 3]
    height: int
    width: int
    resize: bool


def pixels(file: Path | IO[bytes], wanted: Wanted) -> tuple[Pixels, Sequence[str]]:
    """An image as ``[channels, height, width]``, and what was done to it.

    Raises:
        BrokenImageError: There is no whole image.
        UnfitImageError: Its size, its colours or its kind are others.
    """
    with _decoding(), Image.open(file, formats=_FORMATS) as image:
        return _decoded(image, wanted)


def of_image(image: Image.Image, wanted: Wanted) -> tuple[Pixels, Sequence[str]]:
    """The same of an image that Pillow has opened."""
    with _decoding():
        return _decoded(image, wanted)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnfitImageError:
        raise
    except Exception as error:  # whatever a decoder raises
        raise BrokenImageError(shortened(error)) from error


def _decoded(image: Image.Image, wanted: Wanted) -> tuple[Pixels, Sequence[str]]:
    _check(image, wanted)
    image.load()
    return _converted(image, wanted)


def _check(image: Image.Image, wanted: Wanted) -> None:
    if (count := getattr(image, "n_frames", 1)) > 1:
        raise UnfitImageError(f"has {count} frames", "one image a file")
    if image.size != (wanted.width, wanted.height) and not wanted.resize:
        raise UnfitImageError(
            f"is {image.width} × {image.height}, and the course's `input` says {wanted.width} × {wanted.height} (width × height)",
            "add #resize to the source, which brings every image to the size of `input`; or change `input`",
        )
    if image.mode not in MODES:
        raise UnfitImageError(
            f"has pixels of the kind {image.mode!r}, which are no bytes of grey or colour",
            "read these files in a function of your own: data.source: data.py:load",
        )


def _converted(image: Image.Image, wanted: Wanted) -> tuple[Pixels, Sequence[str]]:
    done: list[str] = []
    if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise UnfitImageError("is transparent in places", "give it a background")
        image = image.convert("RGB")
    elif image.mode in {"1", "L"}:
        image = image.convert("L")
    else:
        if image.mode in {"CMYK", "YCbCr"}:
            done.append(f"{image.mode} turned to RGB")
        image = image.convert("RGB")
    size = (wanted.width, wanted.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
        done.append("resized")
    array = np.asarray(image)
    if array.ndim == 2:
        if wanted.channels == 3:
            done.append("grey read as colour")
        return np.repeat(array[None], wanted.channels, 0), done
    if wanted.channels == 3:
        return np.ascontiguousarray(array.transpose(2, 0, 1)), done
    if (array != array[..., :1]).any():
        raise UnfitImageError(
            "is in colour, and the course's `input` has one channel",
            f"input: ['1,3,{wanted.height},{wanted.width}'], or make all images grey",
        )
    return np.ascontiguousarray(array[None, ..., 0]), done
