"""Low-rank adapters, in the spellings of Keras, of PEFT and of people, are one function with one set of parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import layers as K
from torch import nn

import xbackend_fl as xb
import xbfl_tensorflow
import xbfl_torch
from xbackend_fl import weights
from xbackend_fl.canonical import Kind
from xbackend_fl.convert import convert, open_pair
from xbackend_fl.errors import MismatchError, RefusedInput

GENERATOR = np.random.default_rng(0)
VECTOR = (GENERATOR.standard_normal((1, 8)).astype(np.float32),)
IDS = (GENERATOR.integers(0, 20, (1, 5)),)
IMAGE = (GENERATOR.standard_normal((1, 3, 8, 8)).astype(np.float32),)


class Adapted(nn.Module):
    """A frozen layer and two in a row beside it, as PEFT puts them; B is zero at first, and hides A."""

    def __init__(self, base: nn.Module, down: nn.Module, up: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.base_layer, self.scale = base.requires_grad_(requires_grad=False), scale
        self.lora_A, self.lora_B = nn.ModuleDict({"default": down}), nn.ModuleDict({"default": up})
        nn.init.zeros_(up.weight)

    def forward(self, x: torch.Tensor) -> Any:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x)) * self.scale


class Merged(nn.Module):
    """The sum of weights, as Keras computes it, in PyTorch's own order of axes."""

    def __init__(self, before: int, after: int, rank: int = 2, scale: float = 2.0) -> None:
        super().__init__()
        self.base, self.scale = nn.Linear(before, after).requires_grad_(requires_grad=False), scale
        self.a, self.b = nn.Parameter(torch.randn(rank, before)), nn.Parameter(torch.zeros(after, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.base.weight + self.scale * (self.b @ self.a), self.base.bias)


def dense(before: int, after: int, rank: int = 2, scale: float = 2.0) -> nn.Module:
    return Adapted(
        nn.Linear(before, after),
        nn.Linear(before, rank, bias=False),
        nn.Linear(rank, after, bias=False),
        scale,
    )


def torch_net(layer: Callable[..., nn.Module] = dense, **options: Any) -> nn.Module:
    return nn.Sequential(
        layer(8, 6, **options), nn.ReLU(), layer(6, 6, **options), nn.ReLU(), nn.Linear(6, 3)
    )


def keras_net(alpha: float = 4, rank: int = 2) -> keras.Model:
    layers = [K.Dense(6, activation="relu"), K.Dense(6, activation="relu"), K.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    for layer in layers[:2]:
        layer.enable_lora(rank, lora_alpha=alpha)
        layer.bias.trainable = False
    return model


def proven(reference: object, candidate: object, example: tuple[Any, ...]) -> xb.BoundModel:
    schema, evidence = xb.describe_reference(reference, example)
    bound = xb.bind(candidate, schema, example, evidence)
    assert bound.proof.largest_error < 1e-5
    assert not schema.opaque
    return bound


def test_a_sum_of_weights_is_a_sum_of_layers() -> None:
    """Of PyTorch's own, in both spellings and either direction; the base is there, and does not train."""
    for reference, candidate in ((torch_net(), torch_net(Merged)), (torch_net(Merged), torch_net())):
        bound = proven(reference, candidate, VECTOR)
        kinds = [parameter.kind for parameter in bound.schema.parameters]
        assert (kinds.count(Kind.FROZEN), kinds.count(Kind.TRAINABLE)) == (4, 6)


@pytest.mark.parametrize("mutant", [{"scale": 1.0}, {"rank": 3}])
def test_another_scale_or_rank_is_another_function(mutant: dict[str, Any]) -> None:
    schema, evidence = xb.describe_reference(torch_net(Merged), VECTOR)
    with pytest.raises(MismatchError):
        xb.bind(torch_net(**mutant), schema, VECTOR, evidence)


def test_merged_weights_are_not_the_same_in_training() -> None:
    """They give the same outputs, and other parameters move."""
    plain = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    schema, evidence = xb.describe_reference(plain, VECTOR)
    with pytest.raises(MismatchError):
        xb.bind(torch_net(), schema, VECTOR, evidence)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [dense, Merged])
def test_dense_layers_of_keras(layer: Callable[..., nn.Module], tmp_path: Path) -> None:
    proven(torch_net(layer), keras_net(), VECTOR)
    proven(keras_net(), torch_net(layer), VECTOR)
    ours, theirs = open_pair(
        (xbfl_torch.adapter, torch_net(layer)), (xbfl_tensorflow.adapter, keras_net()), VECTOR
    )
    drawn = {
        n: GENERATOR.standard_normal(t.shape).astype(np.float32)
        for n, t in torch_net(layer).state_dict().items()
    }
    weights.save(tmp_path / "net.pt", drawn)
    source = weights.open_weights(tmp_path / "net.pt")
    for number, (suffix, named) in enumerate(((".safetensors", None), (".npz", None), ("", "checkpoint"))):
        there, back = tmp_path / f"net{number}{suffix}", tmp_path / f"back{number}.pt"
        convert(source, there, named, reader=ours, writer=theirs, example=VECTOR)
        convert(weights.open_weights(there, named), back, reader=theirs, writer=ours, example=VECTOR)
        again = weights.open_weights(back)
        for name, array in drawn.items():
            np.testing.assert_array_equal(again[name], array)
    assert theirs.trainer is not None
    merged = weights.open_weights(theirs.trainer.save(tmp_path / "merged", "keras"))
    for asked in (
        lambda: convert(source, tmp_path / "net.keras", reader=ours, writer=theirs, example=VECTOR),
        lambda: convert(merged, tmp_path / "x.pt", reader=theirs, writer=ours, example=VECTOR),
    ):
        with pytest.raises(RefusedInput, match="Keras merges adapters of enable_lora"):
            asked()


@pytest.mark.slow
def test_mutants_of_keras_are_refused() -> None:
    schema, evidence = xb.describe_reference(torch_net(), VECTOR)
    for mutant in (keras_net(alpha=2), keras_net(rank=3)):
        with pytest.raises(MismatchError):
            xb.bind(mutant, schema, VECTOR, evidence)
    trains = keras_net()
    trains.layers[0].bias.trainable = True
    with pytest.raises(
        MismatchError, match="bias kind is frozen in the reference, trainable in the candidate"
    ):
        xb.bind(trains, schema, VECTOR, evidence)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        table, down = nn.Embedding(20, 8), nn.Embedding(20, 2)
        self.table = Adapted(table, down, nn.Linear(2, 8, bias=False), 2.0)
        self.dense, self.head = dense(8, 8, scale=1.0), nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.head(torch.tanh(self.dense(self.table(ids))).mean(1))


def keras_tokens(middle: Callable[[], Any]) -> keras.Model:
    ids = keras.Input((5,), dtype="int32")
    table, dense, head = K.Embedding(20, 8), middle(), K.Dense(3)
    model = keras.Model(ids, head(keras.ops.mean(keras.ops.tanh(dense(table(ids))), 1)))
    table.enable_lora(2, lora_alpha=4)
    dense.enable_lora(2)
    dense.bias.trainable = False
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "middle",
    [lambda: K.Dense(8), lambda: K.EinsumDense("abc,cd->abd", output_shape=(None, 8), bias_axes="d")],
    ids=["Dense", "EinsumDense"],
)
def test_tables_and_steps_of_keras(middle: Callable[[], Any]) -> None:
    proven(Tokens(), keras_tokens(middle), IDS)
    proven(keras_tokens(middle), Tokens(), IDS)


@pytest.mark.slow
def test_convolutions_of_keras() -> None:
    def ours() -> nn.Module:
        down, up = nn.Conv2d(3, 2, 3, 2, 1, bias=False), nn.Conv2d(2, 6, 1, bias=False)
        conv = Adapted(nn.Conv2d(3, 6, 3, 2, 1), down, up, 2.0)
        return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))

    def theirs() -> keras.Model:
        x = keras.Input((8, 8, 3))
        conv = K.Conv2D(6, 3, strides=2)
        padded = K.ZeroPadding2D(1)(x)
        model = keras.Model(x, K.Dense(3)(K.GlobalAveragePooling2D()(keras.ops.relu(conv(padded)))))
        conv.enable_lora(2, lora_alpha=4)
        conv.bias.trainable = False
        return model

    proven(ours(), theirs(), IMAGE)
    proven(theirs(), ours(), IMAGE)
