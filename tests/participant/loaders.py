"""Loaders of a small classification, 8 features and 3 classes: the plain data, and odd ones that are good all the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"train": 48, "validation": 12, "test": 12}
CLASSES, FEATURES = 3, 8


def good() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, size in SIZES.items():
        labels = rng.integers(0, CLASSES, size)
        centres = np.eye(CLASSES, FEATURES)[labels]
        found[name] = ((centres + 0.1 * rng.standard_normal(centres.shape)).astype(np.float32), labels)
    return found


def own() -> tuple[Any, Any]:
    return good()["validation"]


def inputs_changed(split: str, change: Any) -> dict[str, Any]:
    """The good data with the inputs of one split changed."""
    found = good()
    inputs, targets = found[split]
    found[split] = (change(inputs), targets)
    return found


def all_inputs_changed(change: Any) -> dict[str, Any]:
    return {name: (change(inputs), targets) for name, (inputs, targets) in good().items()}


def targets_changed(split: str, change: Any) -> dict[str, Any]:
    found = good()
    inputs, targets = found[split]
    found[split] = (inputs, change(targets))
    return found


def all_targets_changed(change: Any) -> dict[str, Any]:
    return {name: (inputs, change(targets)) for name, (inputs, targets) in good().items()}


def replaced(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


# Odd, and good.


def plain_lists() -> Any:
    return {name: (inputs.tolist(), targets.tolist()) for name, (inputs, targets) in good().items()}


def torch_tensors() -> Any:
    import torch

    return {
        name: (torch.tensor(inputs, requires_grad=True), torch.tensor(targets))
        for name, (inputs, targets) in good().items()
    }


def list_of_tensors() -> Any:
    import torch

    return {
        name: ([torch.tensor(row) for row in inputs], list(map(torch.tensor, targets.tolist())))
        for name, (inputs, targets) in good().items()
    }


def bfloat16_tensors() -> Any:
    import torch

    return all_inputs_changed(lambda x: torch.tensor(x, dtype=torch.bfloat16))


class Frame:
    """What a data frame, or an array of JAX, is to NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, **_: Any) -> np.ndarray:
        return self._array.astype(dtype) if dtype else self._array.copy()


def frames() -> Any:
    return {name: (Frame(inputs), Frame(targets)) for name, (inputs, targets) in good().items()}


def exact_doubles() -> Any:
    return all_inputs_changed(lambda x: x.astype(np.float64))


def long_doubles() -> Any:
    return all_inputs_changed(lambda x: x.astype(np.longdouble))


def mapped_files() -> Any:
    folder = Path(tempfile.mkdtemp())

    def change(array: np.ndarray) -> np.ndarray:
        path = folder / f"{len(array)}.npy"
        np.save(path, array.astype(np.float64))
        return np.load(path, mmap_mode="r")

    return all_inputs_changed(change)


def labels_of_two_axes() -> Any:
    return all_targets_changed(lambda y: y[:, None])


def halves() -> Any:
    return all_inputs_changed(lambda x: x.astype(np.float16))


def small_integers() -> Any:
    return all_inputs_changed(lambda x: (x * 10).astype(np.int16))


def bools() -> Any:
    return all_inputs_changed(lambda x: x > 0)


def other_byte_order() -> Any:
    return all_inputs_changed(lambda x: x.astype(">f4"))


def backwards() -> Any:
    return all_inputs_changed(lambda x: x[::-1, ::-1])


def columns_first() -> Any:
    return all_inputs_changed(np.asfortranarray)


def broadcast() -> Any:
    return all_inputs_changed(lambda x: np.broadcast_to(x[:1], x.shape))


def read_only() -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array.flags.writeable = False
        return array

    return all_inputs_changed(change)


def nothing_masked() -> Any:
    return all_inputs_changed(np.ma.masked_array)


def float_labels() -> Any:
    return all_targets_changed(lambda y: y.astype(np.float64))


def unsigned_labels() -> Any:
    return all_targets_changed(lambda y: y.astype(np.uint16))


def objects_of_numbers() -> Any:
    return all_inputs_changed(lambda x: x.astype(object))


# For other models.


def word_indices() -> Any:
    return all_inputs_changed(lambda x: np.abs(x[:, :5] * 5).astype(np.int64) % 20)


def word_beyond_the_table() -> Any:
    found = word_indices()
    found["train"] = (replaced(found["train"][0], (40, 2), 20), found["train"][1])
    return found


def word_fractions() -> Any:
    return all_inputs_changed(lambda x: x[:, :5])


def word_floats() -> Any:
    return {name: (x.astype(np.float32), y) for name, (x, y) in word_indices().items()}


def pixels(change: Any = lambda x: x) -> Any:
    rng = np.random.default_rng(0)
    return {
        name: (change(rng.integers(0, 256, (size, 3, 6, 5)).astype(np.uint8)), rng.integers(0, 3, size))
        for name, size in SIZES.items()
    }


def channels_last() -> Any:
    return pixels(lambda x: x.transpose(0, 2, 3, 1).astype(np.float32))


def flattened() -> Any:
    return pixels(lambda x: x.reshape(len(x), -1).astype(np.float32))


def floats_beside_bytes() -> Any:
    found = pixels()
    return {**found, "validation": (found["validation"][0].astype(np.float32), found["validation"][1])}


def yes_or_no() -> Any:
    return all_targets_changed(lambda y: np.eye(CLASSES)[y])


def signs() -> Any:
    return all_targets_changed(lambda y: 2 * np.eye(CLASSES)[y] - 1)


def quantities() -> Any:
    return {name: (x, x[:, :3] * np.float64(2)) for name, (x, _) in good().items()}


def quantities_of_two() -> Any:
    return {name: (x, x[:, :2]) for name, (x, _) in good().items()}


def double_quantities() -> Any:
    return {name: (x, y / 3) for name, (x, y) in quantities().items()}


def far_quantities() -> Any:
    return {name: (x, x[:, :3] * np.float32(1e25)) for name, (x, _) in good().items()}


def rounded_to_bfloat16() -> Any:
    import torch

    return all_inputs_changed(lambda x: torch.tensor(x).bfloat16().float().numpy())
