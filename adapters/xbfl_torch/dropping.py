"""Calls of functions that drop, and the schema's rate for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch.overrides import TorchFunctionMode

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("dropout", "dropout_"), "dropout"),
    **dict.fromkeys(
        ("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_dropout_"), "feature_dropout"
    ),
    "scaled_dot_product_attention": "attention",
}
"""Functions of PyTorch that drop, by the kind of node that they leave in a graph."""

_RATE: Mapping[str, tuple[str, int, float]] = {
    "dropout": ("p", 1, 0.5),
    "feature_dropout": ("p", 1, 0.5),
    "attention": ("dropout_p", 4, 0.0),
}
"""Name, position and usual value of the rate."""


def kind_of(name: str) -> str | None:
    """The kind of a function that drops, ``None`` for any other."""
    return _KINDS.get(name)


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], name: str, position: int, usual: Any) -> Any:
    """An argument of a call, however it is given."""
    return args[position] if len(args) > position else kwargs.get(name, usual)


def rate_of(kind: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The rate at which a call drops; 0 if it is told not to."""
    active = kind == "attention" or argument(args, kwargs, "training", 2, kwargs.get("train", True))
    return float(argument(args, kwargs, *_RATE[kind])) if active else 0.0


def dropped(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], function: Any, rate: float) -> Any:
    """Make a call that drops, at another rate."""
    kind = _KINDS[name]
    if kind == "attention":
        return function(
            *args[:4], **{**kwargs, "dropout_p": rate}, **dict(zip(("is_causal",), args[5:], strict=False))
        )
    value = args[0] if args else kwargs["input"]
    if not rate:
        return value
    in_place = name.endswith("_") or argument(args, kwargs, "inplace", 3, usual=False)
    make = {
        ("dropout", False): torch.dropout,
        ("dropout", True): torch.dropout_,
        ("feature_dropout", False): torch.feature_dropout,
        ("feature_dropout", True): torch.feature_dropout_,
    }
    return make[kind, bool(in_place)](value, rate, train=True)


@final
class SchemaRates(TorchFunctionMode):
    """Gives every call that drops the schema's rate, in the order in which a model calls them.

    Args:
        rates: One rate per call.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__()
        self._rates, self._next = tuple(rates), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make a call, at the schema's rate if it drops."""
        del types
        name = getattr(func, "__name__", "")
        if name not in _KINDS:
            return func(*args, **(kwargs or {}))
        rate = self._rates[self._next % len(self._rates)]
        self._next += 1
        return dropped(name, args, kwargs or {}, func, rate)
