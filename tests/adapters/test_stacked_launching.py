"""What a step launches is compiled once, afterwards, and keeps no memory until then."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.adapters.triton_place import drawn
from xbfl_torch.stacked.kernels import launching

triton = launching.triton
tl = triton.language


def short(values, count, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201, N803
    tl.store(values + tl.arange(0, BLOCK), 1.0, tl.arange(0, BLOCK) < count)


@triton.runtime.jit.JITFunction
def squared(values, i, inside):  # noqa: ANN001, ANN201
    found = tl.load(values + i, inside, 0.0)
    return found * found


def longer(values, count, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201, N803
    i = tl.arange(0, BLOCK)
    tl.store(values + i, squared(values, i, i < count), i < count)


def test_what_is_to_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = [triton.runtime.jit.JITFunction(function) for function in (short, longer)]
    compiled: list[Any] = []
    monkeypatch.setattr(launching, "begin", lambda: ())
    monkeypatch.setattr(launching, "_compile", lambda _, *call: compiled.append(call))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def meanwhile() -> None:
        """Knows its kernel already."""
        compiled.append((None,))
        launching.launch(kernels[0], (1,), drawn(64), 32, 64)

    with launching.compiling(meanwhile):
        values = drawn(64)
        held = weakref.ref(values)
        launching.launch(kernels[0], (1,), values, 32, 64)
        launching.launch(kernels[0], (1,), drawn(16), 48, 64)
        launching.launch(kernels[0], (1,), values, 33, 64)
        launching.launch(kernels[0], (1,), values[1:], 32, 64)
        launching.launch(kernels[1], (1,), values, 32, 64)
        for several in ((values, drawn(16)), (drawn(16), values)):
            launching.launch(kernels[1], (1,), several, 32, 64)
        del values, several
        gc.collect()
        assert held() is None
        assert not compiled
    assert [call[0] for call in compiled].count(kernels[0]) == 3
    assert [call[0] for call in compiled].count(kernels[1]) == 2
    assert {call[0] for call in compiled} == {*kernels, None}
    short_one, long_one = map(launching._length, kernels)
    assert short_one == len(kernels[0].src)
    assert long_one == len(kernels[1].src) + len(squared.src)


def test_what_failed_early_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that could not be started while CUDA did is no reason to compile nothing."""
    failed: Future[None] = Future()
    failed.set_exception(OSError(14, "Bad address"))
    kernel, compiled = triton.runtime.jit.JITFunction(short), SimpleNamespace(run=None)
    calls: list[Any] = []
    monkeypatch.setattr(launching, "begin", lambda: (failed,))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(kernel, "warmup", lambda *_, **__: calls.append("compiled") or compiled)
    with launching.compiling(lambda: None):
        launching.launch(kernel, (1,), drawn(64), 32, 64)
    assert calls == [0, "compiled"]
