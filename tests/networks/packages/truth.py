"""The map of weights as a package's own converter makes it, by names, or by the order in which layers compute."""

from __future__ import annotations

import functools
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any
from unittest import mock

import keras
import numpy as np
import torch
from torch import nn

from tests.networks.packages.sources import converter, package
from tests.networks.textbook.pair import Converter, Pair
from tests.networks.textbook.proof import flat, keras_outputs, variables
from tests.networks.textbook.truth import Array, kernel

Change = Callable[[Array], Array]
Becomes = str | Callable[[re.Match[str]], str]
Rule = tuple[str, Becomes] | tuple[str, Becomes, Change]
"""What ``re.sub`` takes, and how the tensor changes."""


class Loader:
    """What KerasHub's converters read a file of weights with, for a model in memory; counts what was read."""

    def __init__(self, model: nn.Module, renamed: Iterable[Rule] = ()) -> None:
        self.renamed = tuple(renamed)
        self.held = {name: value.detach().numpy() for name, value in model.state_dict(keep_vars=True).items()}
        self.read: set[str] = set()

    def get_tensor(self, key: str) -> Array:
        """By its name, or by the end of it: a converter writes ``bert.pooler`` or ``pooler`` for one thing."""
        for pattern, becomes, *_ in self.renamed:
            key = re.sub(pattern, becomes, key)
        for end in (key, key.partition(".")[2]):
            found = [name for name in self.held if f".{name}".endswith(f".{end}")]
            found = [name for name in found if len(name) == min(map(len, found))]
            if end and len(found) == 1:
                self.read.add(found[0])
                return self.held[found[0]]
        raise KeyError(key)

    def port_weight(
        self,
        keras_variable: Any,
        hf_weight_key: str,
        hook_fn: Callable[[Array, list[int]], Array] | None = None,
    ) -> None:
        """Write one variable."""
        value = self.get_tensor(hf_weight_key)
        keras_variable.assign(hook_fn(value, list(keras_variable.shape)) if hook_fn else value)


def by_converter(
    kind: str,
    *rules: Rule,
    head: bool = False,
    settings: Mapping[str, Any] | None = None,
    renamed: Iterable[Rule] = (),
) -> Converter:
    """By KerasHub's converter of the kind, with the settings of the PyTorch model.

    ``rules`` for what it leaves out, ``renamed`` for tensors that have other names in a file than in the model.
    """

    def write(_: Pair, reference: nn.Module, other: Any) -> set[str]:
        loader = Loader(reference, renamed)
        held = settings or next(one.config for one in reference.modules() if hasattr(one, "config")).to_dict()
        with redirect_stdout(StringIO()):  # some say what they do
            converter(kind).convert_weights(backbone(other), loader, held)
            if head:
                converter(kind).convert_head(other, loader, held)
        for path, variable in variables(other).items():
            if any(re.search(rule[0], path.strip("/")) for rule in rules):
                _named(loader, path.strip("/"), variable, rules)
        return loader.read

    return functools.partial(_values, write)


def by_names(*rules: Rule) -> Converter:
    """By rules that make the name of a PyTorch tensor of a variable's path, all in turn, as ``re.sub`` does.

    A third part of a rule changes the tensor, where its pattern is found, before it is laid out as Keras does.
    """

    def write(_: Pair, reference: nn.Module, other: Any) -> set[str]:
        loader = Loader(reference)
        for path, variable in variables(other).items():
            if not fixed(path, variable):
                _named(loader, path.strip("/"), variable, rules)
        return loader.read

    return functools.partial(_values, write)


def _named(loader: Loader, path: str, variable: Any, rules: Iterable[Rule]) -> None:
    name, changes = path, []
    for pattern, becomes, *change in rules:
        if re.search(pattern, name):
            name, changes = re.sub(pattern, becomes, name), [*changes, *change]
    module, _, role = name.replace("/", ".").rpartition(".")
    role = role.partition("@")[0]
    if any(f".{held}".endswith(f".{module}.{role}") for held in loader.held):
        value, role = loader.get_tensor(f"{module}.{role}"), ""  # both name it so, and hold it so
    else:
        value = loader.get_tensor(".".join(filter(None, (module, ENDS.get(role, role)))))
    for one in changes:
        value = one(value)
    variable.assign(laid_out(value, role, tuple(variable.shape)))


ENDS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "pointwise_kernel": "weight",
    "embeddings": "weight",
    "reverse_embeddings": "weight",
    "gamma": "weight",
    "scale": "weight",
    "variable": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


GAIN = "weight of a normalisation"
"""A table of one row has the role and the size of one, and is none."""
HELD = {"layer_scale": GAIN, "scale": GAIN}
"""Roles of PyTorch parameters that a block holds itself."""


def laid_out(value: Array, role: str, shape: tuple[int, ...]) -> Array:
    """A PyTorch tensor as a Keras variable of that name and shape."""
    if role == "depthwise_kernel":
        apart = value.reshape(shape[-2], -1, *value.shape[2:])
        return apart.transpose(*range(2, apart.ndim), 0, 1)
    if role in {"kernel", "pointwise_kernel"}:
        return (value.T if value.ndim == 2 else kernel(value)).reshape(shape)
    return (value.T if role == "reverse_embeddings" else value).reshape(shape)


def in_order() -> Converter:
    """By the order in which layers compute: the next PyTorch tensor of the role and size that a variable has."""

    def write(pair: Pair, reference: nn.Module, other: Any) -> set[str]:
        arrays = pair.example(np.random.default_rng(0))
        waiting: dict[tuple[str, int], deque[tuple[str, Array]]] = defaultdict(deque)
        with torch.no_grad(), _evaluated(reference), _torch_calls(reference) as called:
            reference(*map(torch.from_numpy, arrays))
        names = {id(value): name for name, value in reference.state_dict(keep_vars=True).items()}
        for module in dict.fromkeys((*called, *reference.modules())):  # a table may be read without a call
            for role, value in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ):
                if id(value) in names and value.ndim:
                    gain = role == "weight" and value.ndim == 1
                    waiting[HELD.get(role, GAIN if gain else role), value.numel()].append(
                        (names.pop(id(value)), value.detach().numpy())
                    )
        read = set()
        for layer in _keras_calls(lambda: keras_outputs(pair, other, arrays)):
            for variable in layer.weights:
                if fixed(variable.path, variable):
                    continue
                role = re.sub(r"_\d+$", "", variable.path.rpartition("/")[2])
                kind = GAIN if role in {"gamma", "scale", "variable"} else ENDS.get(role, role)
                queue = waiting[kind, int(np.prod(variable.shape))]
                assert queue, f"nothing for {variable.path}"
                name, value = queue.popleft()
                variable.assign(laid_out(value, role, tuple(variable.shape)))
                read.add(name)
        return read

    return functools.partial(_values, write)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """A call in training mode would move the statistics that are to be compared."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    yield
    for module, mode in training.items():
        module.training = mode


@contextmanager
def _torch_calls(model: nn.Module) -> Iterator[list[nn.Module]]:
    called: dict[nn.Module, None] = {}
    hooks = [
        module.register_forward_hook(lambda module, *_: called.setdefault(module))
        for module in model.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    found: list[nn.Module] = []
    yield found
    found.extend(called)
    for hook in hooks:
        hook.remove()


def _keras_calls(run: Callable[[], object]) -> list[Any]:
    """Layers that hold weights themselves, in the order of their first call."""
    called: dict[int, Any] = {}
    usual = keras.Layer.__call__

    def noted(layer: Any, *arguments: Any, **named: Any) -> Any:
        if layer.weights and not list(layer._flatten_layers(include_self=False)):
            called.setdefault(id(layer), layer)
        return usual(layer, *arguments, **named)

    with mock.patch.object(keras.Layer, "__call__", noted):
        run()
    return list(called.values())


def backbone(model: Any) -> Any:
    """The KerasHub backbone that a model is, has or calls."""
    kinds = package("keras_hub").models.Backbone
    if isinstance(model, kinds):
        return model
    return getattr(model, "backbone", None) or next(one for one in model.layers if isinstance(one, kinds))


def fixed(path: str, variable: Any) -> bool:
    """Whether a variable is what a layer computed once, or keeps for its files, and no weight."""
    return not variable.trainable and not path.rpartition("/")[2].startswith("moving_")


def _values(
    write: Callable[[Pair, nn.Module, Any], set[str]], pair: Pair, reference: nn.Module, other: Any
) -> dict[str, Array]:
    """What the writer leaves in every variable, which keeps what it had."""
    held = {path: one for path, one in variables(other).items() if not fixed(path, one)}
    before = {path: np.array(one) for path, one in held.items()}
    for one in held.values():
        one.assign(np.full(one.shape, np.nan))
    read = write(pair, reference, other)
    after = {path: np.array(one) for path, one in held.items()}
    for path, one in held.items():
        one.assign(before[path])
    left = [path for path, value in after.items() if np.isnan(value).any()]
    assert not left, f"without truth: {left}"
    unread = _needed(pair, reference) - read
    assert not unread, f"of no use in truth: {sorted(unread)}"
    return after


def _needed(pair: Pair, reference: nn.Module) -> set[str]:
    """Parameters that outputs depend on."""
    arrays = pair.example(np.random.default_rng(0))
    named = {name: value for name, value in reference.named_parameters() if value.requires_grad}
    with _evaluated(reference):
        total = sum(value.double().sum() for value in flat(reference(*map(torch.from_numpy, arrays))))
    assert isinstance(total, torch.Tensor)
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
