"""Batch normalisation with every participant's own statistics, of the examples that count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from xbfl_torch.stacked import devices
from xbfl_torch.stacked.lifting import changes, lifted, own


@dataclass(frozen=True)
class Normalised:
    """Images that kernels normalised.

    Attributes:
        value: The images, ``[participants, batch, channels, height, width]``.
        weight: What they were multiplied with then, ``[participants, channels]``.
        bias: What was added.
        counts: Examples that count, ``[participants]``.
        mean: Of every channel, ``[participants, channels]``.
        variance: The same.
        eps: Added to the variance.
        version: How often the images had been changed in place before.
        rectified: Whether what was negative then became zero.
    """

    value: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    counts: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    eps: float
    version: int
    rectified: bool = False

    def backward(
        self, grad: torch.Tensor, window: tuple[int, int] | None = None, chosen: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Gradients of value, weight and bias by that of what came after, ``[participants, batch, channels, ...]``.

        Args:
            grad: The gradient.
            window: By which it was pooled then, if it was.
            chosen: Which place of each window is the largest.
        """
        kernels, value = devices.kernels("normalisation", self.value), self.value
        assert kernels is not None
        height, width = value.shape[3:]
        pooled = None if window is None else kernels.Pooled(chosen, height, width, *window)
        below, slope, shift = kernels.backward(
            _channels_last(grad), _channels_last(value), self.mean, self.variance, self.weight, self.bias, self.counts,
            height * width, self.eps, rectified=self.rectified, pooled=pooled,
        )  # fmt: skip
        of_weight, of_bias = (None if self.weight is None else slope), (None if self.bias is None else shift)
        return _channels_second(below, value.shape), of_weight, of_bias


def batch_norm(
    count: torch.Tensor,
    value: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,  # noqa: FBT001, FBT002
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    seen: list[Normalised],
) -> Any:
    """``functional.batch_norm`` of one participant; running variances average the biased variance, as ONNX defines it.

    What kernels normalise is added to ``seen``.
    """
    if not training:
        return NotImplemented
    rule = partial(_batch_norm, seen)
    return lifted(rule, count, value, running_mean, running_var, weight, bias, momentum, eps)


def _batch_norm(
    seen: list[Normalised],
    counts: torch.Tensor,
    value: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """Of ``value [participants, batch, channels, ...]``; vectors are ``[participants, channels]``."""
    kind = _Normalise if devices.kernels("normalisation", value) is None else _NormaliseByKernels
    result, mean, variance = kind.apply(value, weight, bias, counts, eps)  # type: ignore[no-untyped-call]
    kernels = devices.kernels("normalisation", value)
    if kernels is not None and value.ndim == 5:
        lined = devices.lined_up(weight), devices.lined_up(bias)
        seen.append(Normalised(value, *lined, counts, mean, variance, eps, changes(value)))
    if running_mean is None or running_var is None:
        return result  # type: ignore[no-any-return]
    if kernels is not None and running_mean.stride() == running_var.stride():
        kernels.move(running_mean.data, running_var.data, mean, variance, counts, momentum)
    else:
        active = (counts > 0)[:, None]
        with torch.no_grad():
            for running, now in ((running_mean, mean), (running_var, variance)):
                # .data: autograd counts changes of the whole row in which they lie, and nothing here is read backwards.
                running.data.copy_(torch.where(active, running + momentum * (now - running), running))
    return result  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, counts: Any, eps: float) -> Any:
        real = _real(counts, value)
        axes = _summed(value)
        number = _wide(counts.clamp(min=1).to(value.dtype) * (value[0, 0, 0].numel()), value)
        mean = (value * real).sum(axes, keepdim=True) / number
        centred = (value - mean) * real
        variance = centred.square().sum(axes, keepdim=True) / number
        scale = torch.rsqrt(variance + eps)
        normal = centred * scale
        ctx.save_for_backward(normal, scale, number, weight, real)
        result = normal if weight is None else normal * _wide(weight, value)
        result = result if bias is None else result + _wide(bias, value)
        mean, variance = mean.reshape(len(counts), -1), variance.reshape(len(counts), -1)
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        normal, scale, number, weight, real = ctx.saved_tensors
        axes, grad = _summed(normal), grads[0] * real
        shift, slope = grad.sum(axes, keepdim=True), (grad * normal).sum(axes, keepdim=True)
        below = (grad - (shift + normal * slope) / number) * scale * real
        if weight is None:
            return below, None, None, None, None
        count = len(weight)
        below = below * _wide(weight, normal)
        return below, slope.reshape(count, -1), shift.reshape(count, -1), None, None


class _NormaliseByKernels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any, counts: Any, eps: float) -> Any:
        ctx.kernels, ctx.eps = devices.kernels("normalisation", value), eps
        flat, ctx.shape = _channels_last(value), value.shape
        weight, bias = devices.lined_up(weight), devices.lined_up(bias)
        places = value[0, 0, 0].numel()
        result, mean, variance = ctx.kernels.forward(flat, weight, bias, counts, places, eps)
        ctx.save_for_backward(flat, mean, variance, weight, counts)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)  # those of mean and variance would be written down
        return own(_channels_second(result, value.shape)), mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if grads[0] is None:
            return None, None, None, None, None
        flat, mean, variance, weight, counts = ctx.saved_tensors
        places = flat.shape[1] // ctx.shape[1]
        below, slope, shift = ctx.kernels.backward(
            _channels_last(grads[0]), flat, mean, variance, weight, None, counts, places, ctx.eps
        )
        of_bias = shift if ctx.needs_input_grad[2] else None
        return _channels_second(below, ctx.shape), None if weight is None else slope, of_bias, None, None


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    """``[participants, batch, channels, ...]`` as ``[participants, batch * places, channels]``."""
    return value.movedim(2, -1).reshape(len(value), -1, value.shape[2]).contiguous()


def _channels_second(flat: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return flat.view(*shape[:2], *shape[3:], shape[2]).movedim(-1, 2)


def _real(counts: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One for every example that counts, zero for the others, ``[participants, batch, 1, ...]``."""
    places = torch.arange(value.shape[1], device=value.device)
    real = (places[None, :] < counts[:, None]).to(value.dtype)
    return real.reshape(*real.shape, *[1] * (value.ndim - 2))


def _summed(value: torch.Tensor) -> tuple[int, ...]:
    return (1, *range(3, value.ndim))


def _wide(vector: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``[participants]`` or ``[participants, channels]`` in the shape of ``value``."""
    channels = vector.shape[1] if vector.ndim > 1 else 1
    return vector.reshape(len(vector), 1, channels, *[1] * (value.ndim - 3))
