"""Out of ``vmap`` and back: a rule sees tensors with the participants as their first axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

Rule: TypeAlias = Callable[..., torch.Tensor]
"""Takes stacked arguments, returns ``[participants, ...]``."""


def lifted(rule: Rule, *arguments: Any) -> torch.Tensor:
    """Call a rule from a function that ``vmap`` runs for every participant.

    Args:
        rule: Called once for all. Autograd records what it does.
        arguments: Tensors of one participant, or anything else. Of the tensors those that differ between participants (one at least)
            reach the rule as ``[participants, ...]``; one that all participants share is expanded to that.
    """
    result: torch.Tensor = _Lifted.apply(rule, *arguments)  # type: ignore[no-untyped-call]
    return result


def own(result: torch.Tensor) -> torch.Tensor:
    """The same numbers in the same memory, of which autograd does not know that another tensor lies there.

    A function of autograd returns it where its result is turned: a view that is made inside may not be changed in place by the model.
    """
    return result.data


def changes(tensor: torch.Tensor) -> int:
    """How often the numbers of a tensor that :func:`lifted` gave have been changed in place, through it or any view."""
    return tensor._version  # noqa: SLF001  PyTorch names and describes it, and has no other word for it


class _Lifted(torch.autograd.Function):
    @staticmethod
    def forward(rule: Rule, *_: Any) -> Any:
        raise RuntimeError(
            f"{getattr(rule, '__name__', rule)}: nothing of this call differs between participants"
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Autograd never sees this function, only what its rule does."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], rule: Rule, *arguments: Any) -> Any:
        count = info.batch_size
        stacked = [_stacked(value, axis, count) for value, axis in zip(arguments, in_dims[1:], strict=True)]
        return rule(*stacked), 0


def _stacked(value: Any, axis: int | None, count: int) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.expand(count, *value.shape) if axis is None else value.movedim(axis, 0)
