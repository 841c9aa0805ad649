"""Which modules of a model are in training mode, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode back afterwards; what is compiled runs as it is written.

    A compiler would take tens of seconds for every size of data, and compute the same.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def modes_of_training(model: torch.nn.Module, but: Collection[torch.nn.Module] = ()) -> Iterator[None]:
    """The modes that a training loop gives its modules inside, every module's own mode back afterwards.

    Args:
        model: The model.
        but: Modules that stay in evaluation mode.
    """
    active = training_modules(model) - set(but)
    with evaluation_mode(model):
        for module in active:
            module.training = True
        yield


def training_modules(model: torch.nn.Module) -> set[torch.nn.Module]:
    """Modules in training mode while the model trains.

    ``model.train()`` decides, with whatever a class makes of it. A module that stands in evaluation mode inside a model in
    training mode was put there, and stays: its dropout does not drop, its statistics do not move.
    """
    modes = {module: module.training for module in model.modules()}
    held = {module for module, mode in modes.items() if model.training and not mode}
    model.train()
    active = {module for module in model.modules() if module.training} - held
    for module, mode in modes.items():
        module.training = mode
    return active
