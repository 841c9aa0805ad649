"""The schema's settings while a training step runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.errors import RefusedInput
from xbfl_torch.dropping import SchemaRates
from xbfl_torch.modes import modes_of_training
from xbfl_torch.rehearsal import BatchNorm, DropoutLayer


@contextmanager
def training_mode(
    model: torch.nn.Module, config: TrainConfig, calls: Sequence[str] = (), *, corrected: bool = True
) -> Iterator[None]:
    """Training mode with the schema's dropout rates, padding rows and statistics; everything is put back afterwards.

    Args:
        model: The model.
        config: Says the rates by native place.
        calls: Native place of every call that drops, in order, where attributes of modules do not say all rates.
        corrected: Whether running variances are those of the schema after a module's call; else its caller sees to that.
    """
    with ExitStack() as stack, modes_of_training(model, still_norms(model, config)):
        for name, module in model.named_modules():
            wanted = config.attributes.get(name, {})
            if isinstance(module, BatchNorm) and module.training:
                if "momentum" in wanted:
                    _set(stack, module, "momentum", 1.0 - wanted["momentum"])
                if corrected:
                    stack.enter_context(_biased_variance(module))
            if isinstance(module, torch.nn.Embedding):
                _plain(stack, module, wanted.get("padding_idx", module.padding_idx))
        for module, attribute, rate in dropout_rates(model, config):
            _set(stack, module, attribute, rate)
        if calls:
            stack.enter_context(_by_call(model, [_rate(config, place) for place in calls]))
        yield


def still_norms(model: torch.nn.Module, config: TrainConfig) -> list[torch.nn.Module]:
    """Layers that normalise with statistics which are frozen.

    Raises:
        RefusedInput: What moves statistics is no layer of PyTorch's.
    """
    left = config.frozen - {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    found: list[torch.nn.Module] = []
    for name, module in model.named_modules():
        own = {f"{name}.{buffer}" if name else buffer for buffer, _ in module.named_buffers(recurse=False)}
        if isinstance(module, BatchNorm) and own & left:
            found.append(module)
            left -= own
    if left:
        raise RefusedInput(
            f"the statistics {', '.join(sorted(left))} are moved by the model's own code, which training cannot keep from it",
            hint="leave them out of federate.frozen, or use torch.nn.BatchNorm1d, 2d or 3d",
        )
    return found


@contextmanager
def plain_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Embeddings inside have the gradient of their function: no padding row, and nothing else of training."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                _plain(stack, module, None)
        yield


def dropout_rates(model: torch.nn.Module, config: TrainConfig) -> list[tuple[torch.nn.Module, str, float]]:
    """Every module that drops, the attribute that holds its rate, and the schema's rate."""
    found = []
    for name, module in model.named_modules():
        attribute = _RATES.get(next((kind for kind in _RATES if isinstance(module, kind)), object), "")
        if attribute:
            own = float(getattr(module, attribute))
            found.append((module, attribute, _rate(config, name, own)))
    return found


_RATES: Mapping[type, str] = {
    DropoutLayer: "p",
    torch.nn.RNNBase: "dropout",
    torch.nn.MultiheadAttention: "dropout",
}
"""Modules that drop to the attribute that holds their rate."""


def _rate(config: TrainConfig, place: str, own: float = 0.0) -> float:
    """The schema's rate at a native place, its own if the schema has none."""
    wanted = config.attributes.get(place, {})
    return wanted.get("ratio", wanted.get("dropout", own)) if config.dropout else 0.0


@contextmanager
def _by_call(model: torch.nn.Module, rates: Sequence[float]) -> Iterator[None]:
    """Every forward pass inside drops at these rates, call by call."""
    inside = ExitStack()

    def enter(*_: Any) -> None:
        inside.enter_context(SchemaRates(rates))

    def leave(*_: Any) -> None:
        inside.close()

    handles = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plain(stack: ExitStack, module: torch.nn.Embedding, padding: float | None) -> None:
    """Give an embedding a padding row, and dense gradients that nothing scales."""
    _set(stack, module, "padding_idx", None if padding is None or padding < 0 else int(padding))
    _set(stack, module, "scale_grad_by_freq", value=False)
    _set(stack, module, "sparse", value=False)


def _set(stack: ExitStack, module: Any, attribute: str, value: float | None) -> None:
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
        # A loop that is not ours may evaluate on the way.
        if module.training:
            count = inputs[0].numel() / inputs[0].shape[1]
            before.append(module.running_var * ((1.0 - module.momentum) / count))

    def correct(_: Any, inputs: tuple[torch.Tensor, ...], __: Any) -> None:
        if not before:
            return
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
