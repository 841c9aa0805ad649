"""Loaders of a small classification, 8 features and 3 classes, right and wrong in every way that was thought of."""

from __future__ import annotations

import json
import sys
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


def _inputs(split: str, change: Any) -> dict[str, Any]:
    """The good data with the inputs of one split changed."""
    found = good()
    inputs, targets = found[split]
    found[split] = (change(inputs), targets)
    return found


def _all_inputs(change: Any) -> dict[str, Any]:
    return {name: (change(inputs), targets) for name, (inputs, targets) in good().items()}


def _targets(split: str, change: Any) -> dict[str, Any]:
    found = good()
    inputs, targets = found[split]
    found[split] = (inputs, change(targets))
    return found


def _all_targets(change: Any) -> dict[str, Any]:
    return {name: (inputs, change(targets)) for name, (inputs, targets) in good().items()}


def _set(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def nan_in_train() -> Any:
    return _inputs("train", lambda x: _set(x, (5, 3), np.nan))


def nan_in_validation() -> Any:
    return _inputs("validation", lambda x: _set(x, (7, 2), np.nan))


def infinity_in_test() -> Any:
    return _inputs("test", lambda x: _set(x, (11, 0), -np.inf))


def one_hot() -> Any:
    return _all_targets(lambda y: np.eye(CLASSES, dtype=np.float32)[y])


def one_hot_in_test() -> Any:
    return _targets("test", lambda y: np.eye(CLASSES, dtype=np.float32)[y])


def text_labels() -> Any:
    return _all_targets(lambda y: np.array(["cat", "dog", "owl"])[y])


def bytes_labels() -> Any:
    return _all_targets(lambda y: np.array([b"cat", b"dog", b"owl"])[y])


def object_labels() -> Any:
    return _all_targets(lambda y: np.array(["cat", "dog", None], object)[y])


def label_too_large() -> Any:
    return _targets("validation", lambda y: _set(y, 4, CLASSES))


def negative_label() -> Any:
    return _targets("test", lambda y: _set(y, 2, -1))


def counted_from_one() -> Any:
    return _all_targets(lambda y: y + 1)


def fractions_as_labels() -> Any:
    return _all_targets(lambda y: y / 2)


def nan_labels() -> Any:
    return _targets("train", lambda y: _set(y.astype(np.float32), 9, np.nan))


def wider_validation() -> Any:
    return _inputs("validation", lambda x: np.concatenate([x, x], 1))


def narrower_train() -> Any:
    return _inputs("train", lambda x: x[:, :-1])


def one_axis() -> Any:
    return _all_inputs(lambda x: x[:, 0])


def a_single_number() -> Any:
    return _inputs("train", lambda x: x[0, 0])


def doubles() -> Any:
    return _all_inputs(lambda x: x.astype(np.float64) + 1e-12)


def huge_doubles() -> Any:
    return _inputs("test", lambda x: _set(x.astype(np.float64), (3, 1), 1e300))


def huge_integers() -> Any:
    return _all_inputs(lambda x: (x * 1e3).astype(np.int64) + (1 << 40) + 1)


def complex_inputs() -> Any:
    return _all_inputs(lambda x: x + 1j)


def dates() -> Any:
    return _all_inputs(lambda x: (x * 1e3).astype("datetime64[s]"))


def objects() -> Any:
    return _inputs("train", lambda x: _set(x.astype(object), (6, 1), {"a": 1}))


def missing_values() -> Any:
    return _inputs("train", lambda x: _set(x.astype(object), (6, 1), None))


def ragged() -> Any:
    return _inputs("train", lambda x: [list(row[: 3 + i % 2]) for i, row in enumerate(x)])


def ragged_arrays() -> Any:
    return _inputs("train", lambda x: [row[: 3 + i % 2] for i, row in enumerate(x)])


def structured() -> Any:
    return _all_inputs(lambda x: np.array([(a, b) for a, b in x[:, :2]], [("height", "f4"), ("width", "f4")]))


def masked() -> Any:
    return _inputs("validation", lambda x: np.ma.masked_less(x, 0))


def sparse() -> Any:
    from scipy.sparse import csr_matrix

    return _all_inputs(csr_matrix)


def text_inputs() -> Any:
    return _all_inputs(lambda x: x.astype("U"))


def empty_test() -> Any:
    return {**good(), "test": tuple(a[:0] for a in good()["test"])}


def shorter_targets() -> Any:
    return _targets("train", lambda y: y[:-1])


def no_test() -> Any:
    return {name: pair for name, pair in good().items() if name != "test"}


def keras_pairs() -> Any:
    found = good()
    return found["train"], found["test"]


def nothing() -> Any:
    good()


def generator() -> Any:
    yield from good().items()


def inputs_alone() -> Any:
    return {name: inputs for name, (inputs, _) in good().items()}


def lists_of_pairs() -> Any:
    return {name: list(pair) for name, pair in good().items()}


def inputs_by_name() -> Any:
    return _all_inputs(lambda x: {"features": x})


def two_inputs() -> Any:
    return _all_inputs(lambda x: (x, x))


def a_path() -> Any:
    return {name: ("train.npy", targets) for name, (_, targets) in good().items()}


def raises() -> Any:
    raise OSError("the disk\nis gone")


def raises_in_a_library() -> Any:
    return json.loads("{")


def leaves() -> Any:
    sys.exit(3)


def wants_an_argument(folder: str) -> Any:
    return folder


def other_data_each_time() -> Any:
    rng = np.random.default_rng()
    return _inputs("train", lambda x: x + rng.standard_normal(x.shape).astype(np.float32))


def owners_too_few() -> Any:
    return {**good(), "owners": np.arange(3)}


def owners_of_two_axes() -> Any:
    return {**good(), "owners": np.zeros((48, 2), int)}


def one_example_too_many() -> Any:
    found = good()
    return {**found, "train": tuple(np.concatenate([a, a[:1]]) for a in found["train"])}


async def asynchronous() -> Any:
    return good()


A_CONSTANT = 3


def beyond_64_bits() -> Any:
    return _all_inputs(lambda x: [[10**400] * FEATURES] * len(x))


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

    return _all_inputs(lambda x: torch.tensor(x, dtype=torch.bfloat16))


class Frame:
    """What a data frame, or an array of JAX, is to NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, **_: Any) -> np.ndarray:
        return self._array.astype(dtype) if dtype else self._array.copy()


def frames() -> Any:
    return {name: (Frame(inputs), Frame(targets)) for name, (inputs, targets) in good().items()}


def exact_doubles() -> Any:
    return _all_inputs(lambda x: x.astype(np.float64))


def long_doubles() -> Any:
    return _all_inputs(lambda x: x.astype(np.longdouble))


def mapped_files() -> Any:
    folder = Path(tempfile.mkdtemp())

    def change(array: np.ndarray) -> np.ndarray:
        path = folder / f"{len(array)}.npy"
        np.save(path, array.astype(np.float64))
        return np.load(path, mmap_mode="r")

    return _all_inputs(change)


def labels_of_two_axes() -> Any:
    return _all_targets(lambda y: y[:, None])


def halves() -> Any:
    return _all_inputs(lambda x: x.astype(np.float16))


def small_integers() -> Any:
    return _all_inputs(lambda x: (x * 10).astype(np.int16))


def bools() -> Any:
    return _all_inputs(lambda x: x > 0)


def other_byte_order() -> Any:
    return _all_inputs(lambda x: x.astype(">f4"))


def backwards() -> Any:
    return _all_inputs(lambda x: x[::-1, ::-1])


def columns_first() -> Any:
    return _all_inputs(np.asfortranarray)


def broadcast() -> Any:
    return _all_inputs(lambda x: np.broadcast_to(x[:1], x.shape))


def read_only() -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array.flags.writeable = False
        return array

    return _all_inputs(change)


def nothing_masked() -> Any:
    return _all_inputs(np.ma.masked_array)


def float_labels() -> Any:
    return _all_targets(lambda y: y.astype(np.float64))


def unsigned_labels() -> Any:
    return _all_targets(lambda y: y.astype(np.uint16))


def objects_of_numbers() -> Any:
    return _all_inputs(lambda x: x.astype(object))


# For other models.


def word_indices() -> Any:
    return _all_inputs(lambda x: np.abs(x[:, :5] * 5).astype(np.int64) % 20)


def word_beyond_the_table() -> Any:
    found = word_indices()
    found["train"] = (_set(found["train"][0], (40, 2), 20), found["train"][1])
    return found


def word_fractions() -> Any:
    return _all_inputs(lambda x: x[:, :5])


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
    return _all_targets(lambda y: np.eye(CLASSES)[y])


def signs() -> Any:
    return _all_targets(lambda y: 2 * np.eye(CLASSES)[y] - 1)


def quantities() -> Any:
    return {name: (x, x[:, :3] * np.float64(2)) for name, (x, _) in good().items()}


def quantities_of_two() -> Any:
    return {name: (x, x[:, :2]) for name, (x, _) in good().items()}


def double_quantities() -> Any:
    return {name: (x, y / 3) for name, (x, y) in quantities().items()}


def far_quantities() -> Any:
    return {name: (x, x[:, :3] * np.float32(1e25)) for name, (x, _) in good().items()}


# A participant's own.


def own_wider() -> Any:
    inputs, targets = own()
    return np.concatenate([inputs, inputs], 1), targets


def own_nan() -> Any:
    inputs, targets = own()
    return _set(inputs, (1, 1), np.nan), targets


def own_one_hot() -> Any:
    inputs, targets = own()
    return inputs, np.eye(CLASSES)[targets]


def own_doubles() -> Any:
    inputs, targets = own()
    return inputs / 3.0 + np.float64(1e-12), targets


def rounded_to_bfloat16() -> Any:
    import torch

    return _all_inputs(lambda x: torch.tensor(x).bfloat16().float().numpy())


def own_other_each_time() -> Any:
    inputs, targets = own()
    return inputs + np.random.default_rng().standard_normal(inputs.shape).astype(np.float32), targets


def own_swapped() -> Any:
    inputs, targets = own()
    return targets, inputs
