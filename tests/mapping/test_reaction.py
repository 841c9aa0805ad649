"""Outputs that hardly react to noise: what a layer normalises and then averages is nearly the same for all of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as K
from keras import ops
from torch import nn

import xbackend_fl
from tests.mapping.masked import normal
from xbackend_fl.errors import MismatchError
from xbackend_fl.mapping.probe.cases import cases, further
from xbackend_fl.mapping.probe.distributions import STRUCTURED, patterns


class Normalised(nn.Module):
    """Two branches of one form over each channel's own mean and variance, and a mean over all positions."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        conv, norm = ((nn.Conv1d, nn.InstanceNorm1d), (nn.Conv2d, nn.InstanceNorm2d))[rank - 1]
        self.one, self.two = conv(3, 8, 3, padding=1), conv(3, 8, 3, padding=1)
        self.norm_one, self.norm_two = norm(8, affine=True), norm(8, affine=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.norm_one(self.one(x)), self.norm_two(self.two(x))
        return self.head(torch.cat([torch.relu(h).flatten(2).mean(2) for h in (one, two)], 1))


def native(*sizes: int) -> keras.Model:
    """The same in Keras; the second branch is made first."""
    x = keras.Input((*sizes, 3))
    conv = (K.Conv1D, K.Conv2D)[len(sizes) - 1]
    two = ops.relu(K.GroupNormalization(8, epsilon=1e-5)(conv(8, 3, padding="same")(x)))
    one = ops.relu(K.GroupNormalization(8, epsilon=1e-5)(conv(8, 3, padding="same")(x)))
    axes = tuple(range(1, len(sizes) + 1))
    return keras.Model(x, K.Dense(5)(ops.concatenate([ops.mean(h, axes) for h in (one, two)], 1)))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("sizes", [(32, 32), (400,)], ids=["image", "series"])
def test_networks_that_react_to_no_noise_are_proven_and_paired_rightly(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    example = (normal(1, 3, *sizes),)
    left, right = Normalised(len(sizes)), native(*sizes)
    schema, evidence = xbackend_fl.describe_reference(left, example)
    bound = xbackend_fl.bind(right, schema, example, evidence)
    assert bound.proof.proven
    for parameter in left.parameters():
        nn.init.normal_(parameter, std=0.5)
    bound.write(xbackend_fl.bind(left, schema, example, evidence).read())
    real = patterns((4, 3, *sizes), np.random.default_rng(3)).astype(np.float32)
    with torch.no_grad():
        expected = left(torch.from_numpy(real)).numpy()
    received = np.asarray(right(np.moveaxis(real, 1, -1)))
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def test_a_mean_of_what_was_normalised_is_constant_and_said_to_be() -> None:
    """The mean of a normalised channel is its bias, whatever the data: nothing shows that two of these are equal."""

    example = (normal(1, 3, 8, 8),)
    left = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.InstanceNorm2d(8, affine=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    x = keras.Input((8, 8, 3))
    normed = K.GroupNormalization(8, epsilon=1e-5)(K.Conv2D(8, 3, padding="same")(x))
    right = keras.Model(x, K.Dense(5)(ops.mean(normed, (1, 2))))
    schema, evidence = xbackend_fl.describe_reference(left, example)
    with pytest.raises(MismatchError, match=r"of their size at most, in every draw") as caught:
        xbackend_fl.bind(right, schema, example, evidence)
    assert "pairings" not in caught.value.message
    assert "several examples" in str(caught.value.hint)


def test_every_example_and_channel_has_a_structure_of_its_own() -> None:
    """Measured after each channel is brought to mean 0 and variance 1, as a normalisation does."""
    shape = (4, 3, 48, 48)

    def spread(images: np.ndarray[Any, Any]) -> float:
        flat = images.reshape(4, 3, -1)
        flat = (flat - flat.mean(2, keepdims=True)) / flat.std(2, keepdims=True)
        return float(np.ptp(np.maximum(flat, 0).mean(2), axis=0).mean())

    noise, images = np.random.default_rng(0).standard_normal(shape), patterns(shape, np.random.default_rng(0))
    assert spread(images) > 5 * spread(noise)


def test_patterns_change_no_other_draw() -> None:
    """Random numbers of the kinds that were there before are those that they were: proofs of before stay as they are."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 9, 2))
    example = (normal(1, 2, 5, 5),)
    schema = xbackend_fl.describe(net, example)
    later = [case for case, _ in further(schema, example)]
    plain = [case for case in later if not any(str(kind) in case.label for kind in STRUCTURED)]
    assert [case.seed for case in plain] == [21 + 2 * place for place in range(len(plain))]
    assert {case.seed for case in later if case not in plain}.isdisjoint({case.seed for case in plain})
    first = cases(schema, example)[0].inputs[0]
    generator = np.random.Generator(np.random.Philox(key=[0, 2]))
    noise = generator.standard_normal(first.shape)
    np.testing.assert_array_equal(first, (noise + generator.standard_normal((4, 2, 1, 1))).astype(np.float32))
