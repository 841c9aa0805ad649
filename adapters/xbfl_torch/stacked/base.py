"""What everybody in a cohort starts from, on the device once: the model's own tensors lie in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from xbfl_torch.stacked.packing import Packing


def laid_in(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], packing: Packing) -> torch.Tensor:
    """A row ``[packing.size]`` with the values of a model's tensors, in which those live from now on that can.

    Images' weights stay where they are, as they lie otherwise in the row, and so do those of recurrent layers, which PyTorch wants
    in a block of their own.

    Args:
        model: On the device of the row.
        tensors: Its own, by native name.
        packing: Where they lie.
    """
    like = next(model.parameters())
    row = torch.zeros(packing.size, dtype=like.dtype, device=like.device)
    apart = {
        id(tensor)
        for module in model.modules()
        if isinstance(module, torch.nn.RNNBase)
        for tensor in module.parameters()
    }
    for name, view in packing.views(row).items():
        tensor = tensors[name]
        view.copy_(tensor.detach())
        same = tensor.dtype == row.dtype and tensor.stride() == view.stride()
        if same and id(tensor) not in apart:
            tensor.data = view
    return row
