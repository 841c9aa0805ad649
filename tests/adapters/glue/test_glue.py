"""Glue in many spellings: PyTorch, Keras and ONNX Runtime agree, and two spellings of one function have one form."""

from __future__ import annotations

import pytest

import xbackend_fl
from tests.adapters.glue import contractions, gates, masks, movement
from tests.adapters.glue.pair import Pair
from xbackend_fl.adapter import adapter_of
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.mapping.align.structure import find_binding
from xbackend_fl.mapping.probe.draw import draw_weights

_MODULES = (masks, gates, movement, contractions)
_PAIRS = [pair for module in _MODULES for pair in module.PAIRS]
_TWO_FORMS = frozenset(
    {
        *("global pooling by a window", "dot of two towers", "dot by einsum", "dot by a product of matrices"),
        *("cosine", "outer product", "attention module with padding"),
        "attention module with padding and weights",
        "einsum with a table",
    }
)
"""Pairs that stay two forms, and are paired by what their layers compute."""
_ONE_FORM = [pair for pair in _PAIRS if pair.name not in _TWO_FORMS]


@pytest.mark.one_in(16)
@pytest.mark.parametrize("pair", _ONE_FORM, ids=[pair.name for pair in _ONE_FORM])
def test_two_spellings_have_one_form(pair: Pair) -> None:
    example = pair.example()
    schema = xbackend_fl.describe(pair.torch(), example)
    model = pair.keras()
    binding, _ = find_binding(schema, adapter_of(model).load_model(model, example).description)
    assert set(binding.parameters) == {parameter.name for parameter in schema.parameters}


@pytest.mark.one_in(32)
@pytest.mark.parametrize("pair", _PAIRS, ids=[pair.name for pair in _PAIRS])
def test_three_runtimes_agree(pair: Pair) -> None:
    reference, example = pair.torch(), pair.example()
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    bound = xbackend_fl.bind(pair.keras(), schema, example, evidence)
    compared = {check.what for check in bound.proof.checks}
    assert bound.proof.proven
    assert compared >= {"onnx runtime", "outputs", "gradients"}
    # Where parameters are paired by their gradients, a step says nothing more.
    assert "step" in compared or pair.name in _TWO_FORMS


@pytest.mark.parametrize("pair", _ONE_FORM[::7], ids=[pair.name for pair in _ONE_FORM[::7]])
def test_the_file_of_a_model_is_read_back_in_its_form(pair: Pair) -> None:
    example = pair.example()
    schema = xbackend_fl.describe(pair.torch(), example)
    weights = draw_weights(schema, 3)
    model = to_onnx(schema, weights)
    again = adapter_of(model).load_model(model, example).description
    binding, _ = find_binding(schema, again)
    assert set(binding.parameters) == set(weights)
