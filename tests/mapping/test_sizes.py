"""What a model computes from the size of its data: the models themselves are compared at another size, not a graph of one size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn
from torch.nn import functional as F

import xbackend_fl
from tests.adapters.row import Lambda
from xbackend_fl.errors import MismatchError

IMAGE = (np.random.default_rng(0).standard_normal((2, 3, 12, 10)).astype(np.float32),)


def padded(x: torch.Tensor) -> torch.Tensor:
    """TensorFlow's SAME at stride 2, for any size."""
    need = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in x.shape[-2:]]
    return F.pad(x, [need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2])


def same_by_hand() -> nn.Module:
    return Lambda(
        lambda m, x: m.last(torch.relu(m.first(padded(x)))),
        first=nn.Conv2d(3, 5, 3, 2),
        last=nn.Conv2d(5, 4, 1),
    )


def as_at_the_example() -> nn.Module:
    """The same padding at even sizes alone."""
    return Lambda(
        lambda m, x: m.last(torch.relu(m.first(F.pad(x, [0, 1, 0, 1])))),
        first=nn.Conv2d(3, 5, 3, 2),
        last=nn.Conv2d(5, 4, 1),
    )


def same() -> Any:
    return keras.Sequential([K.Conv2D(5, 3, 2, padding="same", activation="relu"), K.Conv2D(4, 1)])


def bound(reference: nn.Module) -> Any:
    schema, evidence = xbackend_fl.describe_reference(reference, IMAGE)
    return xbackend_fl.bind(same(), schema, IMAGE, evidence)


def test_a_padding_that_follows_the_data_is_proven_by_the_models_alone() -> None:
    proof = bound(same_by_hand()).proof
    assert proof.proven
    elsewhere = {check.what for check in proof.checks if "3×13×11" in check.case}
    assert elsewhere == {"outputs"}
    assert any("3×13×11" in note and "ONNX Runtime" in note for note in proof.notes)


def test_a_padding_of_one_size_is_refused_at_another() -> None:
    with pytest.raises(MismatchError, match="13×11"):
        bound(as_at_the_example())
