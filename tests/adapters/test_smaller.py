"""Operations that are told as smaller ones: the canonical graph in ONNX Runtime is compared with the framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.adapters.row import Lambda
from xbackend_fl.adapter import adapter_of
from xbackend_fl.mapping.probe.runtime import Runtime

IMAGE = np.random.default_rng(0).standard_normal((2, 4, 6, 5)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, 7, (2, 5))


def compare(model: Any, array: np.ndarray[Any, Any], native: Sequence[Any]) -> None:
    """The graph without an opaque part, with the model's own weights, beside what the model returns."""
    trainer = adapter_of(model).load_model(model, (array,))
    schema = trainer.description.schema
    assert not schema.opaque
    weights = trainer.description.binding.export(trainer.read())
    for received, expected in zip(Runtime(schema).outputs(weights, (array,)), native, strict=True):
        np.testing.assert_allclose(received, expected, rtol=2e-5, atol=2e-6)


def stacked(_: Any, x: Tensor) -> tuple[Tensor, ...]:
    flat = x.flatten(1)
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(2.0), indexing="xy")
    joined = torch.hstack([flat, flat * 2]), torch.vstack([flat, -flat]), torch.dstack([flat, flat + 1])
    return (*joined, torch.diag_embed(flat[:, :4]), flat[:, :6] + (rows - columns).reshape(-1))


def measured(_: Any, x: Tensor) -> tuple[Tensor, ...]:
    rows = x.flatten(2)
    between = torch.cdist(rows, rows * 2), torch.cdist(rows, rows + 1, p=1.0)
    middle = rows.median(dim=2).values, rows.unfold(2, 4, 3), torch.hypot(rows, rows + 1), (rows * 3).trunc()
    return (*between, *middle)


def windows(_: Any, x: Tensor) -> tuple[Tensor, ...]:
    return (F.unfold(x, 3), F.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2)))


def modulated(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    kernel = module.weight * x.mean((0, 2, 3))[:, None, None, None]
    grouped = F.conv2d(x, kernel.reshape(8, 2, 3, 2), padding=1, stride=(2, 1), groups=2)
    return (grouped, F.conv1d(x.flatten(2), kernel.flatten(2)[..., :3], padding="same"))


def normalised(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    plain = F.layer_norm(x, x.shape[1:], eps=1e-3)
    return (F.layer_norm(x, (6, 5), module.weight, module.bias), plain)


@pytest.mark.parametrize("function", [stacked, measured, windows])
def test_operations_without_weights(function: Any) -> None:
    compare(Lambda(function), IMAGE, function(None, torch.from_numpy(IMAGE)))


@pytest.mark.parametrize(
    ("function", "shapes"), [(modulated, {"weight": (4, 4, 3, 2)}), (normalised, {"weight": (6, 5), "bias": (6, 5)})]
)  # fmt: skip
def test_operations_with_weights_that_no_layer_holds(function: Any, shapes: dict[str, Any]) -> None:
    model = Lambda(function)
    for name, shape in shapes.items():
        setattr(model, name, nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
    with torch.no_grad():
        compare(model, IMAGE, model(torch.from_numpy(IMAGE)))


@pytest.mark.parametrize("options", [{"mode": "mean", "padding_idx": 0}, {"mode": "sum"}, {"mode": "max"}])
def test_bags_of_embeddings(options: Any) -> None:
    model = nn.EmbeddingBag(7, 3, **options)
    with torch.no_grad():
        compare(model, IDS, [model(torch.from_numpy(IDS))])


def test_diagonals_and_counts_of_tensorflow() -> None:
    ids = keras.Input((5,), dtype="int64")
    counts = keras.layers.CategoryEncoding(num_tokens=7, output_mode="count")(ids)
    square = keras.ops.matmul(keras.layers.Lambda(tf.linalg.diag)(counts), keras.ops.ones((7, 2)))
    model = keras.Model(ids, keras.layers.Flatten()(square))
    compare(model, IDS, [model(IDS)])
