"""Where tests of kernels run: on a GPU as they are, elsewhere by Triton's interpreter, in NumPy.

Triton and TensorFlow do not live in one process (each brings its own LLVM), so on a processor these tests run by themselves:
``pip install triton`` into an environment of its own and ``pytest --noconftest -n0 tests/adapters/test_kernels.py tests/adapters/test_stacked*.py``.
The interpreter says nothing about speed, and its sums have NumPy's order and float32's rounding, not that of matrix units.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import pytest
import torch

if importlib.util.find_spec("triton") is None or "tensorflow" in sys.modules:
    pytest.skip("needs Triton, without TensorFlow", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _interpret() -> None:
    """Let kernels that are imported from now on run on a processor, which lacks three things for it."""
    os.environ["TRITON_INTERPRET"] = "1"
    import numpy as np
    from triton import language
    from triton.language.extra import libdevice
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        # NumPy 2.4 makes no number of an array of one.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def tanh(value: Any) -> Any:
        handle = interpreter.TensorHandle(np.tanh(value.handle.data), value.handle.dtype)
        return language.core.tensor(handle, value.type)

    interpreter._patch_lang_tensor = patched
    libdevice.tanh = tanh


if DEVICE == "cpu":
    _interpret()


def drawn(*shape: int) -> torch.Tensor:
    """Normal numbers, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error of all numbers together."""
    return float((found.double() - expected.detach()).norm() / expected.detach().norm())


def kept(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers with the channels innermost in memory, as kernels leave images."""
    return tensor.movedim(2, -1).contiguous().movedim(-1, 2)
