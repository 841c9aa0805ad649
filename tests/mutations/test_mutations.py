"""No silent swap: every mutant of a model is mapped rightly or refused, and every wrong binding is refuted.

The oracle is neither the matcher nor the proof: whether a mutant is still the same function is decided by running
original and mutant with the same weights, and a mapped mutant is run against the Keras model on fresh draws.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import xbackend_fl
from tests.conftest import Figure
from tests.mutations.mutants import Mutant, mutants
from tests.networks.catalogue import NETWORKS
from tests.networks.network import Network
from xbackend_fl.adapter import adapter_of
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.canonical import Binding
from xbackend_fl.canonical.layout import Blocks, Join, Layout, Reorder, Stack, Sum, Transpose
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping import Evidence, evidence_of
from xbackend_fl.mapping.align.structure import find_binding
from xbackend_fl.mapping.probe.draw import draw_inputs, draw_weights
from xbackend_fl.mapping.proof.prove import prove
from xbackend_fl.mapping.proof.verify import relative_error

SMALL = (
    "U-Net", "DCGAN generator", "WaveNet", "ConvLSTM", "LSTM classifier", "GRU classifier", "BiLSTM classifier",
    "stacked LSTM classifier", "transformer encoder", "GPT decoder, tied", "ViT", "MLP-Mixer", "two towers",
    "several inputs and outputs",
)  # fmt: skip
EACH_RUN = {"LSTM classifier", "two towers", "several inputs and outputs"}
"""Of those, what every run of the suite takes; all of them are some ten minutes."""
PAIRS = [
    pytest.param(network, id=name, marks=() if name in EACH_RUN else pytest.mark.slow)
    for name in SMALL
    for network in NETWORKS
    if network.name == name
]


def outputs(model: nn.Module, arrays: Any) -> list[np.ndarray[Any, Any]] | None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dtype = next(model.parameters()).dtype
        inputs = [torch.from_numpy(a) for a in arrays]
        try:
            made = model.eval()(*(x.to(dtype) if x.is_floating_point() else x for x in inputs))
        except (RuntimeError, TypeError, AttributeError):
            return None
    return [item.numpy() for item in (made if isinstance(made, tuple) else (made,))]


def same_function(model: nn.Module, mutant: Mutant, weights: Any, arrays: Any) -> bool:
    """Whether original and mutant agree when they hold the same tensors; an exchange of layers changes no function."""
    if "↔" in mutant.what:
        return True
    theirs = mutant.model.state_dict()
    if any(theirs[k].shape != weights[k].shape for k in theirs.keys() & weights.keys()):
        return False
    mutant.model.load_state_dict(weights, strict=False)
    exact = [copy.deepcopy(m).double() for m in (model, mutant.model)]
    for scale in (1, 100):
        # Small data shows epsilons, large data shows bounds.
        scaled = [a * scale if a.dtype.kind == "f" else a for a in arrays]
        one, two = (outputs(m, scaled) for m in exact)
        if one is None or two is None or [a.shape for a in one] != [b.shape for b in two]:
            return False
        if max(relative_error(b, a) for a, b in zip(one, two, strict=True)) > 1e-10:
            return False
    return True


@pytest.mark.parametrize("network", PAIRS)
def test_every_mutant_is_mapped_rightly_or_refused(
    network: Network, figure: Figure, *, thorough: bool
) -> None:
    example, model = network.example(), network.torch()
    keras_model = network.tensorflow()
    reference = adapter_of(keras_model).load_model(keras_model, example)
    schema = reference.description.schema
    evidence = evidence_of(reference, example)
    own = adapter_of(model).load_model(model, example).description
    drawn = own.binding.restore(draw_weights(own.schema, 0))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in drawn:
                tensor.copy_(torch.from_numpy(drawn[name]))
    arrays = draw_inputs(own.schema, [array.shape for array in example], 0)
    mapped = refused = 0
    for mutant in mutants(model, None if thorough else 10):
        same = same_function(model, mutant, model.state_dict(), arrays)
        # The same outputs with other gradients, or with a parameter less that changed nothing.
        stricter = "padding_idx" in mutant.what or "no bias" in mutant.what
        try:
            bound = xbackend_fl.bind(mutant.model, schema, example, evidence)
        except RefusedInput:
            refused += 1
            assert not same or stricter, f"{mutant.what}: the same function, and yet refused"
            continue
        mapped += 1
        assert same, f"{mutant.what}: another function, and yet mapped"
        weights = draw_weights(schema, 77)
        bound.write(xbackend_fl.Weights.from_schema(schema, weights))
        own = CanonicalModel.described(reference)
        own.write(weights)
        fresh = draw_inputs(schema, [array.shape for array in example], 78)
        expected = own.forward(fresh)
        received = outputs(mutant.model, fresh)
        assert received is not None
        assert max(relative_error(a, b) for a, b in zip(received, expected, strict=True)) < 1e-3, mutant.what
    figure(f"{network.name}: mutants mapped rightly, refused", f"{mapped}, {refused}")


def vanishing(evidence: Sequence[Evidence]) -> set[str]:
    """Parameters whose gradient is below a millionth of the draw's largest in every draw."""
    sizes: dict[str, float] = {}
    for item in evidence:
        if not item.case.by_shape:
            largest = max((float(np.abs(g).max(initial=0.0)) for g in item.gradients.values()), default=0.0)
            for name, gradient in item.gradients.items():
                size = float(np.abs(gradient).max(initial=0.0)) / (largest or 1.0)
                sizes[name] = max(sizes.get(name, 0.0), size)
    return {name for name, size in sizes.items() if size < 1e-6}


def wrong_layouts(layout: Layout) -> Iterator[Layout]:
    """The layout with one step done as another framework does it."""
    match layout:
        case Blocks():
            yield replace(layout, order=(*layout.order[1:], layout.order[0]))
        case Reorder():
            yield layout.base
        case Transpose() if len(layout.shape) > 1 and layout.shape[-1] == layout.shape[-2] > 1:
            yield Transpose(
                layout, (*range(len(layout.shape) - 2), len(layout.shape) - 1, len(layout.shape) - 2)
            )
        case Stack() if len(layout.parts) > 1:
            yield Stack(layout.parts[::-1])
        case Join() if len({part.shape for part in layout.parts}) == 1:
            yield Join(layout.parts[::-1], layout.axis)
    match layout:
        case Stack():
            for index, part in enumerate(layout.parts):
                for wrong in wrong_layouts(part):
                    yield Stack((*layout.parts[:index], wrong, *layout.parts[index + 1 :]))
        case Transpose():
            for wrong in wrong_layouts(layout.base):
                yield Transpose(wrong, layout.perm)
        case Sum():
            yield Sum(layout.parts[::-1])


def wrong_bindings(
    binding: Binding,
    unseen: set[str],
    interchangeable: Callable[[str, str], bool],
    generator: np.random.Generator,
    most: int,
) -> Iterator[tuple[str, Binding]]:
    """Exchanges of parameters, and layouts of other frameworks; at most so many of each."""
    names = list(binding.parameters)
    by_shape: dict[Any, list[str]] = {}
    for name in names:
        by_shape.setdefault(binding.parameters[name].shape, []).append(name)
    pairs = [(a, b) for group in by_shape.values() for i, a in enumerate(group) for b in group[i + 1 :]]
    for index in generator.permutation(len(pairs))[:most]:
        a, b = pairs[index]
        if not {a, b} <= unseen and not interchangeable(a, b):
            swapped = {a: binding.parameters[b], b: binding.parameters[a]}
            yield f"{a} ↔ {b}", replace(binding, parameters={**binding.parameters, **swapped})
    layouts = [(name, wrong) for name in names for wrong in wrong_layouts(binding.parameters[name])]
    for index in generator.permutation(len(layouts))[:most]:
        name, wrong = layouts[index]
        yield f"{name} laid out wrongly", replace(binding, parameters={**binding.parameters, name: wrong})


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(*p.values, id=p.id, marks=pytest.mark.slow if p.id == "LSTM classifier" else p.marks)
        for p in PAIRS
    ],
)
def test_every_wrong_binding_is_refuted(network: Network, figure: Figure, *, thorough: bool) -> None:
    example, model, keras_model = network.example(), network.torch(), network.tensorflow()
    reference = adapter_of(model).load_model(model, example)
    candidate = adapter_of(keras_model).load_model(keras_model, example)
    schema, evidence = reference.description.schema, evidence_of(reference, example)
    binding, _ = find_binding(schema, candidate.description)
    assert prove(CanonicalModel(schema, binding, candidate), example, evidence).proven
    unseen, count = vanishing(evidence), 0

    def interchangeable(one: str, two: str) -> bool:
        """Two biases of one sum: only their sum is a function of the model, and their gradients are always equal."""
        drawn = [item.gradients for item in evidence if one in item.gradients and two in item.gradients]
        return bool(drawn) and all(np.allclose(g[one], g[two], rtol=1e-4, atol=1e-7) for g in drawn)

    most = 1000 if thorough else 4
    for what, wrong in wrong_bindings(binding, unseen, interchangeable, np.random.default_rng(0), most):
        assert not prove(CanonicalModel(schema, wrong, candidate), example, evidence).proven, what
        count += 1
    figure(f"{network.name}: wrong bindings refuted", count)
