"""What an exported ONNX model promises to who runs it, by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import xbackend_fl
from tests.adapters.zoo import ROWS
from xbackend_fl.canonical import onnx_export
from xbackend_fl.canonical.onnx_export import to_onnx
from xbackend_fl.mapping import execute
from xbackend_fl.mapping.probe.draw import draw_weights


class Tokens(nn.Module):
    """One row per token: the first axis of its output is batch times length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(x)).reshape(-1, 3)


class Turned(nn.Module):
    """The batch comes out last."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x).permute(1, 2, 0)


MODELS = {
    **{row.name: (row.torch, row.example) for row in ROWS[::8]},
    "tokens": (Tokens, lambda: (np.zeros((1, 5), np.int64),)),
    "batch last": (Turned, lambda: (np.zeros((1, 5, 4), np.float32),)),
}


def _sizes(item: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in item.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", MODELS)
def test_the_batch_alone_is_free(name: str) -> None:
    build, example = MODELS[name]
    schema = xbackend_fl.describe(build(), example())
    arrays = draw_weights(schema, 0)
    model = to_onnx(schema, arrays)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    for item, array in zip(model.graph.input, example(), strict=True):
        assert _sizes(item) == ["batch", *array.shape[1:]]
    for batch in (1, 3):
        inputs = [np.concatenate([array[:1]] * batch) for array in example()]
        feeds = {port.name: array for port, array in zip(schema.inputs, inputs, strict=True)}
        outputs = session.run(None, feeds)
        for item, one, two in zip(model.graph.output, outputs, execute(schema, arrays, inputs), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
            declared = _sizes(item)
            assert len(declared) == one.ndim
            assert all(
                d in {"batch", n} or axis == 0
                for axis, (d, n) in enumerate(zip(declared, one.shape, strict=True))
            )
            assert all(n == batch for d, n in zip(declared, one.shape, strict=True) if d == "batch")
    wrong = [np.repeat(array, 2, axis=1) for array in example()]
    feeds = {port.name: array for port, array in zip(schema.inputs, wrong, strict=True)}
    with pytest.raises(Exception, match="invalid dimensions"):
        session.run(None, feeds)


def test_constants_whose_hashes_collide_stay_two(monkeypatch: pytest.MonkeyPatch) -> None:
    class Affine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x) * 2.0 + 5.0

    schema = xbackend_fl.describe(Affine(), (np.zeros((1, 4), np.float32),))
    x = np.ones((2, 4), np.float32)
    arrays = draw_weights(schema, 0)
    monkeypatch.setattr(onnx_export, "hash", lambda _: 0, raising=False)
    weight, bias = (next(a for n, a in arrays.items() if n.endswith(role)) for role in ("weight", "bias"))
    np.testing.assert_allclose(execute(schema, arrays, [x])[0], (x @ weight.T + bias) * 2 + 5, rtol=1e-5)


class Pooled(nn.Module):
    """ONNX's shape inference has no rule for what stands in front of the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(x).flatten(2).amax(-1))


def test_no_weight_is_turned_behind_a_group_normalization() -> None:
    x = np.random.Generator(np.random.Philox(0)).standard_normal((2, 4, 5, 5)).astype(np.float32)
    schema = xbackend_fl.describe(Pooled().eval(), (x,))
    model = to_onnx(schema, draw_weights(schema, 0))
    onnx.checker.check_model(model, full_check=True)
    assert not [
        node.op_type for node in model.graph.node if node.op_type in {"Transpose", "MatMul", "Concat"}
    ]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {schema.inputs[0].name: x})
    (expected,) = execute(schema, draw_weights(schema, 0), [x])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
