"""Weights that a module computes from others (weight and spectral normalisation, pruning), made plain."""

from __future__ import annotations

import copy
import warnings
from contextlib import suppress
from typing import Any

import torch
from torch.nn.utils import parametrize, prune, remove_spectral_norm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from xbackend_fl.canonical import TrainingEffect
from xbfl_torch.effects import computed_effect


def materialised(model: torch.nn.Module) -> tuple[torch.nn.Module, tuple[TrainingEffect, ...]]:
    """``model`` itself, or a copy with plain weights, and what computed them.

    A norm and a direction are not a plain weight: several of them give the same one, and the mean of directions is
    not the direction of the mean. So the copy speaks for the model, and nothing goes back.
    """
    effects = tuple(computed_effect(model, path, name) for path, name in _computed(model))
    if not effects:
        return model, ()
    for path, name in _computed(model):
        module = model.get_submodule(path)
        if not parametrize.is_parametrized(module, name):
            # A leftover of the last forward pass, which cannot be copied; the next one computes it anew.
            module.__dict__[name] = module.__dict__[name].detach()
    twin = copy.deepcopy(model)
    modes = {module: module.training for module in twin.modules()}
    twin.eval()
    for path, name in _computed(model):
        module = twin.get_submodule(path)
        if not parametrize.is_parametrized(module):
            _remove_hook(module, name)
    for module in list(twin.modules()):
        if parametrize.is_parametrized(module):
            _make_plain(module)
    for module, mode in modes.items():
        module.training = mode
    return twin, effects


def _computed(model: torch.nn.Module) -> list[tuple[str, str]]:
    """(module path, tensor name) of every computed weight."""
    found = []
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            found += [(path, name) for name in module.parametrizations]
        hooks = module._forward_pre_hooks.values()  # noqa: SLF001  the older functions leave nothing else behind
        found += [(path, hook.name) for hook in hooks if isinstance(hook, WeightNorm | SpectralNorm)]
        found += [(path, str(hook._tensor_name)) for hook in hooks if isinstance(hook, BasePruningMethod)]  # noqa: SLF001
    return found


def _make_plain(module: torch.nn.Module) -> None:
    """Give a module its own class back, with the values of its computed tensors.

    ``remove_parametrizations`` would change the class, which the copy shares with the original.
    """
    parametrizations: Any = module.parametrizations
    names = list(parametrizations)
    with torch.no_grad():
        values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = type(module).__mro__[1]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, torch.nn.Parameter(value))


def _remove_hook(module: torch.nn.Module, name: str) -> None:
    with warnings.catch_warnings():
        # The older functions are dated; a model that uses them is still a model.
        warnings.simplefilter("ignore")
        for remove in (torch.nn.utils.remove_weight_norm, remove_spectral_norm, prune.remove):
            with suppress(ValueError):
                remove(module, name)
                return
