"""A cast to a half that a Keras graph makes on purpose is part of the function; one in a model that computes in halves is not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import ops
from torch import nn

import xbackend_fl as xb
from xbackend_fl.errors import MismatchError

pytestmark = pytest.mark.slow

EXAMPLE = (np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32),)


class Rounded(nn.Module):
    """Two dense layers; the data is rounded to a half in front of them, or not."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.a, self.b, self.dtype = nn.Linear(6, 8), nn.Linear(8, 3), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = x if self.dtype is None else x.to(self.dtype).float()
        y: torch.Tensor = self.b(self.a(rounded))
        return y


def functional(half: str, policy: Any = None, given: str = "float32") -> keras.Model:
    x = keras.Input((6,), dtype=given)
    rounded = ops.cast(ops.cast(x, half), "float32")
    y = keras.layers.Dense(3, dtype=policy)(keras.layers.Dense(8, dtype=policy)(rounded))
    return keras.Model(x, ops.cast(y, "float32"))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_cast_on_purpose_counts(half: str) -> None:
    schema, evidence = xb.describe_reference(Rounded(None), EXAMPLE)
    with pytest.raises(MismatchError):
        xb.bind(functional(half), schema, EXAMPLE, evidence)
    schema, evidence = xb.describe_reference(Rounded(getattr(torch, half)), EXAMPLE)
    bound = xb.bind(functional(half), schema, EXAMPLE, evidence)
    assert bound.notes == ()


@pytest.mark.parametrize(
    ("policy", "given"), [("mixed_bfloat16", "float32"), ("bfloat16", "float32"), (None, "bfloat16")]
)
def test_a_model_of_halves_is_proven_in_float32(policy: str | None, given: str) -> None:
    """And a note says so, also where its inputs alone are halves."""
    schema, evidence = xb.describe_reference(Rounded(None), EXAMPLE)
    bound = xb.bind(functional("bfloat16", policy, given), schema, EXAMPLE, evidence)
    assert any("in bfloat16 itself" in note for note in bound.notes)
