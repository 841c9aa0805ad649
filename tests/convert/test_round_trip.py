"""PyTorch → Keras → ONNX → PyTorch, bit for bit, for every row of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import xbfl_onnx
import xbfl_tensorflow
import xbfl_torch
from tests.adapters.row import Row
from tests.adapters.zoo import ROWS
from xbackend_fl import weights
from xbackend_fl.convert import convert, open_pair
from xbackend_fl.convert.models import Side
from xbackend_fl.mapping.probe.draw import draw_weights
from xbackend_fl.weights.store import same_bits

TORCH, KERAS, ONNX = xbfl_torch.adapter, xbfl_tensorflow.adapter, xbfl_onnx.adapter


def _canonical(side: Side) -> dict[str, Any]:
    assert side.trainer is not None
    return side.binding.export(side.trainer.read())


@pytest.mark.one_in(32)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_bits_survive_three_frameworks(row: Row, tmp_path: Path) -> None:
    example = row.example()
    reader, keras_side = open_pair((TORCH, row.torch()), (KERAS, row.keras()), example)
    assert reader.schema is not None
    assert reader.trainer is not None
    drawn = draw_weights(reader.schema, 11)
    reader.trainer.write(reader.binding.restore(drawn))
    first = reader.trainer.save(tmp_path / "first")
    natives = {name: array.copy() for name, array in weights.open_weights(first).items()}
    canonical = _canonical(reader)
    assert all(same_bits(canonical[name], array) for name, array in drawn.items())

    keras_file = tmp_path / "net.weights.h5"
    report = convert(
        weights.open_weights(first), keras_file, reader=reader, writer=keras_side, example=example
    )
    assert report.outputs
    onnx_file = tmp_path / "net.onnx"
    convert(weights.open_weights(keras_file), onnx_file, reader=keras_side, example=example)

    torch.manual_seed(99)  # the last model starts from other weights
    onnx_side, last = open_pair((ONNX, ONNX.load(onnx_file)), (TORCH, row.torch()), example)
    last_file = tmp_path / "last.pt"
    convert(weights.open_weights(onnx_file), last_file, reader=onnx_side, writer=last, example=example)
    again = weights.open_weights(last_file)
    assert list(again) == list(natives)
    for name, array in natives.items():
        if name in reader.binding.owners:
            assert same_bits(again[name], array), name
