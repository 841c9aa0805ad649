"""Where the tensors of all participants lie: one row of numbers each, ``[participants, width]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from xbfl_torch.stacked import devices

_ALIGNMENT = 16
"""Values: kernels load 16 bytes at a time where Triton knows, and it asks of strides only whether 16 divides them."""

_LAST = {4: (2, 3, 1, 0)}
"""In which order the axes of a tensor lie, by their number: kernels of images channels last, as kernels on a GPU read them."""


@final
@dataclass(frozen=True)
class Packing:
    """The order of tensors in a row: those that train, those that only move, and those of which all participants hold the same.

    Attributes:
        places: Start and shape of every tensor by native name.
        trained: Names of those that train, in their order.
        shared: Names of those that participants do not have for themselves.
        outer: Names of those that participants have for themselves and that step by what their layer saw: among those that only move.
        reach: Values of a row up to the end of the last one that trains.
        width: Values of a participant's row; the gaps are zero.
        size: Values of the row of all tensors.
    """

    places: Mapping[str, tuple[int, torch.Size]]
    trained: tuple[str, ...]
    shared: tuple[str, ...]
    outer: tuple[str, ...]
    reach: int
    width: int
    size: int

    @staticmethod
    def from_tensors(
        tensors: Mapping[str, torch.Tensor],
        trained: Sequence[str],
        shared: Sequence[str] = (),
        outer: Sequence[str] = (),
    ) -> Packing:
        """A packing of tensors.

        Args:
            tensors: By native name.
            trained: Names of those that train and that every participant has for itself.
            shared: Names of those that participants do not have for themselves.
            outer: Names of those that step by what their layer saw.
        """
        moved = [name for name in tensors if name not in trained and name not in shared]
        places, ends, end = {}, [], 0
        for names in (trained, moved, shared):
            for name in names:
                places[name] = (end, tensors[name].shape)
                end += -(-tensors[name].numel() // _ALIGNMENT) * _ALIGNMENT
            ends.append(end)
        return Packing(places, tuple(trained), tuple(shared), tuple(outer), *ends)

    def views(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every tensor in rows ``[..., width or size]``, as ``[..., *shape]``."""
        return {
            name: _seen(rows[..., start : start + shape.numel()], shape)
            for name, (start, shape) in self.places.items()
            if start < rows.shape[-1]
        }

    def joined(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """Gradients ``[participants, *shape]`` of what trains, side by side: ``[participants, reach]``."""
        laid = [_laid(gradient) for gradient in gradients]
        starts = [self.places[name][0] for name in self.trained]
        kernels = devices.kernels("update", laid[0])
        if kernels is not None and len(laid) <= kernels.MAX_JOINED:
            return kernels.joined(laid, starts, self.reach)  # type: ignore[no-any-return]
        ends = [start + part.shape[1] for part, start in zip(laid, starts, strict=True)]
        gaps = [after - end for end, after in zip(ends, (*starts[1:], self.reach), strict=True)]
        # One for all gaps: each would be a kernel.
        zeros = laid[0].new_zeros(len(laid[0]), max(gaps))
        return torch.cat(
            [item for part, gap in zip(laid, gaps, strict=True) for item in (part, zeros[:, :gap])], 1
        )


def _laid(stacked: torch.Tensor) -> torch.Tensor:
    """``[participants, *shape]`` as ``[participants, values]``, in the order in which the values lie."""
    order = _order(stacked.shape[1:])
    return stacked.permute(0, *(axis + 1 for axis in order)).reshape(len(stacked), -1)


def _order(shape: torch.Size) -> tuple[int, ...]:
    return _LAST.get(len(shape), tuple(range(len(shape))))


def _seen(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """``[..., values]`` as ``[..., *shape]``, in the order in which the values lie."""
    if not shape:
        return values[..., 0]
    order, before = _order(shape), values.ndim - 1
    laid = values.view(*values.shape[:-1], *(shape[axis] for axis in order))
    return laid.permute(*range(before), *(before + order.index(axis) for axis in range(len(shape))))
