"""Small faults of the kind that real code has: every mutant is one change to a module of a PyTorch model."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Mutant:
    """A changed copy of a model."""

    what: str
    model: nn.Module


def mutants(model: nn.Module, most: int | None = None) -> Iterator[Mutant]:
    """Mutants of ``model``, which stays as it is.

    Args:
        model: Is copied and changed.
        most: So many changes of a layer, drawn, and as many exchanges of two layers; all if left out.
    """
    changes = list(_changed(model))
    random.Random(0).shuffle(changes)
    for name, what, change in changes[:most]:
        twin = copy.deepcopy(model)
        change(twin, name)
        yield Mutant(f"{name}: {what}", twin)
    yield from islice(_exchanges(model), most)


def _changed(model: nn.Module) -> Iterator[tuple[str, str, Callable[[nn.Module, str], None]]]:
    """The layer, what happens to it, and what does it to a copy of the model."""
    for name, module in model.named_modules():
        for what, change in _changes(module):
            yield name, what, partial(_changed_in_place, change)
        for what, replacement in _replacements(module):
            yield name, what, partial(_replaced, replacement)


def _changed_in_place(change: Callable[[Any], None], twin: nn.Module, name: str) -> None:
    change(twin.get_submodule(name))


def _replaced(replacement: nn.Module, twin: nn.Module, name: str) -> None:
    parent, _, last = name.rpartition(".")
    setattr(twin.get_submodule(parent), last, replacement)


def _set(**values: Any) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        for name, value in values.items():
            setattr(module, name, value)

    return change


def _changes(module: nn.Module) -> Iterator[tuple[str, Callable[[Any], None]]]:
    if hasattr(module, "eps"):
        for eps in (1e-3, 1e-5, 1e-6):
            if eps != module.eps:
                yield f"eps={eps}", _set(eps=eps)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        yield "momentum=0.5", _set(momentum=0.5)
        yield "no scale", lambda m: m.register_parameter("weight", None)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | nn.ConvTranspose2d) and module.bias is not None:
        yield "no bias", lambda m: m.register_parameter("bias", None)
    if isinstance(module, nn.Conv2d):
        yield "stride", _set(stride=(module.stride[0] + 1, module.stride[1]))
        if any(module.padding):
            yield "reflected padding", _set(padding_mode="reflect")
        if module.kernel_size[0] == module.kernel_size[1] and module.kernel_size[0] > 1:
            yield "uneven padding", _set(padding=(module.padding[0] + 1, module.padding[1]))
            yield (
                "dilated",
                _set(
                    dilation=(2, 2),
                    padding=tuple(
                        p + k // 2 for p, k in zip(module.padding, module.kernel_size, strict=True)
                    ),
                ),
            )
    yield from _other_changes(module)


def _other_changes(module: nn.Module) -> Iterator[tuple[str, Callable[[Any], None]]]:
    if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1:
        yield "dilation", _set(dilation=(module.dilation[0] + 1,))
    if isinstance(module, nn.MaxPool2d):
        yield "stride 1", _set(stride=1)
        yield "ceil_mode", _set(ceil_mode=True)
    if isinstance(module, nn.Embedding):
        yield "padding_idx=0", _set(padding_idx=0)
    if isinstance(module, nn.MultiheadAttention):
        yield "two heads", _set(num_heads=2, head_dim=module.embed_dim // 2)
    if isinstance(module, nn.TransformerEncoderLayer):
        yield "norm first", _set(norm_first=True)
        yield "tanh", _set(activation=torch.tanh, activation_relu_or_gelu=0)
    if isinstance(module, nn.Dropout):
        yield "another rate", _set(p=0.4)
    if isinstance(module, nn.RNNBase) and module.num_layers == 1 and not module.bidirectional:
        yield "no bias", lambda m: m.__init__(m.input_size, m.hidden_size, bias=False, batch_first=True)


def _replacements(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.ReLU):
        yield "ReLU6", nn.ReLU6()
        yield "LeakyReLU", nn.LeakyReLU(0.01)
        yield "nothing", nn.Identity()
    if isinstance(module, nn.Tanh):
        yield "Sigmoid", nn.Sigmoid()
        yield "nothing", nn.Identity()
    if isinstance(module, nn.MaxPool2d):
        yield "average", nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.LSTM) and module.num_layers == 1 and not module.bidirectional:
        yield "GRU", nn.GRU(module.input_size, module.hidden_size, batch_first=True)
    if isinstance(module, nn.BatchNorm2d):
        yield "GroupNorm", nn.GroupNorm(module.num_features, module.num_features)


def _exchanges(model: nn.Module) -> Iterator[Mutant]:
    """Two layers of one kind and shape trade places: the same function under other names."""
    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children()) and list(m.parameters())]
    pairs = list(combinations(leaves, 2))
    random.Random(0).shuffle(pairs)
    for (one, left), (two, right) in pairs:
        if type(left) is type(right) and repr(left) == repr(right) and left is not right:
            twin = copy.deepcopy(model)
            for name, other in ((one, two), (two, one)):
                parent, _, last = name.rpartition(".")
                setattr(twin.get_submodule(parent), last, copy.deepcopy(model.get_submodule(other)))
            yield Mutant(f"{one} ↔ {two}", twin)
