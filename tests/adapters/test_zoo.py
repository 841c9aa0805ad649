"""Every row of the conversion catalogue: PyTorch, TensorFlow and ONNX Runtime agree, weights survive the trip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbackend_fl
from tests.adapters.row import Row
from tests.adapters.zoo import ROWS, TiedTorch
from xbackend_fl.adapter import adapter_of
from xbackend_fl.mapping.probe.draw import draw_weights


@pytest.mark.one_in(24)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_three_runtimes_agree(row: Row) -> None:
    reference, example = row.torch(), row.example()
    schema, evidence = xbackend_fl.describe_reference(reference, example)
    bound = xbackend_fl.bind(row.keras(), schema, example, evidence)
    assert bound.proof.proven
    compared = {check.what for check in bound.proof.checks}
    assert compared - {"statistics"} == {"onnx runtime", "reacts", "outputs", "gradients", "step"}
    own = xbackend_fl.bind(row.torch(), schema, example, evidence)
    assert own.proof.proven
    for side in (bound, own):
        weights = xbackend_fl.Weights.from_schema(schema, draw_weights(schema, 11))
        side.write(weights)
        assert side.read().digest == weights.digest


@given(st.sampled_from(ROWS), st.sampled_from(["torch", "keras"]), st.integers(0, 2**31))
@settings(max_examples=20)
def test_import_of_export_for_any_weights(row: Row, side: str, seed: int) -> None:
    model, example = getattr(row, side)(), row.example()
    described = adapter_of(model).load_model(model, example).description
    weights = draw_weights(described.schema, seed)
    again = described.binding.export(described.binding.restore(weights))
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_tied_weights_are_one_parameter() -> None:
    model = TiedTorch()
    example = (np.zeros((1, 5), np.int64),)
    schema = xbackend_fl.describe(model, example)
    assert [parameter.name for parameter in schema.parameters] == ["embedding.weight"]
    bound = xbackend_fl.bind(model, schema, example, xbackend_fl.gather_evidence(model, example))
    assert bound.proof.proven
