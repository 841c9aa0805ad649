"""The treaty's settings while a training step runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from xbackend_fl.adapter.contract import TrainConfig
from xbfl_torch.describe import evaluation_mode

_BatchNorm = torch.nn.modules.batchnorm._BatchNorm  # noqa: SLF001  the common base has no public name


@contextmanager
def training_mode(model: torch.nn.Module, config: TrainConfig) -> Iterator[None]:
    """Training mode with the treaty's dropout rates and statistics; everything is put back afterwards."""
    modules: dict[str, Any] = dict(model.named_modules())
    with ExitStack() as stack, evaluation_mode(model):
        model.train()
        for name, module in modules.items():
            wanted = config.attributes.get(name, {})
            if isinstance(module, _BatchNorm):
                if "momentum" in wanted:
                    _set(stack, module, "momentum", 1.0 - wanted["momentum"])
                stack.enter_context(_biased_variance(module))
        for module, attribute, rate in dropout_rates(model, config):
            _set(stack, module, attribute, rate)
        yield


def dropout_rates(model: torch.nn.Module, config: TrainConfig) -> list[tuple[torch.nn.Module, str, float]]:
    """Every module that drops, the attribute that holds its rate, and the treaty's rate."""
    found = []
    for name, module in model.named_modules():
        wanted = config.attributes.get(name, {})
        for attribute in ("p", "dropout"):
            own = getattr(module, attribute, None)
            if isinstance(own, float):
                rate = wanted.get("ratio", wanted.get("dropout", own))
                found.append((module, attribute, rate if config.dropout else 0.0))
    return found


def _set(stack: ExitStack, module: Any, attribute: str, value: float) -> None:
    stack.callback(setattr, module, attribute, getattr(module, attribute))
    setattr(module, attribute, value)


@contextmanager
def _biased_variance(module: Any) -> Iterator[None]:
    """Make running_var average the biased batch variance, as ONNX defines it and Keras stores it.

    PyTorch averages ``var * n / (n - 1)``: with ``c = (n - 1) / n`` the wanted average is ``c * after + (1 - c) * (1 - momentum) *
    before``. Two small kernels; a GPU's step is made of little else.
    """
    before: list[torch.Tensor] = []

    def remember(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        count = inputs[0].numel() / inputs[0].shape[1]
        before.append(module.running_var * ((1.0 - module.momentum) / count))

    def correct(_: Any, inputs: tuple[torch.Tensor, ...], __: Any) -> None:
        count = inputs[0].numel() / inputs[0].shape[1]
        # Autograd keeps running_var for the backward pass, which does not read it in training mode;
        # .data leaves the version that autograd checks alone.
        running = module.running_var.data
        torch.add(before.pop(), running, alpha=(count - 1.0) / count, out=running)

    handles = [module.register_forward_pre_hook(remember), module.register_forward_hook(correct)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
