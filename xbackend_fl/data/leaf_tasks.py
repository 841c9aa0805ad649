"""How the examples of each LEAF data set become arrays in ONNX layout."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LETTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
"""LEAF's characters of Shakespeare (``models/utils/language_utils.py``); class index is the position."""

_BYTES_OF_A_TWEET = 160
_WORDS = 10_000
_FACE = 84


@dataclass(frozen=True)
class Task:
    """A data set.

    Attributes:
        name: Its name.
        convert: From one user's ``x`` and ``y`` to inputs and class indices.
    """

    name: str
    convert: Callable[[list[Any], list[Any]], tuple[Array, Array]]


def task_of(example: Any, file: Path) -> Task:
    """The data set that an ``x`` belongs to.

    Raises:
        ValueError: It is none of LEAF's.
    """
    match example:
        case str() if len(example) == 80:
            return Task("shakespeare", _shakespeare)
        case str():
            return Task("celeba", lambda x, y: _celeba(file, x, y))
        case [str(), *_] if len(example) == 5:
            return Task("sent140", _sent140)
        case [[*_], *_]:
            return Task("reddit", _reddit)
        case [float() | int(), *_] if len(example) == 784:
            return Task("femnist", _femnist)
        case [float() | int(), *_]:
            return Task("synthetic", _synthetic)
        case _:
            raise ValueError(f"x is no example of a LEAF data set: {str(example)[:60]!r}")


def _classes(y: list[Any], count: int | None = None) -> Array:
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or (labels != np.floor(labels)).any():
        raise ValueError("y is not a list of class indices")
    labels = labels.astype(np.int64)
    if labels.size and (labels.min() < 0 or (count is not None and labels.max() >= count)):
        wrong = labels[(labels < 0) | (labels >= (count or 1 << 62))][0]
        raise ValueError(f"y holds the label {wrong}, expected 0 to {(count or 0) - 1}")
    return labels


def _femnist(x: list[Any], y: list[Any]) -> tuple[Array, Array]:
    """Floats in [0, 1], white 1.0, to the bytes they were made of: ``[N, 1, 28, 28]`` uint8."""
    pixels = _numbers(x, 784)
    if pixels.size and (pixels.min() < 0 or pixels.max() > 1):
        raise ValueError(f"x holds the pixel {pixels.max():g}, expected 0 to 1")
    return np.rint(pixels * 255).astype(np.uint8).reshape(-1, 1, 28, 28), _classes(y, 62)


def _synthetic(x: list[Any], y: list[Any]) -> tuple[Array, Array]:
    return _numbers(x, len(x[0])).astype(np.float32), _classes(y)


def _numbers(x: list[Any], length: int) -> Array:
    for index, row in enumerate(x):
        if not isinstance(row, list) or len(row) != length:
            found = len(row) if isinstance(row, list) else type(row).__name__
            raise ValueError(f"x[{index}] has {found} numbers, expected {length}")
    return np.asarray(x, np.float64)


def _shakespeare(x: list[Any], y: list[Any]) -> tuple[Array, Array]:
    """80 characters to their indices, the next character as the class; unknown ones are index 1, a space."""
    position = {letter: index for index, letter in enumerate(LETTERS)}
    for index, text in enumerate(x):
        if not isinstance(text, str) or len(text) != 80:
            raise ValueError(f"x[{index}] is no text of 80 characters")
    rows = [[position.get(letter, 1) for letter in text] for text in x]
    return np.asarray(rows, np.int64), np.asarray([position.get(str(letter), 1) for letter in y], np.int64)


def _sent140(x: list[Any], y: list[Any]) -> tuple[Array, Array]:
    """The text of a tweet as bytes, padded with zeros: ``[N, 160]``."""
    rows = np.zeros((len(x), _BYTES_OF_A_TWEET), np.int64)
    for row, tweet in zip(rows, x, strict=True):
        raw = str(tweet[4]).encode()[:_BYTES_OF_A_TWEET]
        row[: len(raw)] = np.frombuffer(raw, np.uint8)
    return rows, _classes(y, 2)


def _reddit(x: list[Any], y: list[Any]) -> tuple[Array, Array]:
    """Windows of words; the class is the word that follows the last one. Words are hashed to 10,000 indices."""
    rows, labels = [], []
    for comment, target in zip(x, y, strict=True):
        for words, following in zip(comment, target["target_tokens"], strict=True):
            rows.append([_word(word) for word in words])
            labels.append(_word(following[-1]))
    return np.asarray(rows, np.int64), np.asarray(labels, np.int64)


def _word(word: str) -> int:
    return 0 if word == "<PAD>" else 1 + zlib.crc32(word.encode()) % (_WORDS - 1)


def _celeba(file: Path, x: list[Any], y: list[Any]) -> tuple[Array, Array]:
    """Images by file name, from LEAF's ``raw/img_align_celeba``, at LEAF's size: ``[N, 3, 84, 84]`` uint8."""
    try:
        from PIL import Image  # noqa: PLC0415  only CelebA needs it
    except ModuleNotFoundError as error:
        raise ValueError("CelebA's images need Pillow: pip install pillow") from error
    folder = file.parent.parent / "raw" / "img_align_celeba"
    rows = []
    for name in x:
        path = folder / Path(name).name
        if not path.is_file():
            raise ValueError(f"the image {path} is missing")
        with Image.open(path) as image:
            rows.append(np.asarray(image.convert("RGB").resize((_FACE, _FACE))).transpose(2, 0, 1))
    return np.stack(rows).astype(np.uint8), _classes(y, 2)
