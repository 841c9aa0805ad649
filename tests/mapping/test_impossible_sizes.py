"""A size that the model refuses is never run by ONNX Runtime, which ends its process at some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from xbackend_fl.adapter import adapter_of
from xbackend_fl.adapter.canonical_model import CanonicalModel
from xbackend_fl.mapping.probe.cases import cases
from xbackend_fl.mapping.probe.native import SizeRefused
from xbackend_fl.mapping.probe.probe import observe
from xbackend_fl.mapping.probe.runtime import Runtime

Array = NDArray[Any]


class Counted:
    """ONNX Runtime, and how often it is asked."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.asked = runtime, 0

    def outputs(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
        self.asked += 1
        return self.runtime.outputs(weights, inputs)

    def batch_statistics(self, weights: Mapping[str, Array], inputs: Sequence[Array]) -> dict[str, Array]:
        self.asked += 1
        return self.runtime.batch_statistics(weights, inputs)


def test_a_size_that_the_model_refuses_is_not_asked_of_onnx_runtime() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 4),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 5),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(36, 2),
    )
    example = (np.zeros((1, 3, 28, 28), np.float32),)
    opened = CanonicalModel.described(adapter_of(model).load_model(model.eval(), example))
    case = cases(opened.schema, example)[0]
    runtime = Counted(Runtime(opened.schema))
    assert observe(opened, case, None, runtime).outputs
    assert runtime.asked
    runtime.asked = 0
    with pytest.raises(SizeRefused, match="Kernel size can't be greater than actual input size"):
        observe(opened, replace(case, inputs=(np.zeros((2, 3, 16, 16), np.float32),)), None, runtime)
    assert runtime.asked == 0
