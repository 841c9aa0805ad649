"""Leaves a user's module as it was, whatever was done with it and however that ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xbackend_fl.adapter.preserve import Containers, generators_kept


@contextmanager
def modules_kept(model: torch.nn.Module) -> Iterator[None]:
    """Afterwards every submodule has the attributes, parameters, buffers, hooks and mode it had, the same objects.

    Its own lists, dicts, sets and deques, and those one level inside them, have the items they had. Values of tensors that were
    changed in place are not brought back. PyTorch's generators are, and those of :func:`generators_kept`.
    """
    before = [(module, dict(vars(module))) for module in model.modules()]
    containers = Containers(value for _, attributes in before for value in attributes.values())
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    drawn = torch.get_rng_state()
    try:
        with generators_kept():
            yield
    finally:
        torch.set_rng_state(drawn)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        containers.bring_back()
