"""Tensors that hold no values are refused in words."""

from __future__ import annotations

import pytest
import torch

from xbackend_fl.data.arrays import to_array
from xbackend_fl.errors import ConfigError


def test_a_tensor_of_no_device_is_refused() -> None:
    for tensor in (torch.empty(4, 2, device="meta"), torch.empty(4, device="meta", requires_grad=True)):
        with pytest.raises(ConfigError, match="train: inputs: a torch Tensor that cannot become an array: "):
            to_array(tensor, "train: inputs")
