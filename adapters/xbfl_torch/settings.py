"""What PyTorch has for a whole process, and how it is put back."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

_BACKENDS = (
    *("cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn"),
    *("mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"),
)
"""Each decides in which precision it computes with float32; a whole one before its parts."""


def _attribute(name: str, place: str = "") -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    owner: Any = attrgetter(place)(torch.backends) if place else torch.backends
    return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value))


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # Somebody has used the other names too, and PyTorch will not say it any more.
        return ""


def _set_matmul_precision(value: str) -> None:
    if value:
        torch.set_float32_matmul_precision(value)


def _set_default_device(device: torch.device) -> None:
    # To have set one costs every call a little; the processor is where tensors are without.
    torch.set_default_device(None if device.type == "cpu" else device)


def _determinism() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_determinism(value: tuple[bool, bool]) -> None:
    wanted, warns = value
    torch.use_deterministic_algorithms(wanted, warn_only=warns)


SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (_determinism, _set_determinism),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (_matmul_precision, _set_matmul_precision),
    *(_attribute("fp32_precision", place) for place in ("", *_BACKENDS)),
    *(_attribute(name, "cudnn") for name in ("enabled", "benchmark", "deterministic")),
)
"""How each is read and set; those that decide about others before them."""
