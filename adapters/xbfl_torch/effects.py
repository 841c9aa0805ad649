"""What the settings of a module do in training beside its graph, read from its attributes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.utils import parametrize

from xbackend_fl.canonical import TrainingEffect


def effects_of(model: torch.nn.Module) -> Iterator[TrainingEffect]:
    """Hooks on gradients, and embeddings whose gradient is not that of their function."""
    for path, module in model.named_modules():
        where = f"torch layer {path!r} ({type(module).__name__})"
        if module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001  nothing public lists them
            what = "a backward hook may change its gradients"
            yield TrainingEffect(
                where, what, "torch: remove the handle that register_full_backward_hook gave", compared=True
            )
        if isinstance(module, torch.nn.Embedding) and module.scale_grad_by_freq:
            what = (
                "scale_grad_by_freq=True divides gradients by how often a row is read; training here does not"
            )
            yield TrainingEffect(where, what, f"torch: {path}: scale_grad_by_freq=False")
        if isinstance(module, torch.nn.Embedding) and module.sparse:
            yield TrainingEffect(
                where, "sparse=True; gradients are dense here", f"torch: {path}: sparse=False", compared=True
            )
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks:  # noqa: SLF001  likewise
            what = "a hook may change its gradient"
            yield TrainingEffect(
                f"torch parameter {name!r}",
                what,
                "torch: remove the handle that register_hook gave",
                compared=True,
            )
        if parameter._post_accumulate_grad_hooks:  # noqa: SLF001  likewise
            what = "a hook runs when its gradient is accumulated; training here accumulates none"
            cure = "torch: remove the handle that register_post_accumulate_grad_hook gave"
            yield TrainingEffect(f"torch parameter {name!r}", what, cure)


def computed_effect(model: torch.nn.Module, path: str, name: str) -> TrainingEffect:
    """The effect of a weight that a parametrization computes: a plain copy of it would train."""
    module = model.get_submodule(path)
    kind, cure = "an old-style parametrization", "torch.nn.utils.remove_weight_norm or remove_spectral_norm"
    if f"{name}_mask" in dict(module.named_buffers(recurse=False)):
        kind, cure = "pruning", f"torch.nn.utils.prune.remove(model.get_submodule({path!r}), {name!r})"
    if parametrize.is_parametrized(module, name):
        kinds = module.parametrizations[name]  # type: ignore[index]
        kind = ", ".join(type(item).__name__.lstrip("_") for item in kinds)
        cure = f"torch.nn.utils.parametrize.remove_parametrizations(model.get_submodule({path!r}), {name!r})"
    full = f"{path}.{name}".lstrip(".")
    return TrainingEffect(
        full, f"{kind} computes it in every step, and a plain copy would train here", f"torch: {cure}"
    )
