"""The weights of a bound model are those that it has when they are asked for, whoever changed or replaced them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

from xbackend_fl.adapter import adapter_of
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.proof.verify import Proof

_EXAMPLE = (np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(2, 6),)


class _Twice(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


class _Twisted(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((6, 3)), name="kernel")
        self.shifts = [tf.Variable(tf.zeros(3), name="shift")]

    def __call__(self, x: Any) -> Any:
        return tf.tanh(x @ self.kernel) + self.shifts[0]


def _bound(model: object) -> BoundModel:
    """A model that speaks its own schema; which numbers proved it is not asked here."""
    trainer = adapter_of(model).load_model(model, _EXAMPLE)
    return BoundModel(CanonicalModel.described(trainer), Proof((), ()))


def _exported(model: object) -> Mapping[str, NDArray[Any]]:
    return {name: np.array(array) for name, array in _bound(model).read().items()}


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def _trained(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5).mul_(3.0)


def _assigned(model: nn.Module) -> None:
    model.load_state_dict({name: t.clone() * 1.25 for name, t in model.state_dict().items()}, assign=True)


def _replaced(model: Any) -> None:
    model[2].weight = nn.Parameter(model[2].weight.detach() + 1)


_COMPUTED: dict[str, Callable[[nn.Linear], object]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own, of the bias": lambda layer: parametrize.register_parametrization(layer, "bias", _Twice()),
    "older spectral norm": spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=3),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("kind", _COMPUTED)
def test_computed_weights_are_computed_again(kind: str) -> None:
    model = _net()
    _COMPUTED[kind](model[0])
    bound = _bound(model)
    _trained(model)
    found = bound.read()
    with torch.no_grad():
        # What PyTorch itself computes with now: x = I makes an affine layer say its weight and bias.
        eye = torch.eye(6)
        bias = model[0](torch.zeros(1, 6))
        weight = (model[0](eye) - bias).T
    np.testing.assert_allclose(found["0.weight"], weight.numpy(), atol=2e-6)
    np.testing.assert_allclose(found["0.bias"], bias[0].numpy(), atol=2e-6)
    np.testing.assert_array_equal(found["2.weight"], model[2].weight.detach().numpy())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("change", [_trained, _assigned, _replaced])
def test_weights_of_pytorch_that_were_replaced(change: Callable[[Any], None], half: bool) -> None:  # noqa: FBT001
    model = _net().half() if half else _net()
    bound = _bound(model)
    change(model)
    for name, array in bound.read().items():
        np.testing.assert_array_equal(array, model.state_dict()[name].float().numpy())


def test_weights_go_into_the_tensors_of_now() -> None:
    model = _net()
    bound = _bound(model)
    weights = bound.read()
    before = model(torch.tensor(_EXAMPLE[0]))
    _assigned(model)
    bound.write(weights)
    assert torch.equal(model(torch.tensor(_EXAMPLE[0])), before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.double(), "'0.weight' has become float64"),
        (lambda model: parametrizations.weight_norm(model[0]), "come to compute its tensor '0.weight'"),
        (lambda model: model.__setitem__(2, nn.Linear(5, 4)), r"'2.weight' has become float32\[4, 5\]"),
        (lambda model: model.__setitem__(2, nn.Identity()), "lost its tensor '2.weight'"),
    ],
)
def test_another_model_is_not_exported(change: Callable[[Any], object], said: str) -> None:
    model = _net()
    bound = _bound(model)
    change(model)
    with pytest.raises(RefusedInput, match=said):
        bound.read()


def test_variables_of_tensorflow_that_were_replaced() -> None:
    model = _Twisted()
    bound = _bound(model)
    model.kernel = tf.Variable(tf.fill((6, 3), 0.25), name="kernel")
    model.shifts[0] = tf.Variable(tf.ones(3), name="shift")
    names = {array.ndim: array for array in bound.read().values()}
    np.testing.assert_array_equal(names[2], np.full((3, 6), 0.25))
    np.testing.assert_array_equal(names[1], np.ones(3))


def test_adapters_of_a_keras_layer_are_not_left_out() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    bound = _bound(model)
    model.layers[0].enable_lora(2)
    with pytest.raises(RefusedInput, match="lora_kernel_a"):
        bound.read()


def test_initializers_that_were_changed() -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 6]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.eye(6, dtype=np.float32), "w")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], tensors
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    bound = _bound(model)
    graph_of = model.graph.initializer[0]
    graph_of.CopyFrom(numpy_helper.from_array(np.full((6, 6), 2, np.float32), "w"))
    (array,) = bound.read().values()
    np.testing.assert_array_equal(array, np.full((6, 6), 2))
