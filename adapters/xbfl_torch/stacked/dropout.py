"""Dropout with masks that are every participant's own: drawn from its seed, its step, the call and the place of the value, and nothing else.

The generator is Philox 4x32-10 (Salmon et al. 2011): a value's number does not depend on who else trains, or on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xbfl_torch.dropping import rate_of
from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import lifted

MASKED = {torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d}
"""Layers that drop in this way."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[torch.Tensor, ...]:
    """Four random numbers of 32 bits each, as 64-bit integers, of counters and keys of 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product wraps around; its upper half is masked, so that its sign does not matter.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((second >> 32) & _MASK) ^ c1 ^ k0,
            second & _MASK,
            ((first >> 32) & _MASK) ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _INCREMENTS[0]) & _MASK, (k1 + _INCREMENTS[1]) & _MASK
    return c0, c1, c2, c3


def kept(seeds: torch.Tensor, step: torch.Tensor, call: int, size: int, rate: float) -> torch.Tensor:
    """Which of the ``size`` values of each participant stay, ``[participants, size]``.

    Args:
        seeds: Of each participant, ``[participants]``.
        step: The number of the step, from 0, ``[1]``.
        call: The number of the call in a forward pass, from 0.
        size: Values of a participant.
        rate: Share of values that are dropped.
    """
    quads = torch.arange(-(-size // 4), device=seeds.device)[None]
    zero, key = torch.zeros_like(quads), seeds[:, None]
    numbers = philox((quads, step[None] + zero, zero + call, zero), (key & _MASK, key >> 32))
    bits = torch.stack([number.expand(len(seeds), -1) for number in numbers], 2).flatten(1)[:, :size]
    return bits >= threshold(rate)


def threshold(rate: float) -> int:
    """Numbers below this are of values that are dropped."""
    return min(round(rate * (1 << 32)), _MASK)


@final
class Drawing:
    """Draws the masks of one forward pass.

    Args:
        seeds: Of each participant, ``[participants]``, or what ``vmap`` holds for them.
        step: The number of the step, ``[1]``.
    """

    def __init__(self, seeds: torch.Tensor, step: torch.Tensor) -> None:
        self.seeds, self.step, self._calls = seeds, step, 0

    @property
    def rules(self) -> Mapping[Any, Callable[..., Any]]:
        """Of the functions that drop."""
        channels = partial(self.dropout, channels=True)
        return {
            functional.dropout: self.dropout,
            functional.dropout1d: channels,
            functional.dropout2d: channels,
            functional.dropout3d: channels,
        }

    def dropout(
        self,
        count: torch.Tensor,
        value: torch.Tensor,
        p: float = 0.5,
        training: bool = True,  # noqa: FBT001, FBT002
        inplace: bool = False,  # noqa: FBT001, FBT002
        *,
        channels: bool = False,
    ) -> Any:
        """``functional.dropout`` of one participant, or of whole channels, batch first; ``inplace`` makes no difference to what comes out."""
        del count, inplace
        places = value[0, 0].numel() if channels and value.ndim > 2 else 1
        return self._drop(value, p, places) if training and p else value

    def _drop(self, value: torch.Tensor, rate: float, places: int) -> torch.Tensor:
        call, self._calls = self._calls, self._calls + 1
        return lifted(_drop, self.seeds, value, self.step, call, rate, places)


def _drop(
    seeds: torch.Tensor, value: torch.Tensor, step: torch.Tensor, call: int, rate: float, places: int
) -> torch.Tensor:
    result: torch.Tensor = _Drop.apply(value, seeds, step, call, rate, places)  # type: ignore[no-untyped-call]
    return result


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, seeds: Any, step: Any, call: int, rate: float, places: int) -> Any:
        value = value.contiguous()
        ctx.scale = 0.0 if rate >= 1 else 1 / (1 - rate)
        kernels = devices.kernels("dropout", value)
        if kernels is not None:
            scale, limit = ctx.scale, threshold(rate)
            result, stays = kernels.dropped(value, seeds, step[0], call, limit, scale, places)
        else:
            size = value[0].numel() // places
            stays = kept(seeds, step[0], call, size, rate).repeat_interleave(places, 1).view(value.shape)
            result = torch.where(stays, value * ctx.scale, 0.0)
        ctx.save_for_backward(stays)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (stays,) = ctx.saved_tensors
        return torch.where(stays, grads[0] * ctx.scale, 0.0), None, None, None, None, None


@final
class DrawnForOne(TorchFunctionMode):
    """One participant's forward pass, by itself, with the masks that it has among others.

    Args:
        seed: Its seed.
        step: The number of the step, from 0.
    """

    def __init__(self, seed: int, step: int) -> None:
        super().__init__()
        self._seed, self._step, self._calls = torch.tensor([seed]), torch.tensor([step]), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make a call, with a mask of the participant's own if it drops."""
        del types
        if func not in _DROPPING:
            return func(*args, **(kwargs or {}))
        value, rate = args[0], rate_of("dropout", args, kwargs or {})
        places = 1 if func is functional.dropout or value.ndim < 3 else value[0, 0].numel()
        call, self._calls = self._calls, self._calls + bool(rate)
        return _drop(self._seed, value[None], self._step[None], call, rate, places)[0] if rate else value


_DROPPING = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}
