"""Recurrent networks get in whatever form they have, and only those that are one function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import xbackend_fl
from tests.mapping.recurrent import PAIRS, SERIES, UNLIKE, Pair, U
from xbackend_fl.adapter.contract import Batch, TrainConfig
from xbackend_fl.adapter.optimizers import OPTIMIZERS
from xbackend_fl.errors import MismatchError
from xbackend_fl.losses import LOSSES


def _told(pairs: tuple[Pair, ...]) -> list[Any]:
    return [pytest.param(p, id=p.name, marks=[] if p.quick else [pytest.mark.slow]) for p in pairs]


def _bound(pair: Pair) -> tuple[Any, Any, xbackend_fl.BoundModel, xbackend_fl.BoundModel]:
    reference, candidate, example = pair.torch(), pair.keras(), (pair.input,)
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    there = xbackend_fl.bind(candidate, schema, example, evidence)
    return reference, candidate, xbackend_fl.bind(reference, schema, example, evidence), there


@pytest.mark.one_in(4)
@pytest.mark.parametrize("pair", _told(PAIRS))
def test_two_forms_of_one_network_are_mapped(pair: Pair) -> None:
    reference, candidate, here, there = _bound(pair)
    there.write(here.read())
    generator = np.random.default_rng(1)
    data = generator.permuted(pair.input, axis=1) if pair.input.dtype.kind == "i" else pair.input * 2
    expected = reference.eval()(torch.tensor(data)).detach().numpy()
    np.testing.assert_allclose(np.asarray(candidate(data)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("pair", _told(UNLIKE))
def test_networks_that_look_alike_are_refused_for_their_cause(pair: Pair) -> None:
    with pytest.raises(MismatchError) as caught:
        _bound(pair)
    assert pair.cause in str(caught.value)


@pytest.mark.parametrize("name", ["GRU, RNN of a cell", pytest.param("GRU by hand", marks=pytest.mark.slow)])
def test_equal_gradients_leave_each_bias_with_its_weights(name: str) -> None:
    """Only the sum of two of a GRU's biases is a function of it; the one of the input stays with the input's weights."""
    reference, candidate, here, there = _bound(next(pair for pair in PAIRS if pair.name == name))
    there.write(here.read())
    held = {key: value.detach().numpy() for key, value in reference.named_parameters()}
    rows = [value for key, value in held.items() if "bias" in key and value.size == 3 * U]
    reset, update, new = (np.stack([row[n * U : (n + 1) * U] for row in rows]) for n in range(3))
    received = next(np.asarray(v) for v in candidate.weights if tuple(v.shape) == (2, 3 * U))
    np.testing.assert_array_equal(received, np.concatenate([update, reset, new], axis=1))


def test_a_layer_and_a_cell_by_hand_train_as_the_cell_does() -> None:
    """Both take the step that PyTorch's own optimizer takes on the model written by hand."""
    pair = next(pair for pair in PAIRS if pair.name == "LSTM gate by gate")
    reference, _, here, there = _bound(pair)
    there.write(here.read())
    own = pair.torch()
    own.load_state_dict(reference.state_dict())
    targets = np.random.default_rng(2).standard_normal((2, 2)).astype(np.float32)
    config = TrainConfig(OPTIMIZERS["sgd"](lr=0.5), loss=LOSSES["mean_squared_error"]())
    for bound in (here, there):
        bound.trainer.train([Batch((SERIES,), targets)], config)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.5)
    torch.nn.functional.mse_loss(own(torch.tensor(SERIES)), torch.tensor(targets)).backward()
    optimizer.step()
    taken = dict(own.named_parameters())
    for name, array in here.trainer.read().items():
        np.testing.assert_allclose(array, taken[name].detach().numpy(), rtol=1e-5, atol=1e-6)
    left, right = here.read(), there.read()
    for name in left:
        np.testing.assert_allclose(right[name], left[name], rtol=1e-4, atol=1e-6)
