"""Convolutions of parted images against PyTorch in float64: magnitudes of every kind, and who must not touch whom."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.adapters.triton_place import DEVICE, drawn, error, kept
from xbfl_torch.stacked.kernels import parted_images
from xbfl_torch.stacked.kernels.convolution import Window

SAME = Window((1, 1), (1, 1), (1, 1))


def found(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, grad: torch.Tensor, window: Window = SAME
) -> tuple[torch.Tensor, ...]:
    """A convolution and its three gradients."""
    result, images, kernels = parted_images.forward(value, weight, bias, window)
    gradients = parted_images.backward(
        images, kernels, grad, value.shape, weight.shape, window, (True, True, True)
    )
    return (result, *(gradient for gradient in gradients if gradient is not None))


def wanted(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, grad: torch.Tensor, window: Window = SAME
) -> tuple[torch.Tensor, ...]:
    """The same of one participant, by PyTorch in float64."""
    leaves = [tensor.double().requires_grad_() for tensor in (value, weight, bias)]
    result = functional.conv2d(leaves[0], leaves[1], leaves[2], *window)
    return result.detach(), *torch.autograd.grad(result, leaves, grad.double())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("ins", "outs", "size", "kernel", "window"),
    [
        (32, 64, (5, 7), (3, 3), SAME),
        (48, 16, (7, 9), (3, 2), Window((2, 1), (0, 1), (1, 2))),
        (16, 80, (6, 7), (1, 1), Window((3, 2), (0, 0), (1, 1))),
        (128, 32, (4, 3), (5, 5), Window((1, 1), (2, 2), (1, 1))),
    ],
)
def test_convolutions(
    ins: int, outs: int, size: tuple[int, int], kernel: tuple[int, int], window: Window, *, last: bool
) -> None:
    """Strides, padding and dilation of their own each way; blocks that places and examples do not fill."""
    value, weight, bias = drawn(2, 3, ins, *size), drawn(2, outs, ins, *kernel), drawn(2, outs)
    shape = functional.conv2d(value[0], weight[0], None, *window).shape
    grad = drawn(2, *shape)
    value, grad = (kept(value), kept(grad)) if last else (value, grad)
    every = found(value, weight, bias, grad, window)
    assert len(every) == 4
    for index in range(2):
        right = wanted(value[index], weight[index], bias[index], grad[index], window)
        for mine, theirs in zip(every, right, strict=True):
            assert error(mine[index], theirs) < 1e-6


@pytest.mark.parametrize(
    "scales", [(1e-30, 1e30, 1e-5), (1e30, 1e-30, 1e5), (1e-18, 1e-18, 1e-17), (3e4, 1e-8, 1e12)]
)
def test_magnitudes(scales: tuple[float, float, float]) -> None:
    """Of images, weights and gradients, far from those of float16."""
    value, weight, bias = drawn(2, 3, 16, 5, 6), drawn(2, 32, 16, 3, 3), torch.zeros(2, 32, device=DEVICE)
    grad = drawn(2, 3, 32, 5, 6)
    value, weight, grad = (t * s for t, s in zip((value, weight, grad), scales, strict=True))
    every = found(value, weight, bias, grad)
    for index in range(2):
        right = wanted(value[index], weight[index], bias[index], grad[index])
        for mine, theirs in zip(every, right, strict=True):
            assert error(mine[index], theirs) < 1e-6


def test_magnitudes_that_differ_within_a_participant() -> None:
    """Each example by itself, places of the kernel and values within an example by what they add up to."""
    value, weight, bias = drawn(2, 4, 16, 5, 6), drawn(2, 32, 16, 3, 3), drawn(2, 32)
    grad = drawn(2, 4, 32, 5, 6)
    apart = torch.tensor([1e-12, 1.0, 1e9, 0.0], device=DEVICE)[None, :, None, None, None]
    value, grad, bias = value * apart, grad / apart.clamp(min=1e-12), bias * 0
    weight[..., 1] *= 1e-7
    value[:, 1, :, 2] *= 1e-9
    every = found(value, weight, bias, grad)
    for index in range(2):
        right = wanted(value[index], weight[index], bias[index], grad[index])
        for mine, theirs in zip(every[:2], right[:2], strict=True):
            for example in range(3):
                assert error(mine[index, example], theirs[example]) < 1e-6
            assert torch.equal(mine[index, 3].double(), theirs[3]) or mine is every[1]
        for mine, theirs in zip(every[2:], right[2:], strict=True):
            assert error(mine[index], theirs) < 1e-6


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, of the interpreter
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_where_it_is_seen(bad: float) -> None:
    """With the participant and the example; nobody else's bits change."""
    given = drawn(2, 3, 16, 6, 6), drawn(2, 32, 16, 3, 3), drawn(2, 32), drawn(2, 3, 32, 6, 6)
    good = found(*given)
    for place in range(4):
        value, weight, bias, grad = (tensor.clone() for tensor in given)
        (value, weight, bias, grad)[place][1].view(-1)[5] = bad
        mine = found(value, weight, bias, grad)
        for right, now in zip(good, mine, strict=True):
            assert torch.equal(right[0], now[0])
        expected = wanted(value[1], weight[1], bias[1], grad[1])
        for now, theirs in zip(mine, expected, strict=True):
            assert not now[1][~theirs.isfinite()].isfinite().any()
        if place in {0, 3}:
            # Of an image, or of its gradient: other places of the example, and the participant's other examples.
            now, theirs = mine[place // 3][1], expected[place // 3]
            assert torch.equal(now.isfinite(), theirs.isfinite())
            assert error(now[now.isfinite()], theirs[theirs.isfinite()]) < 1e-6
            right, now = (every[place // 3][1, 1:] for every in (good, mine))
            assert torch.equal(right, now)


def test_examples_and_participants_without_a_number_are_zero() -> None:
    value, weight, bias, grad = (
        drawn(2, 3, 16, 5, 6),
        drawn(2, 32, 16, 3, 3),
        drawn(2, 32),
        drawn(2, 3, 32, 5, 6),
    )
    value[0], grad[0], grad[1, 2] = 0.0, 0.0, 0.0
    weight[1, ..., 0] = 0.0
    result, below, slope, shift = found(value, weight, bias, grad)
    assert torch.equal(result[0], bias[0][None, :, None, None].expand_as(result[0]))
    assert not below[0].any()
    assert not below[1, 2].any()
    assert not slope[0].any()
    assert not shift[0].any()
    assert error(slope[1], wanted(value[1], weight[1], bias[1], grad[1])[2]) < 1e-6


def test_other_examples_change_no_bit() -> None:
    """Not even those that are far larger: an example is parted by itself, and one whose gradient is zero adds zeros."""
    value, weight, bias, grad = (
        drawn(2, 4, 16, 6, 6),
        drawn(2, 32, 16, 3, 3),
        drawn(2, 32),
        drawn(2, 4, 32, 6, 6),
    )
    grad[0, 2:], grad[1, 1:] = 0.0, 0.0
    other = value.clone()
    other[0, 2:], other[1, 1:] = 1e6 * drawn(2, 16, 6, 6), 1e6 * drawn(3, 16, 6, 6)
    (one, *rest), (two, *again) = found(value, weight, bias, grad), found(other, weight, bias, grad)
    assert torch.equal(one[0, :2], two[0, :2])
    assert torch.equal(one[1, :1], two[1, :1])
    for mine, same in zip(rest, again, strict=True):
        assert torch.equal(mine, same)


def test_parting_depends_on_the_shape_of_one_participant() -> None:
    def pays(count: int, ins: int, outs: int, side: int) -> bool:
        sizes = torch.Size((count, 10, ins, side, side)), torch.Size((count, outs, ins, 5, 5))
        return parted_images.pays(*sizes, Window((1, 1), (2, 2), (1, 1)))

    assert pays(1, 32, 64, 14)
    assert pays(40, 32, 64, 14)
    assert pays(1, 16, 16, 14)
    assert not pays(40, 1, 32, 28)
    assert not pays(40, 32, 60, 14)
    assert not pays(40, 16, 16, 7)
