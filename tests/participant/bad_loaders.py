"""Loaders of a small classification that are wrong in every way that was thought of."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from tests.participant.loaders import (
    CLASSES,
    FEATURES,
    all_inputs_changed,
    all_targets_changed,
    good,
    inputs_changed,
    own,
    replaced,
    targets_changed,
)


def nan_in_train() -> Any:
    return inputs_changed("train", lambda x: replaced(x, (5, 3), np.nan))


def nan_in_validation() -> Any:
    return inputs_changed("validation", lambda x: replaced(x, (7, 2), np.nan))


def infinity_in_test() -> Any:
    return inputs_changed("test", lambda x: replaced(x, (11, 0), -np.inf))


def one_hot() -> Any:
    return all_targets_changed(lambda y: np.eye(CLASSES, dtype=np.float32)[y])


def one_hot_in_test() -> Any:
    return targets_changed("test", lambda y: np.eye(CLASSES, dtype=np.float32)[y])


def text_labels() -> Any:
    return all_targets_changed(lambda y: np.array(["cat", "dog", "owl"])[y])


def bytes_labels() -> Any:
    return all_targets_changed(lambda y: np.array([b"cat", b"dog", b"owl"])[y])


def object_labels() -> Any:
    return all_targets_changed(lambda y: np.array(["cat", "dog", None], object)[y])


def label_too_large() -> Any:
    return targets_changed("validation", lambda y: replaced(y, 4, CLASSES))


def negative_label() -> Any:
    return targets_changed("test", lambda y: replaced(y, 2, -1))


def counted_from_one() -> Any:
    return all_targets_changed(lambda y: y + 1)


def fractions_as_labels() -> Any:
    return all_targets_changed(lambda y: y / 2)


def nan_labels() -> Any:
    return targets_changed("train", lambda y: replaced(y.astype(np.float32), 9, np.nan))


def wider_validation() -> Any:
    return inputs_changed("validation", lambda x: np.concatenate([x, x], 1))


def narrower_train() -> Any:
    return inputs_changed("train", lambda x: x[:, :-1])


def one_axis() -> Any:
    return all_inputs_changed(lambda x: x[:, 0])


def a_single_number() -> Any:
    return inputs_changed("train", lambda x: x[0, 0])


def doubles() -> Any:
    return all_inputs_changed(lambda x: x.astype(np.float64) + 1e-12)


def huge_doubles() -> Any:
    return inputs_changed("test", lambda x: replaced(x.astype(np.float64), (3, 1), 1e300))


def huge_integers() -> Any:
    return all_inputs_changed(lambda x: (x * 1e3).astype(np.int64) + (1 << 40) + 1)


def complex_inputs() -> Any:
    return all_inputs_changed(lambda x: x + 1j)


def dates() -> Any:
    return all_inputs_changed(lambda x: (x * 1e3).astype("datetime64[s]"))


def objects() -> Any:
    return inputs_changed("train", lambda x: replaced(x.astype(object), (6, 1), {"a": 1}))


def missing_values() -> Any:
    return inputs_changed("train", lambda x: replaced(x.astype(object), (6, 1), None))


def ragged() -> Any:
    return inputs_changed("train", lambda x: [list(row[: 3 + i % 2]) for i, row in enumerate(x)])


def ragged_arrays() -> Any:
    return inputs_changed("train", lambda x: [row[: 3 + i % 2] for i, row in enumerate(x)])


def structured() -> Any:
    return all_inputs_changed(
        lambda x: np.array([(a, b) for a, b in x[:, :2]], [("height", "f4"), ("width", "f4")])
    )


def masked() -> Any:
    return inputs_changed("validation", lambda x: np.ma.masked_less(x, 0))


def sparse() -> Any:
    from scipy.sparse import csr_matrix

    return all_inputs_changed(csr_matrix)


def text_inputs() -> Any:
    return all_inputs_changed(lambda x: x.astype("U"))


def empty_test() -> Any:
    return {**good(), "test": tuple(a[:0] for a in good()["test"])}


def shorter_targets() -> Any:
    return targets_changed("train", lambda y: y[:-1])


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
    return all_inputs_changed(lambda x: {"features": x})


def two_inputs() -> Any:
    return all_inputs_changed(lambda x: (x, x))


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
    return inputs_changed("train", lambda x: x + rng.standard_normal(x.shape).astype(np.float32))


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
    return all_inputs_changed(lambda x: [[10**400] * FEATURES] * len(x))


# A participant's own.


def own_wider() -> Any:
    inputs, targets = own()
    return np.concatenate([inputs, inputs], 1), targets


def own_nan() -> Any:
    inputs, targets = own()
    return replaced(inputs, (1, 1), np.nan), targets


def own_one_hot() -> Any:
    inputs, targets = own()
    return inputs, np.eye(CLASSES)[targets]


def own_doubles() -> Any:
    inputs, targets = own()
    return inputs / 3.0 + np.float64(1e-12), targets


def own_other_each_time() -> Any:
    inputs, targets = own()
    return inputs + np.random.default_rng().standard_normal(inputs.shape).astype(np.float32), targets


def own_swapped() -> Any:
    inputs, targets = own()
    return targets, inputs
