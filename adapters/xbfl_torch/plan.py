"""Where every averaged tensor lies in one flat buffer.

One buffer is reset, subtracted, checked and added up by one kernel each, however many tensors a model has, and crosses to the device and
back in one copy.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from xbackend_fl.adapter.contract import Array, Tensors

_ALIGNMENT = 64
"""Values: kernels load vectors from aligned addresses."""


@final
@dataclass
class Plan:
    """The order of tensors in a buffer.

    Attributes:
        slots: Start and shape of every tensor by native name.
        size: Values of a buffer; the gaps are zero.
    """

    slots: dict[str, tuple[int, torch.Size]]
    size: int
    _staging: torch.Tensor | None = None

    @staticmethod
    def from_tensors(tensors: Mapping[str, torch.Tensor], shared: tuple[str, ...]) -> Plan:
        """A plan for those of ``shared`` that hold floats."""
        slots, end = {}, 0
        for name in shared:
            tensor = tensors[name]
            if tensor.is_floating_point():
                slots[name] = (end, tensor.shape)
                end += -(-tensor.numel() // _ALIGNMENT) * _ALIGNMENT
        return Plan(slots, end)

    def views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors in a buffer."""
        return {
            n: buffer[start : start + shape.numel()].view(shape) for n, (start, shape) in self.slots.items()
        }

    def adopt(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> torch.Tensor:
        """A buffer on a device in which a model's tensors live from now on."""
        buffer = torch.zeros(self.size, device=device)
        for name, view in self.views(buffer).items():
            view.copy_(tensors[name].detach())
            tensors[name].data = view
        return buffer

    def load(self, arrays: Tensors, device: torch.device) -> torch.Tensor:
        """Arrays as a buffer on a device."""
        staging = self._host(device)
        with warnings.catch_warnings():
            # Of arrays that must not be written; they are only read. PyTorch copies with all its threads, NumPy with one.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            for name, view in self.views(staging).items():
                view.copy_(torch.from_numpy(np.asarray(arrays[name])))
        return staging.to(device, copy=True)

    def unload(self, buffer: torch.Tensor) -> dict[str, Array]:
        """A buffer as arrays, which are valid until the next call."""
        staging = self._host(buffer.device)
        staging.copy_(buffer)
        return {name: view.numpy() for name, view in self.views(staging).items()}

    def _host(self, device: torch.device) -> torch.Tensor:
        """A buffer of the processor's; pinned if copies to the device are faster for it."""
        if self._staging is None:
            self._staging = torch.zeros(self.size, pin_memory=device.type == "cuda")
        return self._staging
