"""Looking rows of a table up, each participant's own: what ``vmap`` makes of a padding index trains the padding of all but the first."""

from __future__ import annotations

import torch
from torch.nn import functional


def embedding(
    count: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,  # noqa: FBT001, FBT002
    sparse: bool = False,  # noqa: FBT001, FBT002
) -> torch.Tensor:
    """``functional.embedding`` of one participant.

    Raises:
        NotImplementedError: The table is changed as it is read, its gradient counts the examples of a batch, or is sparse.
    """
    del norm_type
    if max_norm is not None:
        raise NotImplementedError("max_norm changes the table while it is read")
    if padding_idx is None:
        return looked_up(count, weight, value, -1, scale_grad_by_freq, sparse)
    place = padding_idx if padding_idx >= 0 else len(weight) + padding_idx
    return looked_up(count, weight, value, place, scale_grad_by_freq, sparse)


def looked_up(
    count: torch.Tensor,
    weight: torch.Tensor,
    indices: torch.Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,  # noqa: FBT001, FBT002
    sparse: bool = False,  # noqa: FBT001, FBT002
) -> torch.Tensor:
    """``torch.embedding`` of one participant, whose negative padding index is none.

    Raises:
        NotImplementedError: The gradient counts the examples of a batch, or is sparse.
    """
    del count
    if scale_grad_by_freq:
        raise NotImplementedError("scale_grad_by_freq counts examples that only fill a batch up")
    if sparse:
        raise NotImplementedError("sparse gradients have no stacked form")
    found = functional.embedding(indices, weight)
    if padding_idx < 0:
        return found
    return torch.where((indices == padding_idx)[..., None], found.detach(), found)
