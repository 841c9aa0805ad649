"""The ONNX file of every network and every row of the catalogue is accepted, and computes the same, wherever others read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import xbackend_fl
from tests.adapters.zoo import ROWS
from tests.networks.catalogue import NETWORKS
from tests.networks.files import digests, opinions
from tests.networks.network import Network
from tests.networks.test_networks import EACH_RUN
from xbackend_fl.canonical.onnx_export import check_writable, to_bytes, to_onnx
from xbackend_fl.canonical.onnx_opset import NEWEST, OLDEST, OPSET
from xbackend_fl.errors import RefusedInput
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.mapping.proof.verify import TOLERANCE


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(n, id=n.name, marks=() if n.name in EACH_RUN - {"U-Net"} else pytest.mark.slow)
        for n in NETWORKS
    ],
)
def test_the_file_of_a_network(network: Network) -> None:
    schema = xbackend_fl.describe(network.torch(), network.example())
    found = dict(opinions(schema, network.example()))
    assert max(found.values()) <= TOLERANCE, found


@pytest.mark.parametrize("only", [("two towers",), pytest.param((), marks=pytest.mark.slow)])
def test_every_process_writes_the_same_bytes(only: tuple[str, ...]) -> None:
    """This one, whose strings have hashes of their own, and another one."""
    program = (
        f"from tests.networks.files import digests; import json; print(json.dumps(dict(digests({only!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [dict(digests(only)), json.loads(done.stdout.splitlines()[-1])]
    assert found[0] == found[1]
    assert len(found[0]) == (2 if only else len(NETWORKS))


@pytest.mark.one_in(12)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_the_file_of_a_row_in_every_opset(row: Any, *, thorough: bool) -> None:
    schema = xbackend_fl.describe(row.torch(), row.example())
    for opset in range(OLDEST, NEWEST + 1) if thorough else (OPSET, NEWEST):
        if opset < OPSET:
            try:
                check_writable(schema, opset)
            except RefusedInput:
                continue
        found = dict(opinions(schema, row.example(), opset))
        assert max(found.values()) <= TOLERANCE, (opset, found)


def test_the_weights_of_dense_layers_are_read_as_they_are() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.series, self.plain = nn.Linear(6, 5), nn.Linear(3, 6), nn.Linear(3, 2, bias=False)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.series(x), self.plain(x), self.flat(x.reshape(-1, 6))

    schema = xbackend_fl.describe(Heads(), (np.zeros((1, 2, 3), np.float32),))
    weights = draw_weights(schema, 0)
    graph = to_onnx(schema, weights).graph
    readers = [node for node in graph.node if any(name.endswith("weight") for name in node.input)]
    assert [node.op_type for node in readers] == ["Gemm"] * 3
    held = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    assert held.keys() == weights.keys()
    assert all(np.array_equal(held[name], weights[name]) for name in held)


def test_a_series_of_any_length_keeps_its_free_axes() -> None:
    schema = xbackend_fl.describe(nn.Linear(3, 6), (np.zeros((1, 4, 3), np.float32),))
    model = to_onnx(schema, draw_weights(schema, 0), sequence_axes=[(0, 1)])
    session = onnx.reference.ReferenceEvaluator(model)
    for batch, length in ((1, 4), (3, 7)):
        (found,) = session.run(None, {schema.inputs[0].name: np.zeros((batch, length, 3), np.float32)})
        assert found.shape == (batch, length, 6)


def test_metadata_says_what_the_file_is() -> None:
    schema = xbackend_fl.describe(nn.Linear(3, 6), (np.zeros((1, 3), np.float32),))
    model = to_onnx(schema, draw_weights(schema, 0), metadata={"round": "7"})
    read = onnx.load_model_from_string(to_bytes(model))
    assert {item.key: item.value for item in read.metadata_props} == {
        "fingerprint": schema.fingerprint,
        "round": "7",
    }


@pytest.mark.parametrize(
    ("opset", "said"), [(18, "no Gelu as Gelu"), (17, "is not written"), (25, "is not written")]
)
def test_an_opset_without_an_operator_is_refused(opset: int, said: str) -> None:
    schema = xbackend_fl.describe(nn.Sequential(nn.Linear(3, 6), nn.GELU()), (np.zeros((1, 3), np.float32),))
    with pytest.raises(RefusedInput, match=said):
        to_onnx(schema, draw_weights(schema, 0), opset=opset)
    assert to_onnx(schema, draw_weights(schema, 0), opset=20).opset_import[0].version == 20
