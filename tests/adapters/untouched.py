"""Everything about a model and its process that describing and proving must leave as it was."""

from __future__ import annotations

import pickle
import random
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch


def snapshot(model: Any) -> dict[str, Any]:
    """State of a model and of the generators of random numbers, comparable with ``==``."""
    found = _torch(model) if isinstance(model, torch.nn.Module) else _tensorflow(model)
    return found | _process()


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _torch(model: torch.nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {"modules": [(name, id(module)) for name, module in model.named_modules()]}
    for name, module in model.named_modules():
        found[f"{name} class"] = type(module)
        for key, value in vars(module).items():
            if key in {"_parameters", "_buffers", "_modules"}:
                found[f"{name} {key}"] = [(item, id(part)) for item, part in value.items()]
            elif isinstance(value, torch.Tensor):
                found[f"{name}.{key}"] = _bits(value)
            elif isinstance(value, dict):
                found[f"{name} {key}"] = dict(value)
            else:
                found[f"{name} {key}"] = repr(value) if isinstance(value, list | tuple) else value
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[f"tensor {name}"] = _bits(tensor)
        found[f"grad {name}"] = None if tensor.grad is None else _bits(tensor.grad)
        found[f"hooks {name}"] = dict(tensor._backward_hooks or {})
    return found


def _bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    data = tensor.detach()
    return (
        data.contiguous().numpy().tobytes(), tuple(data.shape), data.stride(), data.dtype, str(data.device),
        tensor.requires_grad, tensor.data_ptr(), type(tensor),
    )  # fmt: skip


def _tensorflow(model: Any) -> dict[str, Any]:
    variables = list(getattr(model, "variables", ())) + list(getattr(model, "non_trainable_variables", ()))
    found: dict[str, Any] = {"variables": [id(variable) for variable in variables]}
    for index, variable in enumerate(variables):
        array = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
        found[f"variable {index}"] = (array.tobytes(), array.shape, str(array.dtype), variable.trainable)
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else ()
    for index, layer in enumerate(layers):
        found[f"layer {index}"] = (
            id(layer), layer.trainable, layer.built, str(layer.dtype_policy) if hasattr(layer, "dtype_policy") else "",
            [id(metric) for metric in getattr(layer, "metrics", ()) or ()],
            {key: value for key, value in vars(layer).items() if isinstance(value, bool | int | float | str)},
        )  # fmt: skip
    found["optimizer"] = id(getattr(model, "optimizer", None))
    found["compiled"] = getattr(model, "compiled", None)
    return found


def _process() -> dict[str, Any]:
    seeds = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    return {
        "random": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002  the global one must be left alone
        "torch": torch.get_rng_state().numpy().tobytes(),
        "tf": np.asarray(tf.random.get_global_generator().state).tobytes(),
        "tf seed": tf.compat.v1.get_default_graph().seed,
        "keras seed": None if seeds is None else np.asarray(seeds.state.numpy()).tobytes(),
        "floats": (torch.get_default_dtype(), keras.config.floatx()),
        "eager": tf.config.functions_run_eagerly(),
        "grad": torch.is_grad_enabled(),
    }
