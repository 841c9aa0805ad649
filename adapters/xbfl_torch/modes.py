"""Which modules of a model are in training mode, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from xbackend_fl.adapter.contract import TrainConfig

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


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


# A model's own autocast does nothing while the toolkit computes with it (see Masters); this one does.
_ENTER: Any = torch.autocast.__enter__
_LEAVE: Any = torch.autocast.__exit__


@contextmanager
def autocast(device: str, config: TrainConfig) -> Iterator[None]:
    """Forward passes inside compute in the precision of training; PyTorch decides which operations do."""
    if config.precision == "float32":
        yield
        return
    inside = torch.autocast(torch.device(device).type, getattr(torch, config.precision))
    _ENTER(inside)
    try:
        yield
    finally:
        _LEAVE(inside, None, None, None)


@contextmanager
def few_threads(model: torch.nn.Module) -> Iterator[None]:
    """PyTorch computes in one thread inside, unless the model has convolutions.

    The batches of a probe are small, and threads wait for each other longer than they compute: forward and backward through four layers of a
    BERT with 64 tokens took 0.24 s of the processor and 0.35 s of the clock in one thread, 0.7 and 1.1 in two, on two cores that others use too.
    """
    threads = torch.get_num_threads()
    if not any(isinstance(module, _CONVOLUTIONS) for module in model.modules()):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
