"""Whole numbers beyond the example's, as ids in use are: models that part there are told, and numbers that nobody compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import ops
from torch import nn

import xbackend_fl as xb
from tests.mapping.masked import Written

IDS = (np.array([[5, 3, 2], [1, 4, 6]], np.int64),)
Function = Callable[[Any], Any]


def notes(there: Function, here: Function) -> list[str]:
    """What is said of the mean of an embedding of ids that a function makes smaller."""
    reference = Written(
        lambda own, x: own["b"](own["e"](there(x)).mean(1)), e=nn.Embedding(10, 4), b=nn.Linear(4, 2)
    )
    x = keras.Input((3,), dtype="int64")
    candidate = keras.Model(x, keras.layers.Dense(2)(ops.mean(keras.layers.Embedding(10, 4)(here(x)), 1)))
    schema, evidence = xb.describe_reference(reference, IDS)
    return [n for n in xb.bind(candidate, schema, IDS, evidence).notes if n.startswith("whole numbers")]


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (
            lambda x: (x * 1000003) % 997 % 10,
            lambda x: ops.cast(ops.mod(ops.mod(ops.cast(x, "int32") * 1000003, 997), 10), "int64"),
            "above 6, the example's largest: the models differ by",
        ),
        pytest.param(
            lambda x: x.clamp(max=9),
            lambda x: ops.mod(x, 10),
            "above 6, the example's largest: the models differ by",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda x: torch.where(x < 10, x, torch.full_like(x, 9)),
            lambda x: ops.where(x < 10, x, 0),
            "above 6, the example's largest: the models differ by",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda x: (x * 7) % 10, lambda x: ops.mod(x * 7, 10), "", marks=pytest.mark.slow, id="equal"
        ),
        pytest.param(lambda x: x + 1, lambda x: x + 1, "", marks=pytest.mark.slow, id="within the table"),
        pytest.param(
            lambda x: x + 3,
            lambda x: x + 3,
            "were not compared: the reference takes none",
            marks=pytest.mark.slow,
            id="none taken",
        ),
    ],
)
def test_ids_beyond_the_example(there: Function, here: Function, said: str) -> None:
    found = notes(there, here)
    assert len(found) == bool(said)
    assert all(said in note for note in found)
