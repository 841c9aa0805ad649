"""Proves a pair and its truth without the toolkit: random weights, moved by NumPy, outputs of both frameworks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from keras.src.models import Functional
from numpy.random import Generator
from torch import nn

from tests.networks.textbook.pair import Arrays, Pair
from tests.networks.textbook.truth import Array, Truth

DRAWS = 3


def build(pair: Pair) -> tuple[nn.Module, Any]:
    """Both models in evaluation, the Keras one with all its variables and with names that do not depend on others."""
    keras.utils.clear_session()
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    reference, other = pair.torch().eval(), pair.keras()
    keras_outputs(pair, other, pair.example(np.random.default_rng(0)))
    return reference, other


def randomise(model: nn.Module, rng: Generator) -> None:
    """Weights of the size that keeps values alive; vectors move around where they started; statistics not trivial."""
    with torch.no_grad():
        for value in model.parameters():
            noise = rng.standard_normal(value.shape)
            new = noise / np.sqrt(value[0].numel()) if value.ndim > 1 else value.numpy() + 0.3 * noise
            value.copy_(torch.from_numpy(np.asarray(new, np.float32)))
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.from_numpy(0.3 * rng.standard_normal(value.shape)))
            elif name.endswith("running_var"):
                value.copy_(torch.from_numpy(rng.uniform(0.5, 2.0, value.shape)))


def variables(model: Any) -> dict[str, Any]:
    """What the Keras model or ``tf.Module`` holds, by path (a path that is not the first: ``path@1``); generators of random numbers are left out."""
    held = model.weights if hasattr(model, "weights") else model.variables
    names = ["/" + getattr(one, "path", one.name).partition(":")[0] for one in held]
    found = {
        f"{name}@{names[:i].count(name)}" if name in names[:i] else name: one
        for i, (name, one) in enumerate(zip(names, held, strict=True))
    }
    return {path: one for path, one in found.items() if "seed_generator" not in path}


def moved(pair: Pair, reference: nn.Module, other: Any) -> dict[str, Array]:
    """The values of the Keras variables by ``truth``; of equal pairs every tensor and variable has its place."""
    if not isinstance(pair.truth, Mapping):
        return pair.truth(pair, reference, other)
    paths = list(variables(other))
    held = {name: value.detach().numpy() for name, value in reference.state_dict(keep_vars=True).items()}
    found: dict[str, Array] = {}
    for end, step in pair.truth.items():
        fitting = [path for path in paths if path.endswith(f"/{end}")]
        if pair.cause and not (fitting and set(step.sources) <= set(held)):
            continue
        assert len(fitting) == 1, f"{end}: {fitting} of {sorted(paths)}"
        found[fitting[0]] = np.asarray(step.change(*(held[name] for name in step.sources)))
    if not pair.cause:
        assert set(found) == set(paths), f"without truth: {sorted(set(paths) - set(found))}"
        used = _sources(pair.truth)
        tied = {name for name, _ in reference.named_parameters()}
        assert tied <= used, f"of no use in truth: {sorted(tied - used)}"
    return found


def _sources(truth: Truth) -> set[str]:
    return {name for step in truth.values() for name in step.sources}


def transfer(pair: Pair, reference: nn.Module, other: Any) -> None:
    """Write what ``truth`` makes of the PyTorch weights into the Keras model."""
    held = variables(other)
    for path, value in moved(pair, reference, other).items():
        assert held[path].shape == value.shape, f"{path}: {held[path].shape}, truth makes {value.shape}"
        held[path].assign(value)


def torch_outputs(model: nn.Module, arrays: Arrays) -> list[Array]:
    """All outputs in order; those with names by name."""
    with torch.no_grad():
        return [value.numpy() for value in flat(model(*(torch.from_numpy(array) for array in arrays)))]


def keras_outputs(pair: Pair, model: Any, arrays: Arrays) -> list[Array]:
    """All outputs as PyTorch orders their axes, for inputs as PyTorch takes them."""
    tensors = [
        tf.convert_to_tensor(array.transpose(pair.inputs[i]) if i in pair.inputs else array)
        for i, array in enumerate(arrays)
    ]
    found = [np.asarray(value) for value in flat(_called(model, tensors, pair.keys))]
    return [
        value.transpose(np.argsort(pair.outputs[i])) if i in pair.outputs else value
        for i, value in enumerate(found)
    ]


def _called(model: Any, tensors: list[Any], keys: tuple[str, ...]) -> Any:
    if isinstance(model, tf.Module) and not isinstance(model, keras.Layer):
        return model(*tensors)
    if isinstance(model, keras.Sequential):
        return model(tensors[0], training=False)
    if isinstance(model, Functional):
        if isinstance(model.input, dict):
            return model(dict(zip(keys or model.input, tensors, strict=True)), training=False)
        return model(tensors if len(tensors) > 1 else tensors[0], training=False)
    taken = [name for name in inspect.signature(model.call).parameters if name not in {"training", "mask"}]
    if len(taken) == len(tensors):
        return model(*tensors, training=False)
    return model(tensors, training=False)


def flat(value: Any) -> list[Any]:
    """The outputs in order, those with names by name."""
    if isinstance(value, Mapping):
        return [leaf for key in sorted(value) for leaf in flat(value[key])]
    if isinstance(value, (tuple, list)):
        return [leaf for one in value for leaf in flat(one)]
    return [value]


def difference(pair: Pair, reference: nn.Module, other: Any) -> float:
    """The largest difference of outputs, in parts of the output's size, over the example and further draws."""
    worst, spread = 0.0, 0.0
    for seed in range(DRAWS):
        arrays = pair.example(np.random.default_rng(seed))
        here, there = torch_outputs(reference, arrays), keras_outputs(pair, other, arrays)
        assert len(here) == len(there), "another number of outputs"
        for a, b in zip(here, there, strict=True):
            assert a.shape == b.shape, f"{a.shape}, {b.shape}"
            one, two = a.astype(np.float64), b.astype(np.float64)
            assert np.isfinite(one).all()
            assert np.isfinite(two).all()
            size = max(float(np.abs(one).max()), 1e-3)
            worst, spread = max(worst, float(np.abs(one - two).max()) / size), max(spread, float(np.ptp(one)))
    assert spread > 1e-2, f"outputs hardly move: {spread}"
    return worst


def proven(pair: Pair) -> float:
    """The difference after the transfer of random weights."""
    reference, other = build(pair)
    randomise(reference, np.random.default_rng(7))
    transfer(pair, reference, other)
    return difference(pair, reference, other)
