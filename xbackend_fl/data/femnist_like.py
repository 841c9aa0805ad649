"""Writes a data set with FEMNIST's format and published statistics, for benchmarks where the real one cannot be had.

62 classes of strokes, drawn by writers with a slant, size, thickness and place of their own. Sizes follow LEAF's paper (table 1): mean
226.83, standard deviation 88.94 examples a writer; half of the examples are digits, as in EMNIST ByClass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.data.draws import generator
from xbackend_fl.errors import ConfigError
from xbackend_fl.writing import atomic_write

MEAN_EXAMPLES, DEVIATION = 226.83, 88.94
NUM_CLASSES = 62
WRITERS_PER_FILE = 100
_SIDE = 28
_POINTS = 6
_MIN, _MAX = 20, 471
_DIGITS_SHARE = 0.5


def write_femnist_like(
    folder: Path, writers: int, seed: int = 0, on_progress: Callable[[int, int], None] = lambda *_: None
) -> list[Path]:
    """Write ``all_data_<i>.json`` files of 100 writers each.

    Args:
        folder: A new folder.
        writers: Number of writers; FEMNIST has 3,597.
        seed: Draws everything.
        on_progress: Told how many writers of how many are written.

    Raises:
        ConfigError: The folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    strokes = generator(seed, "strokes").uniform(0.15, 0.85, (NUM_CLASSES, _POINTS, 2))
    files = []
    for first in range(0, writers, WRITERS_PER_FILE):
        path = folder / f"all_data_{first // WRITERS_PER_FILE}.json"
        _write_file(path, range(first, min(first + WRITERS_PER_FILE, writers)), strokes, seed)
        files.append(path)
        on_progress(min(first + WRITERS_PER_FILE, writers), writers)
    return files


def _write_file(path: Path, numbers: range, strokes: NDArray[np.float64], seed: int) -> None:
    # Pixels are bytes over 255, as in LEAF; their texts are made once.
    texts = [repr(value / 255) for value in range(256)]
    names = [f"f{number:04d}_{number % 100:02d}" for number in numbers]
    drawn = [_writer(strokes, seed, number) for number in numbers]
    with atomic_write(path) as partial, partial.open("w") as file:
        file.write('{"users":[' + ",".join(f'"{name}"' for name in names) + '],"num_samples":[')
        file.write(",".join(str(len(labels)) for _, labels in drawn) + '],"user_data":{')
        for index, (name, (images, labels)) in enumerate(zip(names, drawn, strict=True)):
            file.write(("," if index else "") + f'"{name}":{{"x":[')
            rows = ("[" + ",".join([texts[value] for value in image.tolist()]) + "]" for image in images)
            file.write(",".join(rows) + '],"y":[' + ",".join(map(str, labels.tolist())) + "]}")
        file.write("}}")


def _writer(
    strokes: NDArray[np.float64], seed: int, number: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``[n, 784]`` and labels ``[n]`` of one writer."""
    source = generator(seed, "writer", number)
    count = int(np.clip(source.normal(MEAN_EXAMPLES, DEVIATION), _MIN, _MAX))
    digit = source.random(count) < _DIGITS_SHARE
    labels = np.where(digit, source.integers(0, 10, count), source.integers(10, NUM_CLASSES, count))
    slant, size, thickness = source.normal(0, 0.25), source.uniform(0.75, 1.1), source.uniform(0.035, 0.07)
    place = source.normal(0, 0.04, 2)
    jitter = source.normal(0, 0.02, (count, _POINTS, 2))
    points = (strokes[labels] + jitter - 0.5) * size
    points[..., 0] += slant * points[..., 1]
    points += 0.5 + place
    ink = np.concatenate([_ink(points[i : i + 64], thickness) for i in range(0, count, 64)])
    noisy = 1.0 - np.clip(ink + source.normal(0, 0.02, ink.shape) * (ink > 0), 0, 1)
    return np.rint(noisy * 255).astype(np.uint8), labels.astype(np.int64)


def _ink(points: NDArray[np.float64], thickness: float) -> NDArray[np.float64]:
    """How dark each pixel is, ``[n, 784]``: by its distance to the nearest segment of a stroke."""
    axis = (np.arange(_SIDE) + 0.5) / _SIDE
    pixels = np.stack(np.meshgrid(axis, axis), -1).reshape(1, 1, -1, 2)
    start, along = points[:, :-1, None], np.diff(points, axis=1)[:, :, None]
    share = ((pixels - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    distance = np.sqrt(((pixels - nearest) ** 2).sum(-1)).min(1)
    ink: NDArray[np.float64] = np.clip(1.5 - distance / thickness, 0, 1)
    return ink
