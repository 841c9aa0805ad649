"""Models with several inputs, and inputs whose axis order has to be found out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from torch import nn

import xbackend_fl
from tests.adapters.row import chain
from xbackend_fl.adapter import adapter_of

GENERATOR = np.random.default_rng(0)
IMAGE = GENERATOR.standard_normal((1, 3, 8, 8)).astype(np.float32)
TOKENS = GENERATOR.integers(0, 12, (1, 5))


class Captioned(nn.Module):
    """An image and a text."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 4, 3)
        self.words = nn.Embedding(12, 6)
        self.read = nn.GRU(6, 4, batch_first=True)
        self.answer = nn.Linear(8, 2)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.relu(self.look(image)).mean((2, 3))
        said = self.read(self.words(text))[1].squeeze(0)
        return self.answer(torch.cat([seen, said], 1)), seen


def captioned_in_keras() -> Any:
    image, text = keras.Input((8, 8, 3)), keras.Input((5,), dtype="int64")
    seen = K.GlobalAveragePooling2D()(K.Conv2D(4, 3, activation="relu")(image))
    said = K.GRU(4)(K.Embedding(12, 6)(text))
    return keras.Model([image, text], [K.Dense(2)(K.Concatenate()([seen, said])), seen])


@pytest.mark.slow
def test_two_inputs_and_two_outputs() -> None:
    example = (IMAGE, TOKENS)
    reference = Captioned()
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    bound = xbackend_fl.bind(captioned_in_keras(), schema, example, evidence)
    assert bound.proof.proven
    assert [axes.perm for axes in bound.binding.inputs] == [(0, 2, 3, 1), (0, 1)]


@pytest.mark.parametrize(
    ("model", "array", "perm"),
    [
        (lambda: chain(K.Conv1D(2, 3), shape=(None, 4)), GENERATOR.standard_normal((1, 4, 9)), (0, 2, 1)),
        (lambda: chain(K.LSTM(2), shape=(None, 4)), GENERATOR.standard_normal((1, 9, 4)), (0, 1, 2)),
        (lambda: chain(K.ReLU(), K.Conv2D(2, 3), shape=(8, 8, 3)), IMAGE, (0, 2, 3, 1)),
        (lambda: chain(K.Rescaling(2.0), K.LSTM(2), shape=(9, 4)), GENERATOR.standard_normal((1, 9, 4)), (0, 1, 2)),
    ],
)  # fmt: skip
def test_the_axis_order_follows_from_the_first_layer_that_cares(
    model: Any, array: np.ndarray[Any, Any], perm: tuple[int, ...]
) -> None:
    built = model()
    opened = adapter_of(built).load_model(built, (array.astype(np.float32),))
    assert opened.description.binding.inputs[0].perm == perm
    assert opened.description.binding.inputs[0].note


def test_outputs_come_back_in_onnx_layout() -> None:
    reference = nn.Conv2d(3, 4, 3, stride=2)
    schema, evidence = xbackend_fl.describe_reference(reference, (IMAGE,))
    bound = xbackend_fl.bind(
        chain(K.Conv2D(4, 3, strides=2), shape=(None, None, 3)), schema, (IMAGE,), evidence
    )
    assert bound.proof.proven
    assert bound.binding.outputs[0].perm == (0, 2, 3, 1)
