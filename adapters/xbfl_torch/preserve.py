"""Leaves a user's module as it was, whatever was done with it and however that ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from xbackend_fl.adapter.preserve import generators_kept


@contextmanager
def modules_kept(model: torch.nn.Module) -> Iterator[None]:
    """Afterwards every submodule has the attributes, parameters, buffers, hooks and mode it had, the same objects.

    Values of tensors that were changed in place are not brought back, and neither is what lies inside a user's own lists.
    PyTorch's generators are, and those of :func:`generators_kept`.
    """
    before = [(module, dict(vars(module)), _inner(vars(module))) for module in model.modules()]
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    drawn = torch.get_rng_state()
    try:
        with generators_kept():
            yield
    finally:
        torch.set_rng_state(drawn)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        for module, attributes, inner in before:
            vars(module).clear()
            vars(module).update(attributes)
            for name, items in inner.items():
                attributes[name].clear()
                attributes[name].update(items)


def _inner(attributes: dict[str, Any]) -> dict[str, dict[Any, Any]]:
    """Copies of the dicts in which a module keeps its parts and hooks."""
    return {
        name: dict(item) for name, item in attributes.items() if name[:1] == "_" and isinstance(item, dict)
    }
