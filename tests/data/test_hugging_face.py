"""Data sets of Hugging Face give what their own formats give; the oracle is the library itself."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from xbackend_fl.data import Reading, content
from xbackend_fl.data.handed import dataset_of
from xbackend_fl.errors import ConfigError

RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.standard_normal((7, 3, 5, 6)).astype(np.float32), [0, 1, 2, 0, 1, 2, 0]
PIXELS = RNG.integers(0, 256, (7, 5, 6, 3), np.uint8)
HOW = Reading(Path(), (np.zeros((1, 3, 5, 6), np.float32),))
NUMBERS = datasets.Features(
    {"image": datasets.Array3D((3, 5, 6), "float32"), "label": datasets.Value("int64")}
)
PICTURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def numbers() -> Any:
    return datasets.Dataset.from_dict({"image": list(INPUTS), "label": LABELS}, features=NUMBERS)


def encoded(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(images: list[Any] | None = None) -> Any:
    images = [encoded(array) for array in PIXELS] if images is None else images
    stored = [None if image is None else {"bytes": image, "path": None} for image in images]
    return datasets.Dataset.from_dict({"image": stored, "label": LABELS[: len(images)]}, features=PICTURES)


@pytest.mark.parametrize("form", [None, "numpy", "torch", "tensorflow"])
def test_examples_by_number_are_the_arrays(form: str | None) -> None:
    found = dataset_of("data", numbers().with_format(form), HOW)
    assert found.stream is None
    rows = np.array([4, 0, 4])
    assert found.gather(rows).inputs[0].astype(np.float32).tobytes() == INPUTS[rows].tobytes()
    assert found.targets.tolist() == LABELS
    part = numbers().with_format(form).shuffle(seed=1).select(range(5))
    expected = np.array(part.with_format("numpy")["image"], np.float32)
    assert content(dataset_of("data", part, HOW).inputs[0][:].astype(np.float32)) == content(expected)


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_what_is_gone_through(form: str | None) -> None:
    one_by_one = numbers().to_iterable_dataset().with_format(form)
    found = dataset_of("data", one_by_one, HOW)
    assert found.stream is not None
    assert [len(part.targets) for part in found.stream.batches(4)] == [4, 3]
    for batched in (one_by_one.batch(3), numbers().with_format(form).batch(3)):
        brought = dataset_of("data", batched, HOW)
        assert brought.stream is not None
        parts = [*brought.stream.batches(99)]
        assert [len(part.targets) for part in parts] == [3, 3, 1]
        joined = np.concatenate([part.inputs[0] for part in parts])
        assert joined.astype(np.float32).tobytes() == INPUTS.tobytes()


def test_a_generator_of_theirs_begins_anew() -> None:
    rows = [{"image": image, "label": label} for image, label in zip(INPUTS, LABELS, strict=True)]
    made = datasets.IterableDataset.from_generator(lambda: iter(rows))
    found = dataset_of("data", made, HOW)
    assert found.stream is not None
    for _ in range(2):
        assert (
            np.concatenate([part.inputs[0] for part in found.stream.batches(4)]).tobytes() == INPUTS.tobytes()
        )
    assert "data: an IterableDataset that brings examples one by one" in found.notes[0]


def test_images_become_channels_first() -> None:
    expected = PIXELS.transpose(0, 3, 1, 2)
    for source in (pictures(), pictures().with_format("torch")):
        found = dataset_of("data", source, HOW)
        assert found.inputs[0].dtype == np.uint8
        assert content(found.inputs[0]) == content(expected)
    streamed = dataset_of("data", pictures().to_iterable_dataset(), HOW)
    assert streamed.stream is not None
    assert next(streamed.stream.batches(7)).inputs[0].tobytes() == expected.tobytes()


def test_grey_images_are_counted_and_others_refused() -> None:
    grey = encoded(PIXELS[0, ..., 0])
    found = dataset_of("data", pictures([grey, *map(encoded, PIXELS[1:])]), HOW)
    assert found.notes[1] == "data: 1 images: grey read as colour"
    assert found.gather(np.array([0])).inputs[0][0, 2].tobytes() == PIXELS[0, ..., 0].tobytes()
    one = Reading(Path(), (np.zeros((1, 1, 5, 6), np.float32),))
    assert dataset_of("data", pictures([grey]), one).inputs[0].shape == (1, 1, 5, 6)
    with pytest.raises(ConfigError, match=r"example 1: inputs is in colour, and .* one channel"):
        dataset_of("data", pictures([grey, encoded(PIXELS[1])]), one)
    with pytest.raises(ConfigError, match=r"example 0: inputs: an image of 4 × 5, .* 6 × 5") as refused:
        dataset_of("data", pictures([encoded(PIXELS[0, :, :4])]), HOW)
    assert refused.value.hint is not None
    assert "image.resize((6, 5))" in refused.value.hint


def test_a_broken_image_stops_or_is_skipped() -> None:
    images = [*map(encoded, PIXELS)]
    images[3] = images[3][:60]
    with pytest.raises(ConfigError, match="example 3 cannot be read: OSError: image file is truncated"):
        dataset_of("data", pictures(images), HOW)
    skipping = Reading(Path(), HOW.inputs, on_error="skip")
    found = dataset_of("data", pictures(images), skipping)
    assert found.targets.tolist() == np.delete(LABELS, 3).tolist()
    assert "1 of 7 examples cannot be read and are skipped: 3" in found.notes[1]
    with pytest.raises(ConfigError, match="element 3 cannot be read: OSError") as refused:
        dataset_of("data", pictures(images).to_iterable_dataset(), skipping)
    assert refused.value.hint is not None
    assert "nothing can be skipped" in refused.value.hint


@pytest.mark.parametrize(
    ("source", "message", "cure"),
    [
        (
            numbers().add_column("row", [*range(7)]),
            "example 0: a dict with the keys image, label, row",
            "call the target 'label'",
        ),
        (
            pictures([*map(encoded, PIXELS[:2]), None]),
            r"example 2: inputs: a missing value \(None\)",
            "fill it, or leave",
        ),
        (numbers().with_format("arrow"), "example 0: a Table, expected", r"with_format\('numpy'\)"),
        (numbers().with_format("pandas"), "example 0: a DataFrame, expected", r"with_format\('numpy'\)"),
        (
            numbers().rename_column("label", "kind"),
            "example 0: a dict with the keys image, kind",
            "call the target 'label'",
        ),
    ],
)
def test_what_is_no_example_is_refused_with_a_cure(source: Any, message: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        dataset_of("data", source, HOW)
    assert refused.value.hint is not None
    assert re.search(cure, refused.value.hint)


def test_names_of_the_course_choose_columns() -> None:
    how = Reading(Path(), HOW.inputs, ("image",))
    found = dataset_of("data", numbers().add_column("row", [*range(7)]).with_format("numpy"), how)
    assert content(found.inputs[0]) == content(INPUTS)
