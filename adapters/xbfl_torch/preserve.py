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


@contextmanager
def places_kept(model: torch.nn.Module) -> Iterator[None]:
    """Afterwards every parameter and buffer lies where it did and has the dtype that it had, and trains if it did; it keeps its values.

    ``model.double()``, ``model.to("cuda")`` and ``tensor.data = …`` give the same tensors another memory.
    """
    tensors = [*model.parameters(), *model.buffers()]
    before = [(tensor, tensor.data, tensor.requires_grad) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, data, trains in before:
            if tensor.data_ptr() != data.data_ptr() or tensor.dtype != data.dtype:
                if tensor.shape == data.shape and not tensor.is_meta:
                    data.copy_(tensor.detach())
                tensor.grad = None
                tensor.data = data
            if not tensor.is_leaf:
                tensor.detach_()
            tensor.requires_grad_(trains)
            tensor.grad = None
