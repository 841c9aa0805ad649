"""Leaves a user's model as it was, whatever was done with it and however that ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from xbackend_fl.adapter.preserve import generators_kept

_PLAIN = (bool, int, float, str, type(None))


@contextmanager
def layers_kept(model: Any) -> Iterator[None]:
    """Afterwards the layers of a model have the plain attributes that they had, and hold no tensors of a trace.

    A layer that was not built yet has its variables afterwards, and what goes with them. Values of variables are not
    brought back. The generators of :func:`generators_kept` are.
    """
    before = [(part, dict(vars(part))) for part in _parts(model) if getattr(part, "built", True)]
    try:
        with generators_kept():
            yield
    finally:
        for part, attributes in before:
            _bring_back(vars(part), attributes)


def _bring_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name, value in now.items() if value is not before.get(name, now)]:
        if name in before and isinstance(before[name], _PLAIN):
            now[name] = before[name]
        elif isinstance(now[name], tf.Tensor):
            if name in before:
                now[name] = before[name]
            else:
                del now[name]


def _parts(model: Any) -> list[Any]:
    """The layers and modules of a model, itself included."""
    if hasattr(model, "_flatten_layers"):
        return list(model._flatten_layers())  # noqa: SLF001  Keras lists layers inside layers nowhere else
    return [model, *model.submodules] if isinstance(model, tf.Module) else []
