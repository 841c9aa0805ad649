"""A bound model does in ONNX layout what its framework does in its own: the frameworks themselves are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error
from torch import nn
from torch.nn.utils import parametrizations

import xbackend_fl as xb
import xbfl_tensorflow
import xbfl_torch
from tests.simulation import two_heads
from xbackend_fl.adapter import OPTIMIZERS, Batch, HeadConfig, TrainConfig
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.adapter.optimizers.kinds.sgd import SGD
from xbackend_fl.algorithms.kinds.fedprox import ProximalRule
from xbackend_fl.canonical import TrainingEffect
from xbackend_fl.errors import ConfigError, RefusedInput, SchemaError
from xbackend_fl.losses.kinds.cross_entropy import CrossEntropy
from xbackend_fl.losses.kinds.mean_squared_error import MeanSquaredError
from xbackend_fl.mapping import BoundModel, Proof, find_binding
from xbackend_fl.metrics import METRICS

Array = NDArray[Any]
EXAMPLE = (np.zeros((1, 2, 5, 6), np.float32),)
RULE = OPTIMIZERS["momentum"](lr=0.1, momentum=0.9)


def torch_net() -> nn.Sequential:
    """Classes of pixels: ``[N, 4, 5, 6]``, of which axis 1 is the classes."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
    ).eval()


def keras_net() -> keras.Model:
    layers = [
        keras.layers.Conv2D(3, 3, padding="same", activation="relu"),
        keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9),
        keras.layers.Conv2D(4, 1),
    ]
    return keras.Sequential([keras.Input((5, 6, 2)), *layers])


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def torch_side(model: nn.Module) -> BoundModel:
    """The reference under its own schema; what proves it is asked elsewhere."""
    return BoundModel(CanonicalModel.described(xbfl_torch.adapter.load_model(model, EXAMPLE)), Proof(()))


def keras_side(model: keras.Model, reference: BoundModel) -> BoundModel:
    trainer = xbfl_tensorflow.adapter.load_model(model, EXAMPLE)
    binding, _ = find_binding(reference.schema, trainer.description)
    side = BoundModel(CanonicalModel(reference.schema, binding, trainer), Proof(()))
    side.write(reference.read())
    return side


@pytest.fixture
def model() -> nn.Sequential:
    """With statistics that are those of some data."""
    found = torch_net()
    for tensor in found.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())) + 0.1
            )
    return found


def sides(model: nn.Module) -> list[BoundModel]:
    reference = torch_side(model)
    return [reference, keras_side(keras_net(), reference)]


def test_weights_are_those_of_the_state_dict(model: nn.Sequential) -> None:
    for side in sides(model):
        for name, array in side.read().items():
            own = {"mean": "running_mean", "variance": "running_var"}
            place, _, role = name.partition(".")
            np.testing.assert_array_equal(array, model.state_dict()[f"{place}.{own.get(role, role)}"].numpy())


def test_forward_is_the_framework_s_own(model: nn.Sequential) -> None:
    inputs, network = drawn(3, 2, 5, 6), keras_net()
    one = torch_side(model)
    two = keras_side(network, one)
    np.testing.assert_array_equal(one.forward((inputs,))[0], model(torch.tensor(inputs)).detach().numpy())
    own = network(inputs.transpose(0, 2, 3, 1), training=False).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(two.forward((inputs,))[0], own, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(own, one.forward((inputs,))[0], rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_autograd_and_of_a_tape(model: nn.Sequential) -> None:
    inputs, cotangent, network = drawn(3, 2, 5, 6), drawn(3, 4, 5, 6, seed=1), keras_net()
    one = torch_side(model)
    two = keras_side(network, one)
    (model(torch.tensor(inputs)) * torch.tensor(cotangent)).sum().backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    found = one.gradients((inputs,), (cotangent,))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-5, atol=1e-5, err_msg=name)
    with tf.GradientTape() as tape:
        output = network(inputs.transpose(0, 2, 3, 1), training=False)
        total = tf.reduce_sum(output * cotangent.transpose(0, 2, 3, 1))
    taped = [g.numpy() for g in tape.gradient(total, network.trainable_variables)]
    found = two.gradients((inputs,), (cotangent,))
    for name, gradient in zip(expected, taped, strict=True):
        # A kernel is [height, width, in, out] there, and [out, in, height, width] here.
        turned = gradient.transpose(3, 2, 0, 1) if gradient.ndim == 4 else gradient
        np.testing.assert_allclose(found[name], turned, rtol=1e-5, atol=1e-5, err_msg=name)


def batches(count: int = 4) -> list[Batch]:
    labels = np.random.default_rng(9).integers(0, 4, (count, 3, 5, 6))
    return [Batch((drawn(3, 2, 5, 6, seed=k),), labels[k]) for k in range(count)]


def by_hand(model: nn.Module, pull: float = 0.0) -> dict[str, Array]:
    """What PyTorch's own optimizer and loss make of the batches, with running statistics left out."""
    anchor = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=RULE.lr, momentum=RULE.momentum)
    model.train()
    for batch in batches():
        optimizer.zero_grad()
        output = model(torch.tensor(batch.inputs[0]))
        loss = nn.functional.cross_entropy(output, torch.tensor(batch.targets))
        for name, parameter in model.named_parameters():
            loss = loss + pull / 2 * ((parameter - anchor[name]) ** 2).sum()
        loss.backward()
        optimizer.step()
    model.eval()
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("pull", [0.0, 0.5])
def test_training_is_the_loop_by_hand(model: nn.Sequential, pull: float) -> None:
    # TensorFlow traces each kind of step for half a second.
    both = sides(model) if pull else [torch_side(model)]
    start = both[0].read()
    expected = by_hand(model, pull)
    config = TrainConfig(RULE)
    if pull:
        config = replace(config, rule=ProximalRule(pull), slots={"anchor": start})
    for side in both:
        for _ in range(2):
            # Nothing is remembered of what was trained before.
            side.write(start)
            seen = side.train(batches(), config)
        assert seen.positions == 4 * 3 * 5 * 6
        found = side.read()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-6, err_msg=name)
            assert np.abs(array - start[name]).max() > 1e-3


def test_figures_are_those_of_pytorch_and_scikit_learn(model: nn.Sequential) -> None:
    data = batches()
    inputs, labels = (np.concatenate(x) for x in ([b.inputs[0] for b in data], [b.targets for b in data]))
    output = model(torch.tensor(inputs)).detach()
    loss = float(nn.functional.cross_entropy(output, torch.tensor(labels)))
    accuracy = accuracy_score(labels.ravel(), output.argmax(1).numpy().ravel())
    for side in sides(model):
        found = side.evaluate(data)
        assert found.positions == labels.size
        assert found.figures == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-6)
        assert not side.evaluate([]).figures
        asked = side.evaluate(data, metrics=[METRICS["perplexity"]("perplexity")])
        assert asked.figures == pytest.approx({"loss": loss, "perplexity": np.exp(loss)}, rel=1e-6)


def test_the_model_of_now_is_asked(model: nn.Sequential) -> None:
    side, inputs = torch_side(model), drawn(2, 2, 5, 6)
    before = side.forward((inputs,))[0]
    model[3].bias = nn.Parameter(model[3].bias.detach() + 1)
    np.testing.assert_allclose(side.forward((inputs,))[0], before + 1, rtol=1e-5)
    side.train(batches(1), TrainConfig(RULE))
    np.testing.assert_array_equal(side.read()["3.bias"], model[3].bias.detach().numpy())
    np.testing.assert_array_equal(side.forward((inputs,))[0], model(torch.tensor(inputs)).detach().numpy())


LABELS = np.zeros((3, 5, 6), np.int64)
INPUT = drawn(3, 2, 5, 6)
WRONG: dict[str, tuple[Callable[[BoundModel], object], type[Exception], str]] = {
    "an input too many": (
        lambda s: s.forward((INPUT, INPUT)),
        RefusedInput,
        r"inputs \[N, 2, 5, 6\], .*received \[3, 2, 5, 6\] and \[",
    ),
    "no batch axis": (lambda s: s.forward((INPUT[0],)), RefusedInput, r"received \[2, 5, 6\]"),
    "a cotangent that would be broadcast": (
        lambda s: s.gradients((INPUT,), (np.ones((1, 4, 5, 6), np.float32),)),
        RefusedInput,
        r"\[3, 4, 5, 6\], received \[1, 4, 5, 6\]",
    ),
    "channels last": (lambda s: s.forward((INPUT.transpose(0, 2, 3, 1),)), RefusedInput, "PyTorch.*channels"),
    "targets of another shape": (
        lambda s: s.train([Batch((INPUT,), LABELS[:, 0])], TrainConfig(RULE)),
        ConfigError,
        r"targets are \[N, 6\]",
    ),
    "a class that is none": (
        lambda s: s.train([Batch((INPUT,), LABELS), Batch((INPUT,), LABELS + 4)], TrainConfig(RULE)),
        ConfigError,
        "batch 1, row 0: the target 4",
    ),
    "half a class": (
        lambda s: s.evaluate([Batch((INPUT,), LABELS + 0.5)]),
        ConfigError,
        "batch 0, row 0: the target 0.5",
    ),
    "a slot without a parameter": (
        lambda s: s.train(
            [], TrainConfig(RULE, rule=ProximalRule(1.0), slots={"anchor": {"0.bias": np.zeros(3)}})
        ),
        SchemaError,
        "the slot 'anchor'.*missing.*0.weight",
    ),
    "weights of another schema": (
        lambda s: s.write(xb.Weights(dict(s.read()), "another")),
        SchemaError,
        "received another",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(model: nn.Sequential, what: str) -> None:
    asked, kind, said = WRONG[what]
    with pytest.raises(kind, match=said):
        asked(torch_side(model))


def test_what_would_be_lost_is_not_trained(model: nn.Sequential) -> None:
    parametrizations.weight_norm(model[0])
    side = torch_side(model)
    for change in (lambda: side.write(side.read()), lambda: side.train(batches(1), TrainConfig(RULE))):
        with pytest.raises(RefusedInput, match="the map goes one way"):
            change()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inference_only": "it is a graph"}, "cannot be trained: it is a graph"),
        ({"obstacles": (TrainingEffect("0", "adds noise", "leave it out"),)}, "adds noise"),
    ],
)
def test_what_trains_otherwise_is_not_trained(
    model: nn.Sequential, change: dict[str, Any], said: str
) -> None:
    side = torch_side(model)
    bound = replace(side, model=replace(side.model, binding=replace(side.binding, **change)))
    with pytest.raises(RefusedInput, match=said):
        bound.train(batches(1), TrainConfig(RULE))


def test_arrays_by_canonical_name_are_weights(model: nn.Sequential) -> None:
    side = torch_side(model)
    moved = {name: array + 1 for name, array in side.read().items()}
    side.write(moved)
    np.testing.assert_array_equal(side.read()["0.weight"], moved["0.weight"])
    np.testing.assert_array_equal(model[0].weight.detach(), moved["0.weight"])
    with pytest.raises(SchemaError, match="unknown \\['more'\\]"):
        side.write({**moved, "more": np.zeros(3, np.float32)})


def test_one_of_several_outputs_is_trained_and_several_are_refused() -> None:
    model = two_heads.torch_tuple()
    example = (np.zeros((2, 6), np.float32),)
    schema, _ = xb.describe_reference(model, example)
    bound = xb.bind(model, schema, example)
    inputs, targets = two_heads.examples(0, 8)
    before, loss = bound.read(), MeanSquaredError()
    bound.train([Batch((inputs,), targets["age"])], TrainConfig(SGD(lr=0.1), loss=loss, output=1))
    after = bound.read()
    assert np.array_equal(after["organ.weight"], before["organ.weight"])
    hidden = np.tanh(inputs @ before["body.weight"].T + before["body.bias"])
    errors = hidden @ before["age.weight"].T + before["age.bias"] - targets["age"]
    slope = 2 * (errors * hidden).mean(0, keepdims=True)
    np.testing.assert_allclose(after["age.weight"], before["age.weight"] - 0.1 * slope, atol=1e-6)
    heads = (HeadConfig("organ", 0, CrossEntropy()), HeadConfig("age", 1, loss))
    with pytest.raises(ConfigError, match=r"train has one loss, and config\.heads has 2"):
        bound.train([], TrainConfig(SGD(), heads=heads))


def test_one_of_several_outputs_is_measured() -> None:
    model = two_heads.torch_tuple()
    example = (np.zeros((2, 6), np.float32),)
    bound = xb.bind(model, xb.describe_reference(model, example)[0], example)
    inputs, targets = two_heads.examples(0, 64)
    _, years = bound.forward((inputs,))
    ages = Batch((inputs,), targets["age"])
    found = bound.evaluate([ages], MeanSquaredError(), output=1).figures
    assert found["mae"] == pytest.approx(mean_absolute_error(targets["age"], years), rel=1e-5)
    assert found["loss"] == pytest.approx(mean_squared_error(targets["age"], years), rel=1e-5)
    for asked in (
        lambda: bound.evaluate([ages], MeanSquaredError(), output=2),
        lambda: bound.train([ages], TrainConfig(SGD(), loss=MeanSquaredError(), output=-1)),
    ):
        with pytest.raises(ConfigError, match=r"output is (2|-1), and the model has 2, counted from 0"):
            asked()
