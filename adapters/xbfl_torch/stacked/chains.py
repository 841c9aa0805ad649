"""Normalisation and ReLU, and pooling after that of batches, are one pass backwards.

Each result is computed as ever, and whoever else reads one gets its gradient through it as ever. But what comes next in a row looks, backwards,
straight at what was normalised: gradients of images of full size, one for each step of the row, are never written down. What a model changes
in place ends the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from xbfl_torch.stacked import groups, normalisation, pooling
from xbfl_torch.stacked.groups import Grouped
from xbfl_torch.stacked.lifting import changes, lifted
from xbfl_torch.stacked.normalisation import Normalised


@final
class Chains:
    """The rows of one step."""

    def __init__(self) -> None:
        self._normalised: MutableMapping[torch.Tensor, Normalised | Grouped] = WeakTensorKeyDictionary()

    @property
    def rules(self) -> Mapping[Any, Callable[..., Any]]:
        """By function of PyTorch."""
        return {
            functional.batch_norm: self._batch_norm,
            functional.group_norm: self._group_norm,
            functional.relu: self._relu,
            torch.relu: self._relu,
            torch.Tensor.relu: self._relu,
            functional.max_pool2d: self._max_pool2d,
            torch.max_pool2d: self._max_pool2d,
        }

    def _batch_norm(self, *arguments: Any, **options: Any) -> Any:
        return self._seen(normalisation.batch_norm, *arguments, **options)

    def _group_norm(self, *arguments: Any, **options: Any) -> Any:
        return self._seen(groups.group_norm, *arguments, **options)

    def _seen(self, rule: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        seen: list[Any] = []
        result = rule(*arguments, **options, seen=seen)
        if seen:
            self._normalised[result] = seen[0]
        return result

    def _relu(self, count: torch.Tensor, value: torch.Tensor, inplace: bool = False) -> Any:  # noqa: FBT001, FBT002
        item = self._normalised.get(value)
        if item is None or inplace or item.rectified:
            return NotImplemented
        return self._seen(_following, count, value, replace(item, rectified=True), None)

    def _max_pool2d(self, count: torch.Tensor, value: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        item, window = self._normalised.get(value), pooling.window_of(value, *arguments, **options)
        if not isinstance(item, Normalised) or window is None:
            return pooling.max_pool2d(count, value, *arguments, **options)
        return self._seen(_following, count, value, item, window)


def _following(
    count: torch.Tensor,
    value: torch.Tensor,
    item: Normalised | Grouped,
    window: tuple[int, int] | None,
    *,
    seen: list[Normalised | Grouped],
) -> Any:
    """What is rectified, or pooled by a window, in a row; to ``seen`` is added what the row may go on from."""
    return lifted(partial(_after, seen), count, value, item, window)


def _after(
    seen: list[Normalised | Grouped],
    count: torch.Tensor,
    value: torch.Tensor,
    item: Normalised | Grouped,
    window: tuple[int, int] | None,
) -> torch.Tensor:
    if changes(value) or changes(item.value) != item.version:
        # Not what came out of the last step of the row, or not what went into the first.
        return torch.relu(value) if window is None else pooling.pooled(count, value, window)
    if window is None:
        seen.append(item)
    result: torch.Tensor = _After.apply(item.value, item.weight, item.bias, value.detach(), item, window)  # type: ignore[no-untyped-call]
    return result


class _After(torch.autograd.Function):
    """Of what was normalised, through what came after that; ``value`` is what is rectified or pooled now."""

    @staticmethod
    def forward(ctx: Any, first: Any, weight: Any, bias: Any, value: Any, item: Any, window: Any) -> Any:
        ctx.item, ctx.window = item, window
        result, chosen = (torch.relu(value), None) if window is None else pooling.largest(value, window)
        # What the item holds is saved too: so PyTorch complains where it has been changed in place meanwhile.
        ctx.save_for_backward(first, weight, bias, chosen)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        chosen = ctx.saved_tensors[-1]
        then = () if ctx.window is None else (ctx.window, chosen)
        return *ctx.item.backward(grads[0], *then), None, None, None
